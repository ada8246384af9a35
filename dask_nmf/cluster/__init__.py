"""Dask clusters: configure, start, connect, compare versions, watch for lost workers."""
