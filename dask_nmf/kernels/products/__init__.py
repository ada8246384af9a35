"""Products of a block of V with the factors of several models at once."""
