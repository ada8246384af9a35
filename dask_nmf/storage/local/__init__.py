"""Files of this machine: renamed in one step, and kept through a power cut."""
