"""How V is cut into panels or blocks, and the memory that takes: integers in, integers out."""
