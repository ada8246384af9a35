"""Entries held out by groups: a pass equals one over single cells, in which they are NaN."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support import grids
from support.matrices import Array
from support.observed import held_out_entries

from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.kernels.blocks import groups, holed, masking
from dask_nmf.kernels.blocks.holes import cleared
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.kernels.linalg.gram_matrices import GroupedGram
from dask_nmf.kernels.row_sums import Sums, expanded_loss
from dask_nmf.kernels.summary.masked_summary import summarize_block
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import MU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms, SquaredTerms
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.types import Orientation

SHAPE, K, SEED = (70, 50), 4, 3
PENALTY = Penalty(0.1, 0.2, 0.05, 0.03)
SOLVERS: dict[str, tuple[Any, float]] = {
    "hals": (HALS(PENALTY, 1e-9), 2.0),
    "exact": (HALS(PENALTY).at_level(2), 2.0),
    "mu": (MU(SquaredTerms(1e-9), 1e-3, PENALTY), 2.0),
    "kl": (KLNewton(1e-9, PENALTY, 1e-6), 1.0),
    "mu kl": (MU(DivergenceTerms(BetaDivergence(1.0, 1e-9), 1.0), 1e-3, PENALTY), 1.0),
}
HOLDERS = {
    "rows": lambda v: v,
    "columns": np.asfortranarray,
    "csr": scipy.sparse.csr_array,
    "read only": lambda v: np.frombuffer(v.tobytes()).reshape(v.shape),
}


def factors(seed: int = 0) -> tuple[Array, Array, Array]:
    """Return V with zeros, W and H."""
    random = np.random.default_rng(seed)
    v = random.random(SHAPE) * (random.random(SHAPE) < 0.4)
    return v, random.random((SHAPE[0], K)), random.random((K, SHAPE[1]))


def pass_over(
    v: Any, rule: EntryMask, solver: Any, h: Array, w: Array | None, exact: bool = True
) -> tuple[Array, Sums]:
    spec = PassSpec(solver.solve_w, solver, residual=exact)
    return process_block(MaskedBlock(v, None, np.arange(v.shape[0]), rule), h, spec, w)


def packed(gram: Any) -> Array:
    if not isinstance(gram, GroupedGram):
        return np.asarray(gram)
    return gram.squares[:, *np.tril_indices(gram.squares.shape[1])][gram.groups]


@grids.pairwise(
    {
        "share, transposed": [(0.03, False), (0.2, True), (0.6, False)],
        "name": list(SOLVERS),
        "holder": list(HOLDERS),
    }
)
def test_a_pass_is_that_over_the_cells_that_count(
    share: float, transposed: bool, name: str, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleared, "MOST_BYTES", 8000)
    monkeypatch.setattr(cleared, "CACHED_BYTES", 2400)
    monkeypatch.setattr(holed, "BATCH_HELD", 1600)
    monkeypatch.setattr(holed, "BATCH_STORED", 300)
    (v, w, h), (solver, beta) = factors(), SOLVERS[name]
    held = (
        held_out_entries(SHAPE[::-1], SEED, share).T if transposed else held_out_entries(SHAPE, SEED, share)
    )
    before = w if solver.carries_w else None
    orientation = Orientation.COLUMNS if transposed else Orientation.ROWS
    rule = EntryMask(held_out=share, seed=SEED, orientation=orientation, beta=beta)
    left, sums = pass_over(HOLDERS[holder](v), rule, solver, h, before)
    expected_w, expected = pass_over(
        np.where(held, np.nan, v), EntryMask("nan", beta=beta), solver, h, before
    )
    np.testing.assert_allclose(left, expected_w, rtol=1e-6, atol=1e-7)
    for ours, theirs in (
        (sums.num, expected.num),
        (packed(sums.gram), packed(expected.gram)),
        (sums.column_weight, expected.column_weight),
        (sums.residual, expected.residual),
        (sums.w_sq_norm, expected.w_sq_norm),
    ):
        np.testing.assert_allclose(*np.broadcast_arrays(ours, theirs), rtol=1e-5, atol=1e-6)
    y = left @ h
    entries = (v - y) ** 2 if beta == 2 else 2 * (v * np.log(np.where(v > 0, v, y) / y) - v + y)
    assert sums.held_out_loss == pytest.approx(entries[held].sum(), rel=1e-8)
    assert sums.held_out_weight == held.sum()
    if beta == 2:
        np.testing.assert_allclose(
            solver.update_h(h, sums), solver.update_h(h, expected), rtol=1e-4, atol=1e-6
        )
        loss = expanded_loss(float((v[~held] ** 2).sum()), sums, h)
        assert loss == pytest.approx(expected.residual, rel=1e-9)


@given(cuts=st.lists(st.integers(1, SHAPE[0] - 1), max_size=4), share=st.sampled_from([0.03, 0.3]))
def test_any_cut_holds_out_the_same_and_adds_up_to_the_same(cuts: list[int], share: float) -> None:
    v, _, h = factors()
    rule, solver = EntryMask(held_out=share, seed=SEED), HALS(tol=1e-12)
    block = MaskedBlock(v, None, np.arange(len(v)), rule)
    spec = PassSpec(solver.solve_w, solver)
    edges = sorted({0, *cuts, len(v)})
    parts = [process_block(block[first:last], h, spec) for first, last in pairwise(edges)]
    whole_w, whole = process_block(block, h, spec)
    np.testing.assert_allclose(np.concatenate([w for w, _ in parts]), whole_w, rtol=1e-9, atol=1e-12)
    total = parts[0][1]
    for _, sums in parts[1:]:
        total += sums
    np.testing.assert_allclose(total.num, whole.num, rtol=1e-9)
    np.testing.assert_allclose(total.gram.squares, whole.gram.squares, rtol=1e-9)
    assert total.held_out_weight == whole.held_out_weight
    assert total.held_out_loss == pytest.approx(whole.held_out_loss, rel=1e-9)


@pytest.mark.parametrize("heavy", [1e4, 1e9])
@pytest.mark.parametrize("holder", ["rows", "csr"])
def test_heavy_rows_and_columns_that_are_held_out_leave_no_trace(holder: str, heavy: float) -> None:
    v, _, h = factors()
    held = held_out_entries(SHAPE, SEED, 0.2)
    other = np.where(held, heavy * (v + 1), v)
    rule, solver = EntryMask(held_out=0.2, seed=SEED), HALS(tol=1e-12)
    h[:, 3] *= heavy
    (mine, sums), (theirs, more) = (
        pass_over(HOLDERS[holder](data), rule, solver, h, None, False) for data in (v, other)
    )
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(sums.num, more.num)
    lacking = held[:, 3]
    kept = np.arange(SHAPE[1]) != 3
    gram = np.array([h[:, kept & ~own] @ h[:, kept & ~own].T for own in held[lacking]])
    block = MaskedBlock(v, None, np.arange(len(v)), rule)
    batch = next(holed.iter_batches(block, [h]))
    of_rows = batch.of_models[0].gram_of(h)
    found = of_rows.squares[block.groups.rows[lacking]]
    np.testing.assert_allclose(found, gram, rtol=1e-12)  # nothing of the heavy column was subtracted


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_summary_is_that_of_the_cells_that_count(holder: str) -> None:
    v, _, _ = factors()
    held = held_out_entries(SHAPE, SEED, 0.2)
    rows = np.arange(len(v))
    rule = EntryMask(held_out=0.2, seed=SEED)
    ours = summarize_block(MaskedBlock(HOLDERS[holder](v), None, rows, rule))
    theirs = summarize_block(MaskedBlock(np.where(held, np.nan, v), None, rows, EntryMask("nan")))
    np.testing.assert_allclose(ours.row_norms, theirs.row_norms, rtol=1e-12)
    np.testing.assert_array_equal(ours.column_weight, theirs.column_weight)
    assert ours.total == pytest.approx(theirs.total, rel=1e-12)
    wrong = v.copy()
    row, column = np.argwhere(held)[5]
    wrong[row, column] = -1
    found = summarize_block(MaskedBlock(HOLDERS[holder](wrong), None, rows, rule)).invalid
    assert found is not None
    assert (found.row, found.column) == (row, column)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.1, 1 / 3, 0.5, 0.9])
def test_the_share_is_held_out_everywhere(share: float) -> None:
    labels, diagonals, part = groups.pattern(share)
    assert part * diagonals / labels == pytest.approx(share, rel=1e-9)
    held = held_out_entries((3000, 2000), 1, share)
    assert held.mean() == pytest.approx(share, rel=0.1)
    assert not np.array_equal(held, held_out_entries((3000, 2000), 2, share))
    np.testing.assert_array_equal(held[:300, :200], held_out_entries((300, 200), 1, share))


def test_the_scale_of_v_applies_to_what_is_held_out_too() -> None:
    v, _, h = factors()
    rule, spec = EntryMask(held_out=0.2, seed=SEED), PassSpec(HALS().solve_w, HALS(), residual=True)
    for holder in HOLDERS.values():
        one, two = (
            process_block(
                masking.with_scale(MaskedBlock(holder(data), None, np.arange(len(v)), rule), scale), h, spec
            )
            for data, scale in ((v, 1.0), (v / 8, 8.0))
        )
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1].held_out_loss == two[1].held_out_loss
