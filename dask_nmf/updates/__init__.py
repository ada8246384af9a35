"""Rows added to a finished fit or taken out of it, from sums over its rows, without a fit of all rows."""

from dask_nmf.updates.forget import forget
from dask_nmf.updates.outcomes import Forgotten, Update
from dask_nmf.updates.update import update

__all__ = ["Forgotten", "Update", "forget", "update"]
