"""The algorithms: how W and H are updated from sums over blocks; they never see V, Dask or a file."""
