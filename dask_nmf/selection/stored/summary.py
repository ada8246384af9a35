"""The summary of a stored selection for people and programs."""

from __future__ import annotations

from typing import Any

from dask_nmf.runs.commits import FIT, is_selection
from dask_nmf.selection.stored.record import STDERR
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.storage.locations import Location

MATRIX = ("source", "shape", "dtype")
SETTINGS = (
    *("holdout", "solver", "beta_loss", "max_iter", "tol", "random_state"),
    *("missing", "alpha_W", "alpha_H", "l1_ratio"),
)


def selection_summary(location: Location) -> dict[str, Any] | None:
    """Return the summary of a selection as values of JSON; None if there is no selection at a location.

    The table is that of the last answer, which may be one of before, as long as models are fitted.
    """
    if not is_selection(location):
        return None
    store = SelectionStore.load(location)
    record = store.record
    settings = {name: record["identity"][name] for name in SETTINGS}
    answer = record["answer"] or record["findings"] or {}
    models = record["models"]
    return {
        "selection": location.name,
        "state": "finished" if store.is_finished else "unfinished",
        "n_components": answer.get("n_components"),
        "reason": answer.get("reason"),
        **{name: record["identity"][name] for name in MATRIX},
        "models": len(models),
        "models_left": sum(model["ending"] is None for model in models),
        "passes": max((len(model["history"]) for model in models), default=0),
        "error_bars": record["error_bars"],
        "components_stderr": None if record["error_bars"] is None else location.within(STDERR).name,
        "fit": location.within(FIT).name if location.within(FIT).exists() else None,
        "version": record["version"],
        "settings": settings,
        "ranks": answer.get("ranks", []),
        "trials": answer.get("models", []),
    }
