"""Non-negative matrix factorisation of matrices that do not fit in memory, on Dask."""

from dask_nmf.factorise import Result, nmf

__all__ = ["Result", "nmf"]
