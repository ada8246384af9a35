"""Files of other kinds are converted to a Zarr group that every command reads, in bounded memory."""

from dask_nmf.ingest.conversion import convert as convert
