"""Measure the peak memory of the task of a panel as a share of what the plan counts for it.

The cases are every solver, loss and kind of V, and several models in one task. Peaks are of the resident
memory of this process, as Linux counts it.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.execution.graphs.passes import process_panel_for_models
from dask_nmf.execution.graphs.reduction import PassInputs
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.execution.tasks.factor_store import InMemoryFactor
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.planning import worker_memory
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import MU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms, SquaredTerms
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.types import Array, Block

SOLVERS: dict[str, Any] = {
    "hals 2": HALS(),
    "mu 2": MU(SquaredTerms(1e-9), 1e-3),
    "hals 1": KLNewton(1e-9, NO_PENALTY),
    "mu 1": MU(DivergenceTerms(BetaDivergence(1.0, 1e-9), 1.0), 1e-3),
    "mu 0.5": MU(DivergenceTerms(BetaDivergence(0.5, 1e-9), 1.0), 1e-3),
}
KINDS = ("dense", "csr", "nan", "unstored", "weights")
SHAPES = ((20_000, 500, 8), (4000, 5000, 16), (1000, 20_000, 10), (3000, 2000, 40))
TRIALS = 5
MMAP_THRESHOLD = -3  # the name of that setting in malloc.h
STATUS = Path("/proc/self/status")


class Case(NamedTuple):
    """A panel, and the solver that processes it."""

    kind: str
    solver: str
    dtype: str
    shape: tuple[int, int, int]  # rows, columns, k
    level: int  # of exactness of the solver; at 2 it computes the final W
    models: int = 1  # models of the pass

    @property
    def beta(self) -> float:
        return float(self.solver.split()[1])


def cases() -> list[Case]:
    """Return every case."""
    every = [Case(*parts, 0) for parts in product(KINDS, SOLVERS, ("float32", "float64"), SHAPES)]
    finest = product(KINDS, ("hals 2", "hals 1"), ("float32", "float64"), SHAPES[:1], (2,))
    several = product(KINDS, ("hals 2",), ("float32", "float64"), SHAPES[1:2], (0,), (4, 16))
    return [*every, *(Case(*parts) for parts in finest), *(Case(*parts) for parts in several)]


def block(case: Case) -> tuple[Block, Block | None]:
    """Return a panel and the weights of its entries, if it has any."""
    rows, columns, _ = case.shape
    rng = np.random.default_rng(0)
    if case.kind in ("csr", "unstored"):
        v = scipy.sparse.random_array((rows, columns), density=0.05, rng=rng, format="csr", dtype=case.dtype)
        return v, None
    v = rng.random((rows, columns), dtype=case.dtype)
    if case.kind == "nan":
        v[rng.random(v.shape, dtype=np.float32) < 0.3] = np.nan
    return v, rng.random(v.shape, dtype=case.dtype) if case.kind == "weights" else None


def layout_of(case: Case, v: Block, weights: Block | None) -> worker_memory.Layout:
    """Return the layout of the panel that the planner takes."""
    whole = case.kind in ("dense", "csr") and case.beta == 2
    grams = case.solver.startswith("hals") or case.beta == 2
    plain = worker_memory.Layout(*v.shape, np.dtype(case.dtype).itemsize)
    return worker_memory.Layout(
        *v.shape,
        np.dtype(case.dtype).itemsize,
        indptr=v.indptr if scipy.sparse.issparse(v) else None,
        masked=not whole,
        listed=case.kind == "unstored" or (case.kind == "csr" and case.beta == 1),
        own_grams=grams,
        weights=None if weights is None else plain,
    )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_growth(run: Callable[[], Any]) -> int:
    """Return the bytes by which the resident memory of this process grows at most while ``run`` runs."""
    gc.collect()
    with _arrays_returned():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident()
        run()
        peak = 1024 * int(STATUS.read_text().partition("VmHWM:")[2].split()[0])
    return peak - before


@contextmanager
def _arrays_returned() -> Iterator[None]:
    """Make the C library return freed arrays to the system: memory that it keeps would hide a peak."""
    try:
        c = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        yield
        return
    c.malloc_trim(0)
    c.mallopt(MMAP_THRESHOLD, 2**17)
    yield
    c.mallopt(MMAP_THRESHOLD, 2**25)  # the value that the library itself arrives at, which is faster


def share(case: Case) -> float:
    """Return the peak memory of the task of a panel over what the plan counts for it."""
    v, weights = block(case)
    layout = layout_of(case, v, weights)
    rows, columns, k = case.shape
    rule = EntryMask(
        {"nan": "nan", "unstored": "unstored"}.get(case.kind), weighted=weights is not None, beta=case.beta
    )
    panel = MaskedBlock(v, weights, np.arange(rows), rule) if layout.masked else v
    solver = SOLVERS[case.solver].at_level(case.level)
    rng = np.random.default_rng(1)
    h = [rng.random((k, columns), dtype=case.dtype) for _ in range(case.models)]
    solve_w, alone = solver.solve_w_final if case.level else solver.solve_w, case.models == 1
    spec = PassSpec(solve_w, solver, residual=alone, shares_products=solver.shares_products)
    specs = [spec] * case.models
    if solver.carries_w:
        specs = [spec._replace(w_in=stored(rng.random((rows, k), dtype=case.dtype))) for _ in h]
    inputs = PassInputs(h[0], (0, rows), more_h=tuple(h[1:]))
    panel_bytes = layout.panel_bytes(0, rows)
    kept = panel_bytes + (rows * k * v.dtype.itemsize if solver.carries_w else 0)
    grown = peak_growth(lambda: process_panel_for_models(panel, panel=0, inputs=inputs, specs=specs))
    return (kept + grown) / worker_memory.task_bytes(layout, [k] * case.models, panel_bytes)


def stored(w: Array) -> InMemoryFactor:
    """Return a store of a factor, (rows, k)."""
    store = InMemoryFactor(*w.shape, w.dtype)
    store.write(0, w)
    return store


def least_share(case: Case) -> float:
    """Return the least share of several trials: compilation and pages of programs that return count too."""
    least = share(case)
    for _ in range(TRIALS):
        least = min(least, share(case))
        if least <= 1:
            break
    return least


def main() -> None:
    """Print the largest share of each solver and kind of V, over shapes, dtypes and levels."""
    print("| kind | solver, β | models | largest share | at |")
    print("|---|---|---|---|---|")

    def row(case: Case) -> tuple[Any, ...]:
        return case.kind, case.solver, case.models

    for (kind, solver, models), some in groupby(sorted(cases(), key=row), row):
        most, case = max((least_share(case), case) for case in some)
        rows, columns, k = case.shape
        print(
            f"| {kind} | {solver} | {models} | {most:.2f} | {rows} x {columns}, k = {k}, {case.dtype} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
