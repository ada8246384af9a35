"""A fit in a Zarr group: its record, its commits, its result, and how it is resumed."""
