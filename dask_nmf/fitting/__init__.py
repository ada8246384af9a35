"""One fit, from the first read of V to the result."""
