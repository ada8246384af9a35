"""The table of all compared methods, and its plots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

PLOTS = {  # file: the plotted field and its label
    "time": ("seconds", "seconds"),
    "reads": ("reads", "reads of V"),
    "memory": ("peak", "peak resident memory, MB"),
}
HEADS = ("case", "method", "length", "error", "seconds", "× dask_nmf", "reads of V", "peak, MB")
REACHED, FLOOR, NOT_REACHED = "tab:blue", "tab:gray", "tab:orange"


class Row(NamedTuple):
    """The figures of one method on one case. A floor has no error."""

    case: str
    method: str
    length: int = 0  # iterations, epochs or passes
    error: float | None = None  # over the reference
    reached: bool = True
    seconds: float = 0.0  # median
    times: float = 0.0  # seconds over ours, median of the rounds
    reads: int = 0
    peak: float = 0.0  # MB
    cannot: str = ""  # why the method does not run on this case

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the columns of `HEADS`."""
        if self.cannot:
            return self.case, self.method, *["–"] * (len(HEADS) - 3), self.cannot
        error = "floor" if self.error is None else f"{self.error:.4f}"
        more = "" if self.reached else "> "
        return (
            self.case, self.method, str(self.length), error if self.reached else f"{error}, not reached",
            f"{self.seconds:.2f}", f"{more}{self.times:.2f}", f"{more}{self.reads}", f"{self.peak:.0f}",
        )  # fmt: skip


def markdown(rows: Sequence[Row], title: str, notes: Sequence[str]) -> str:
    lines = [" | ".join(cells) for cells in (HEADS, ["---"] * len(HEADS), *(row.cells() for row in rows))]
    return "\n".join([title, "", *(f"| {line} |" for line in lines), "", *notes, ""])


def plot(rows: Sequence[Row], field: str, axis: str) -> Figure:
    """Return a figure with an axis for each case and a bar for each method."""
    shown = [row for row in rows if not row.cannot]
    cases = {name: list(group) for name, group in groupby(shown, lambda row: row.case)}
    sizes = [len(group) for group in cases.values()]
    figure = Figure(figsize=(8, 0.35 * sum(sizes) + 0.7 * len(sizes)), layout="constrained")
    axes = figure.subplots(len(sizes), squeeze=False, height_ratios=sizes)[:, 0]
    for ax, (name, group) in zip(axes, cases.items(), strict=True):
        values = [getattr(row, field) for row in group]
        kinds = [FLOOR if row.error is None else REACHED if row.reached else NOT_REACHED for row in group]
        bars = ax.barh([row.method for row in group], values, color=kinds)
        ax.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
        ax.set(title=name, xscale="log", xlim=(min(values) / 2, max(values) * 3))
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(f"{axis}; gray: floors, orange: the error was not reached")
    return figure


def write(folder: Path, rows: Sequence[Row], title: str, notes: Sequence[str]) -> None:
    """Write ``table.md`` and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(rows, title, notes))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dask_nmf"}):
        for name, (field, axis) in PLOTS.items():
            plot(rows, field, axis).savefig(folder / f"{name}.svg", metadata={"Date": None})
