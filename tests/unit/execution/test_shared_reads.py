"""Models that share each read of V: the entries that each counts, and how few of their sums are in memory."""

from collections import Counter
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from dask._task_spec import GraphNode, convert_legacy_graph
from dask.delayed import Delayed
from dask.order import order
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import low_rank
from support.reads import EDGES, READS, V, counted_matrix

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import reduction
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.planning.worker_memory import SUMS_HELD
from dask_nmf.selection.batches.starts import summaries_of
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.solvers.solver import Solver
from dask_nmf.sources.registry import open_matrix


def arrays_of(total: Any) -> tuple[Any, ...]:
    """Return the arrays of a total, which may be Gram matrices of groups of rows."""
    return total if isinstance(total, tuple) else (total,)


FOLDS = [EntryMask(held_out=0.1, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("solver", [HALS(), KLNewton(1e-9, NO_PENALTY)], ids=["squared error", "KL"])
def test_each_model_has_the_sums_of_its_own_mask(solver: Solver) -> None:
    masks = [replace(mask, beta=1.0 if isinstance(solver, KLNewton) else 2.0) for mask in FOLDS]
    h = low_rank(3, 12, 2)
    engine = PanelEngine(counted_matrix(), EDGES)
    READS.clear()
    together = engine.sweep([Model(solver, solver.begin(h), mask=mask) for mask in masks])
    assert len(READS) == len(EDGES) - 1
    for mask, totals in zip(masks, together, strict=True):
        alone = PanelEngine(open_matrix(V), EDGES, mask=mask).sweep([Model(solver, solver.begin(h))])[0]
        for mine, theirs in zip(totals, alone, strict=True):
            for one, other in zip(arrays_of(mine), arrays_of(theirs), strict=True):
                np.testing.assert_array_equal(one, other)
    assert len({totals.held_out_loss for totals in together}) == len(masks)


def test_the_summaries_of_all_masks_take_one_read() -> None:
    engine, draw = PanelEngine(counted_matrix(), EDGES), SampleSpec(len(V), 8, 0)
    READS.clear()
    summaries = summaries_of(engine, [EntryMask(), *FOLDS], draw)
    assert len(READS) == len(EDGES) - 1
    for mask, summary in zip([EntryMask(), *FOLDS], summaries, strict=True):
        alone = PanelEngine(open_matrix(V), EDGES, mask=mask).summarize(draw)
        assert (summary.total, summary.sumsq, summary.stored) == (alone.total, alone.sumsq, alone.stored)
        np.testing.assert_array_equal(summary.digests[0].sums, alone.digests[0].sums)
        np.testing.assert_array_equal(summary.candidates.rows, alone.candidates.rows)


def terms_added(terms: list[str]) -> str:
    """Return the text of the additions of terms."""
    return reduce(lambda one, other: f"({one}+{other})", terms)


def tree_of(panels: int, at_once: int) -> Delayed:
    """Return the tree over parts of panels that are texts."""
    parts = [Delayed(f"part-{number}", {f"part-{number}": (str, number)}) for number in range(panels)]
    return reduction.combine_tree(parts, terms_added, at_once)


def tasks_of(tree: Delayed) -> dict[Any, GraphNode]:
    return convert_legacy_graph(dict(tree.dask))


@given(st.integers(1, 150), st.integers(2, reduction.FAN_IN - 1))
def test_fewer_parts_at_once_are_added_in_the_same_order(panels: int, at_once: int) -> None:
    few = tree_of(panels, at_once)
    assert few.compute(scheduler="sync") == tree_of(panels, reduction.FAN_IN).compute(scheduler="sync")
    assert max(len(task.dependencies) for task in tasks_of(few).values()) <= at_once


def most_in_memory(tree: Delayed) -> int:
    """Return how many parts there are at most at once, if one thread runs the tasks by the order of Dask."""
    tasks = tasks_of(tree)
    uses = Counter(key for task in tasks.values() for key in task.dependencies)
    priorities: dict[Any, int] = order(tasks)
    held, most = 0, 0
    for key in sorted(tasks, key=priorities.__getitem__):
        held += 1
        most = max(most, held)
        uses.subtract(tasks[key].dependencies)
        held -= sum(uses[used] == 0 for used in tasks[key].dependencies)
    return most


def test_few_sums_of_several_models_are_in_memory_at_once() -> None:
    assert most_in_memory(tree_of(500, reduction.FAN_IN)) > 2 * SUMS_HELD
    assert most_in_memory(tree_of(500, reduction.FEW)) <= SUMS_HELD
