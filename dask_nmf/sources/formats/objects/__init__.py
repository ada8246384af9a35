"""Kinds of inputs that are Python objects: arrays and tables in memory, Dask and xarray."""
