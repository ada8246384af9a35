"""No task takes more memory than the plan counts for it: measured for every solver, loss and kind of V."""

from itertools import product
from typing import Any

import pytest
from run_task_memory import KINDS, SOLVERS, TRIALS, Case, cases, share
from support.servers import reads_peaks


def some() -> list[Any]:
    """Return small cases, and for `make test-real` the others of them and a sixth of those of the benchmark.

    Every kind of V is here with every second solver, and every solver with every second kind.
    """
    tall = {kind: (40_000 if kind == "csr" else 4000, 400, 8) for kind in KINDS}  # or noise would be large
    grid = [Case(kind, solver, "float32", tall[kind], 0) for kind, solver in product(KINDS, SOLVERS)]
    small, others = grid[::2], grid[1::2]  # a checkerboard, because the number of solvers is odd
    assert len(SOLVERS) % 2 == 1
    small += [Case(kind, "hals 2", "float64", tall[kind], 2) for kind in KINDS]
    small += [Case(kind, "hals 2", "float32", tall[kind], 0, 4) for kind in ("dense", "csr")]
    return [*small, *(pytest.param(case, marks=pytest.mark.real) for case in [*others, *list(cases())[::6]])]


@reads_peaks
@pytest.mark.parametrize("case", some(), ids=lambda case: " ".join(map(str, case)))
def test_the_task_of_a_panel_takes_no_more_than_the_plan_counts(case: Case) -> None:
    assert any(share(case) <= 1.0 for _ in range(1 + TRIALS))  # compilation counts in the first trial
