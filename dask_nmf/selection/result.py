"""The result of a selection of the rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from typing import Any

import numpy as np

from dask_nmf.display.html import html_curve
from dask_nmf.display.text import align_rows
from dask_nmf.fitting.result import Result
from dask_nmf.plots.accessors import SelectionPlots
from dask_nmf.selection.bootstrap import ErrorBars
from dask_nmf.selection.comparison import Findings
from dask_nmf.sources.labelled.form import Form
from dask_nmf.types import Array
from dask_nmf.wording import counted

HEADINGS = {  # of the columns that people are shown, by their names
    "n_components": "rank",
    "held_out_error": "held out",
    "difference": "above best",
    "standard_error": "std. error",
    "training_error": "fitted",
    "stability": "stability",
    "cophenetic": "cophenetic",
    "dispersion": "dispersion",
    "ambiguous": "ambiguous",
}
OF_A_RANK = (*list(HEADINGS)[1:], "trials", "pairs")  # what is known of a rank, as variables of xarray
OF_A_MODEL = ("held_out_error", "training_error", "passes")


@dataclass(frozen=True, eq=False, repr=False)
class RankSelection:
    """The rank to take, why, and the models that it was chosen from.

    Attributes
    ----------
    n_components : the recommended rank: the least one whose held-out error is within one standard error of
        the lowest one.
    reason : why, as a sentence.
    ranks : a row for each rank, a dict with

        * ``n_components``: the rank, and ``trials``: its number of models that are compared, starts × folds
          without failed starts: see `dask_nmf.quality.recommend_rank`;
        * ``held_out_error``: mean over the models of the root mean squared error of the held-out entries, in
          units of V; for a divergence D the root of the mean of 2 D;
        * ``difference``: mean difference of that error to the one of the best rank, over models of the same
          start and fold, of which there are ``pairs``; ``standard_error``: the standard error of this mean;
        * ``training_error``: mean over the models of the relative error of the other entries;
        * ``stability``: mean cosine of components that are matched one to one between two models, from 0 to
          1; ``component_stability``: that of each component of the most typical model;
        * ``cophenetic`` and ``dispersion``: 1 if all models agree which rows of V have the same largest
          component; ``ambiguous``: share of pairs of rows on which they do not agree.

        Starts that failed count for none of these, see `recommend_rank`. What is not known is None, such as
        the agreement of a single model.
    models : a row for each model: ``n_components``, ``start``, ``fold``, ``passes``, ``held_out_error``,
        ``training_error``, and ``message``, why it ended, None as long as it has not.
    clusters : (models, rows) the largest component in each row of V, or in a sample of 2000 rows; -1 if none.
    components : (k, n) the H of the most typical model of the recommended rank. If V is wider than tall,
        models are compared by W, and it is the H of the final fit, or None before that.
    component_stability : (k,) mean cosine of each component with its matches in the other models; NaN for a
        single model.
    result : the fit of the recommended rank to all entries of V, which began with the most typical model;
        None if the time limit came first.
    error_bars : the spread of the components of ``result`` over bootstrap samples of the rows of V. If it was
        not asked for, it is the one that is stored with the answer. None if there is none, or the time limit
        came first.
    complete : whether there are all error bars that were asked for.
    beta_loss : the β of the loss of all fits: 2 for the Frobenius norm, 1 for Kullback-Leibler.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import select_rank
    >>> V = np.random.default_rng(0).random((60, 2)) @ np.random.default_rng(1).random((2, 20))
    >>> selection = select_rank(V, "1:3", n_init=2)
    >>> selection.n_components, selection.components.shape
    (2, (2, 20))
    >>> [row["n_components"] for row in selection.ranks], len(selection.models)
    ([1, 2, 3], 6)
    """

    n_components: int
    reason: str
    ranks: list[dict[str, Any]]
    models: list[dict[str, Any]]
    clusters: Array
    components: Array | None
    component_stability: Array
    result: Result | None
    error_bars: ErrorBars | None = None
    complete: bool = True
    beta_loss: float = 2

    @classmethod
    def of(cls, findings: Findings, result: Result | None, wide: bool, beta_loss: float) -> RankSelection:
        """Return the result with these findings; ``wide``: V is wider than tall."""
        table = findings.table
        rank = table["n_components"]
        stability = next(row["component_stability"] for row in table["ranks"] if row["n_components"] == rank)
        h_of_fit = result.H.compute() if wide and result is not None else None
        return cls(
            rank,
            table["reason"],
            table["ranks"],
            table["models"],
            findings.clusters,
            h_of_fit if wide else findings.factor,
            np.full(rank, np.nan) if stability is None else np.asarray(stability),
            result,
            beta_loss=beta_loss,
        )

    def labelled(self, form: Form | None) -> RankSelection:
        """Return the selection with the factors of its fit in the form of a labelled V."""
        return self if self.result is None else replace(self, result=self.result.labelled(form))

    @property
    def plot(self) -> SelectionPlots:
        """Figures of the selection: ``selection.plot.error()``, ``.stability()``, ``.consensus()``."""
        return SelectionPlots(self)

    @property
    def components_stderr(self) -> Array | None:
        """The standard error of each entry of the H of ``result``, (k, n); None without error bars.

        It is the standard deviation over fits to bootstrap samples of the rows of V, which begin at that H.
        Each row of theirs is given the sum of the row of H, because the scale of a component means nothing.
        """
        return None if self.error_bars is None else self.error_bars.stderr

    @property
    def bootstrap_stability(self) -> Array | None:
        """The mean cosine of each component with its replicates, (k,), from 0 to 1; None without error bars.

        `component_stability` compares starts on the same rows; this compares rows for the same start.
        """
        return None if self.error_bars is None else self.error_bars.likeness

    @property
    def finished(self) -> bool:
        """Whether all models, the final fit and the error bars are done; if not, the same call goes on."""
        return self.result is not None and self.result.outcome.final and self.complete

    @property
    def message(self) -> str:
        """The recommendation with its reason; or how far the selection has come, if the time was over."""
        if self.finished:
            return f"rank {self.n_components}; {self.reason}"
        if not self.complete:
            return f"rank {self.n_components}; {self.reason}; the error bars are left; run it again to go on"
        if self.result is not None:
            return f"rank {self.n_components}; {self.reason}; its fit is {self.result.message}"
        left = sum(row["message"] is None for row in self.models)
        rest = f"{left} of {counted(len(self.models), 'model')} are left" if left else "the final fit is left"
        return f"stopped by the time limit; rank {self.n_components} so far, {rest}; run it again to go on"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but factors, their standard errors and clusters, as JSON takes it."""
        stability = self.bootstrap_stability
        return {
            "n_components": self.n_components,
            "reason": self.reason,
            "finished": self.finished,
            "bootstrap_samples": 0 if self.error_bars is None else self.error_bars.replicates,
            "bootstrap_stability": None if stability is None else stability.tolist(),
            "ranks": self.ranks,
            "models": self.models,
        }

    def to_frame(self, of: str = "ranks") -> Any:
        """Return a pandas DataFrame with a row for each rank, or for each model if ``of`` is "models"."""
        if of not in ("ranks", "models"):
            raise ValueError(f"of is {of!r}; give 'ranks' or 'models'")
        pandas: Any = import_module("pandas")
        return pandas.DataFrame(getattr(self, of)).set_index("n_components")

    def to_xarray(self) -> Any:
        """Return an xarray Dataset.

        The columns of `ranks` have the dimension ``n_components``; ``component_stability`` has ``component``
        too, filled up with NaN. ``model_held_out_error``, ``model_training_error`` and ``model_passes`` have
        the dimensions ``n_components``, ``start`` and ``fold``; NaN where there is no such model. Error bars
        are ``components_stderr``, of the dimensions ``component`` and ``column``.
        """
        xarray: Any = import_module("xarray")
        ranks = [row["n_components"] for row in self.ranks]
        found: dict[str, Any] = {
            name: ("n_components", _floats(row[name] for row in self.ranks)) for name in OF_A_RANK
        }
        stability = np.full((len(ranks), max(ranks)), np.nan)
        for place, row in enumerate(self.ranks):
            if row["component_stability"] is not None:
                stability[place, : row["n_components"]] = row["component_stability"]
        shape = [len(ranks), *(1 + max(row[name] for row in self.models) for name in ("start", "fold"))]
        for name in OF_A_MODEL:
            values = np.full(shape, np.nan)
            for row in self.models:
                if row["n_components"] in ranks and row[name] is not None:
                    values[ranks.index(row["n_components"]), row["start"], row["fold"]] = row[name]
            found[f"model_{name}"] = (("n_components", "start", "fold"), values)
        found["component_stability"] = (("n_components", "component"), stability)
        if self.components_stderr is not None:
            padding = ((0, max(ranks) - self.n_components), (0, 0))
            stderr = np.pad(self.components_stderr, padding, constant_values=np.nan)
            found["components_stderr"] = (("component", "column"), stderr)
        recommended = {"recommended": self.n_components, "reason": self.reason}
        return xarray.Dataset(found, {"n_components": ranks}, recommended)

    def __repr__(self) -> str:
        """Return one line: the rank and the reason."""
        ranks = [row["n_components"] for row in self.ranks]
        return f"<RankSelection: {self.n_components} of ranks {ranks[0]} to {ranks[-1]}; {self.message}>"

    def _repr_html_(self) -> str:
        """Return an HTML table and a small curve of the held-out errors, for notebooks.

        A star marks the recommended rank.
        """
        head, *lines = _marked(self.ranks, self.n_components)
        rows = (f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
        headings = "".join(f"<th>{heading}</th>" for heading in head)
        table = f"<table><tr>{headings}</tr>{''.join(rows)}</table>"
        return f"<p>{escape(self.message)}</p>{table}{self._curve()}"

    def _curve(self) -> str:
        ranks = [row["n_components"] for row in self.ranks]
        return html_curve([row["held_out_error"] for row in self.ranks], "held-out error of each rank", ranks)


def table_of_ranks(ranks: Sequence[Mapping[str, Any]], recommended: int | None) -> list[str]:
    """Return the lines of a table of ranks for people; a star marks the recommended one."""
    return align_rows(_marked(ranks, recommended))


def _marked(ranks: Sequence[Mapping[str, Any]], recommended: int | None) -> list[Sequence[str]]:
    """Return the rows of a table of ranks, with its headings; a star is before the recommended rank."""
    marked = [("*" if row["n_components"] == recommended else "", *_cells(row)) for row in ranks]
    return [("", *HEADINGS.values()), *marked]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return ["-" if row[name] is None else f"{row[name]:.4g}" for name in HEADINGS]


def _floats(values: Any) -> Array:
    return np.array([np.nan if value is None else value for value in values], np.float64)
