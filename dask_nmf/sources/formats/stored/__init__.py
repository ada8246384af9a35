"""Kinds of inputs that are files, or objects of stores: Zarr, NumPy, HDF5."""
