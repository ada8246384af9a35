"""Zarr arrays: written once, checked for missing chunks, read and written by rows."""
