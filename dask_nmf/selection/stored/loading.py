"""A finished selection, loaded from its group without V."""

from __future__ import annotations

from dataclasses import replace

from dask_nmf.fitting.result import result_of
from dask_nmf.runs.commits import FIT
from dask_nmf.runs.run import Run
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.storage.locations import Location


def load_selection(location: Location) -> RankSelection:
    """Return the selection that a group holds, with the fit of the recommended rank and its error bars.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the location.
    InvalidRunError
        If there is something else.
    ValueError
        If not all models have ended, or the fit of the recommended rank has no result yet.
    """
    store = SelectionStore.load(location)
    findings = store.findings()
    if findings is None or not store.is_answered:
        raise ValueError(f"{location.name} has no answer yet; finish it with dask-nmf select first")
    stored = Run.load_result(location.within(FIT))
    wide = bool(stored.record["matrix"]["transposed"])
    chosen = RankSelection.of(findings, result_of(stored), wide, stored.settings.beta)
    return replace(chosen, error_bars=store.error_bars())
