"""Local folders and object stores behind one interface: locks, durability, atomic outputs."""
