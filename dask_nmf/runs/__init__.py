"""A fit in a Zarr group: its record, its commits, its result, and the search for a run to resume."""
