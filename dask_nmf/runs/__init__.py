"""A fit in a Zarr group: its record, its commits, its answer, and who may go on with it."""
