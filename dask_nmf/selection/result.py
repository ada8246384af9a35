"""The result of a selection of the rank."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from dask_nmf.fitting.result import Result
from dask_nmf.types import Array

COLUMNS = (
    "n_components",
    "held_out_error",
    "standard_error",
    "training_error",
    "stability",
    "cophenetic",
    "dispersion",
)


@dataclass(frozen=True, eq=False, repr=False)
class RankSelection:
    """The rank to take, why, and the models that it was chosen from.

    Attributes
    ----------
    n_components : the recommended rank.
    reason : why, as a sentence.
    ranks : a row for each rank: mean errors of held-out and other entries, the paired standard error, and how
        far its models agree (``stability``, the mean cosine of matched components; ``cophenetic``,
        ``dispersion`` and ``ambiguous``, of the consensus of clusters of rows); None: unknown.
    models : a row for each model: its rank, start, fold, passes, errors and why it ended.
    clusters : (models, rows) the largest component in some rows of V by each model.
    result : the fit of the recommended rank to all entries of V; None if the time limit came first.
    """

    n_components: int
    reason: str
    ranks: list[dict[str, Any]]
    models: list[dict[str, Any]]
    clusters: Array
    result: Result | None

    @property
    def finished(self) -> bool:
        """Whether all models have ended and the recommended one is fitted to all of V."""
        return self.result is not None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but factors and clusters, as JSON takes it."""
        return {
            "n_components": self.n_components,
            "reason": self.reason,
            "finished": self.finished,
            "ranks": self.ranks,
            "models": self.models,
        }

    def to_frame(self, of: str = "ranks") -> Any:
        """Return a pandas DataFrame with a row for each rank, or for each model if ``of`` is "models"."""
        pandas: Any = import_module("pandas")

        if of not in ("ranks", "models"):
            raise ValueError(f"of is {of!r}; give 'ranks' or 'models'")
        return pandas.DataFrame(getattr(self, of)).set_index("n_components")

    def __repr__(self) -> str:
        """Return one line: the rank and the reason."""
        return f"<RankSelection: {self.n_components} of ranks {self._listed()}; {self.reason}>"

    def _repr_html_(self) -> str:
        """Return an HTML table for notebooks."""
        head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in COLUMNS)
        rows = (
            f"<tr>{''.join(f'<td>{_number(row.get(name))}</td>' for name in COLUMNS)}</tr>"
            for row in self.ranks
        )
        return f"<p>{escape(self.reason)}</p><table><tr>{head}</tr>{''.join(rows)}</table>"

    def _listed(self) -> str:
        ranks = [row["n_components"] for row in self.ranks]
        return f"{ranks[0]} to {ranks[-1]}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
