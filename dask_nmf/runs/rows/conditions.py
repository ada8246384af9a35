"""The conditions on which rows of a run may be added or taken out."""

from __future__ import annotations

from typing import Any

from dask_nmf.errors import RunMismatch
from dask_nmf.runs.record.contents import is_masked


def check_changeable(run_name: str, record: dict[str, Any]) -> None:
    """Refuse to change the rows of a run whose fit is not finished, or whose rows have no known sums.

    Raises
    ------
    ValueError
        With the reason and the cure.
    """
    if record["result"] is None or not record["finished"]:
        raise ValueError(f"the fit of {run_name} is not finished; finish it with dask-nmf fit first")
    settings = record["result"]["settings"]
    if settings.get("fixed_W") is not None:
        raise ValueError(
            f"{run_name} was fitted with a fixed W, so it has no sums over rows, from which H could be "
            "solved again; fit all rows anew, or compute W of new rows with dask-nmf transform"
        )
    if is_masked(record["result"]) and not record["result"].get("weighs_columns"):
        raise ValueError(
            f"{run_name} was fitted by an earlier version, which did not keep how many entries each column "
            "has; fit all rows anew, or compute W of new rows with dask-nmf transform"
        )


def check_unchanged(run_name: str, record: dict[str, Any]) -> None:
    """Refuse to fit anew, unless asked to, what rows were added to or taken out of since its fit.

    Raises
    ------
    RunMismatch
        With the cure.
    """
    if record["finished"] and "lineage" in record["result"]:
        raise RunMismatch(
            f"the rows of {run_name} were changed since its fit, by dask-nmf update or forget; "
            "give another output, or ask to overwrite it (--overwrite)"
        )
