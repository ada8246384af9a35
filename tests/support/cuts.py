"""A patch that cuts every V along rows and columns, whatever its size."""

from math import inf
from typing import Any

import pytest

from dask_nmf.planning import grid, row_panels
from dask_nmf.planning.grid import GridMemory, GridPlan
from dask_nmf.planning.worker_memory import Layout


def grid_plan(rows: tuple[int, ...], columns: tuple[int, ...], reads: int) -> GridPlan:
    """Return the plan of these blocks, for workers without a memory limit and a sample of all of V."""
    shape = rows[-1], columns[-1]
    memory = GridMemory(Layout(*shape, 8), 1, shape, reads, inf)
    return GridPlan(rows, columns, reads, 0, 1, shape, memory)


def no_panels(*_: Any, **__: Any) -> Any:
    """Refuse to plan panels."""
    raise MemoryError("the smallest panel does not fit")


def cut_both_ways(
    patch: pytest.MonkeyPatch, rows: tuple[int, ...], columns: tuple[int, ...], reads: int
) -> None:
    """Patch the planners so that every V is cut into these blocks."""
    made = grid_plan(rows, columns, reads)
    patch.setattr(row_panels, "plan_panels", no_panels)
    patch.setattr(grid, "plan_grid", lambda *_: made)


class Enough(Exception):
    """Raised by a test to stop a fit."""
