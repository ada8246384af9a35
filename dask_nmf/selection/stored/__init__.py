"""A selection in a Zarr group: its record, its commits, and its models as arrays."""
