"""The Zarr group that a conversion writes: X, and the names of its rows and columns, in AnnData's layout."""
