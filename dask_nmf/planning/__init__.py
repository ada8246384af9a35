"""The partition of V into panels or blocks, and the memory that it takes: integers in, integers out."""
