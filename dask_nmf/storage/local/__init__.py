"""Files of this machine: locks, atomic outputs, and writes that survive a power cut."""
