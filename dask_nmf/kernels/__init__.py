"""Numerics on one block in memory: no Dask, no input or output, no state."""
