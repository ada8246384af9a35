"""A run as notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_nmf.display.html import AFTER_PASSES, html_curve, html_table


def html_of_run(summary: Mapping[str, Any]) -> str:
    """Return the summary of a run as a short HTML table, with a small curve of the errors."""
    m, n = summary["shape"]
    error = summary["relative_error"]
    rows = [
        ("run", summary["run"]),
        ("V", f"{m} x {n} {summary['dtype']}, {summary['source']}"),
        ("fit", f"rank {summary['n_components']} by {summary['solver']}"),
        ("relative error", "not known" if error is None else f"{error:.6g}"),
        ("passes", summary["passes"] or 0),
        ("outcome", summary["message"] or summary["state"]),
    ]
    return html_table(rows) + html_curve(summary["error_history"], AFTER_PASSES)
