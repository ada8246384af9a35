"""Files of other kinds are converted to a Zarr group that every command reads, in bounded memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_nmf.ingest.conversion import convert as convert

__all__ = ["convert"]


def __getattr__(name: str) -> Any:
    """Import `convert` when it is asked for: processes that count words need none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'dask_nmf.ingest' has no attribute {name!r}")
    return getattr(import_module("dask_nmf.ingest.conversion"), name)
