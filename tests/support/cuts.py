"""A patch that cuts every V along rows and columns, whatever its size."""

from typing import Any

import pytest

from dask_nmf.planning import grid, row_panels
from dask_nmf.planning.grid import GridPlan


def no_panels(*_: Any, **__: Any) -> Any:
    """Refuse to plan panels."""
    raise MemoryError("the smallest panel does not fit")


def cut_both_ways(
    patch: pytest.MonkeyPatch, rows: tuple[int, ...], columns: tuple[int, ...], reads: int
) -> None:
    """Patch the planners so that every V is cut into these blocks."""
    made = GridPlan(rows, columns, reads, 0, 1, (rows[-1], columns[-1]))
    patch.setattr(row_panels, "plan_panels", no_panels)
    patch.setattr(grid, "plan_grid", lambda *_: made)


class Enough(Exception):
    """Raised by a test to stop a fit."""
