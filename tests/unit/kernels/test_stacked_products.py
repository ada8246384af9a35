"""Products for several models at once: each has the bits that it has alone, and V is walked once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import Array

from dask_nmf.execution.tasks import blas, block_pass
from dask_nmf.execution.tasks.block_pass import ModelPart, PassSpec
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.products import same_bits, stacked
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import MU
from dask_nmf.solvers.parts.loss_terms import SquaredTerms

RANKS = (3, 10, 1, 7, 25)
SHAPE = (700, 900)  # a product of rank 3 is not small
HOLDERS: dict[str, Callable[[Array], Any]] = {
    "rows": lambda v: v,
    "columns": np.asfortranarray,
    "csr": scipy.sparse.csr_array,
}
ALL, HELD_OUT = EntryMask(), EntryMask(held_out=0.1, seed=3)
SOLVERS: dict[str, Any] = {"hals": HALS(), "mu": MU(SquaredTerms(1e-9), 1e-3)}


def factors(dtype: str, ranks: tuple[int, ...] = RANKS) -> tuple[Array, list[Array], list[Array]]:
    """Return V with zeros, and W and H of each model."""
    random = np.random.default_rng(0)
    v = random.random(SHAPE, dtype) * (random.random(SHAPE) < 0.4)
    sides = ([random.random((rank, side), dtype) for rank in ranks] for side in SHAPE)
    w, h = sides
    return v.astype(dtype), [np.ascontiguousarray(part.T) for part in w], h


@settings(max_examples=8)
@given(
    ranks=st.lists(st.integers(1, 70), min_size=2, max_size=12),
    rows=st.integers(2, 1500),
    entries=st.integers(40_000, 500_000),
    dtype=st.sampled_from(["float32", "float64"]),
    holder=st.sampled_from(sorted(HOLDERS)),
    seed=st.integers(0, 9),
)
def test_products_in_a_stack_have_the_bits_of_each_alone(
    ranks: list[int], rows: int, entries: int, dtype: Any, holder: str, seed: int
) -> None:
    random, columns = np.random.default_rng(seed), max(2, entries // rows)
    v = HOLDERS[holder](random.random((rows, columns), dtype))
    h = [random.random((rank, columns), dtype) for rank in ranks]
    w = [random.random((rows, rank), dtype) for rank in ranks]
    with blas.one_blas_thread():
        for product, factors in ((stacked.right_products, h), (stacked.left_products, w)):
            for factor, together in zip(factors, product(v, factors), strict=True):
                np.testing.assert_array_equal(together, product(v, [factor])[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranks", [(31,) * 8, range(2, 23), (73,) * 3], ids=["one", "many", "large"])
def test_so_have_many_components(ranks: Sequence[int], dtype: Any) -> None:
    """In a product of more than 192 columns, OpenBLAS may add float64 in another order."""
    random = np.random.default_rng(3)
    v = random.random((20_000, 40), dtype)
    h = [random.random((rank, 40), dtype) for rank in ranks]
    with blas.one_blas_thread():
        for factor, together in zip(h, stacked.right_products(v, h), strict=True):
            np.testing.assert_array_equal(together, stacked.right_products(v, [factor])[0])


@pairwise(
    {
        "dtype, scale": [("float32", 1.0), ("float64", 0.25)],
        "solver": list(SOLVERS),
        "holder": list(HOLDERS),
        "exact": [False, True],
        "mask": {"all": ALL, "held out": HELD_OUT},
    }
)
def test_a_model_has_the_same_sums_in_company_as_alone(
    dtype: str, scale: float, solver: str, holder: str, exact: bool, mask: EntryMask
) -> None:
    v, w, h = factors(dtype)
    block = masking.with_scale(masking.with_mask(HOLDERS[holder](v), 0, mask), scale)
    own = SOLVERS[solver]
    spec = PassSpec(own.solve_w, own, residual=exact, shares_products=own.shares_products)
    parts = [ModelPart(h_of, spec, w_of) for h_of, w_of in zip(h, w, strict=True)]
    with blas.one_blas_thread():
        for part, (left, sums) in zip(parts, block_pass.process_models(block, parts), strict=True):
            expected_left, expected = block_pass.process_block(block, part.h, spec, part.before)
            np.testing.assert_array_equal(left, expected_left)
            for field, one in zip(sums, expected, strict=True):
                pairs = zip(field, one, strict=True) if isinstance(field, tuple) else [(field, one)]
                for mine, theirs in pairs:
                    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("mask", [ALL, HELD_OUT], ids=["all", "held out"])
def test_each_block_is_multiplied_once_for_all_models(
    mask: EntryMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    v, _, h = factors("float32", (10, 14, 21))
    same = same_bits.SameBits(right=True, left=True)
    monkeypatch.setattr(stacked, "same_bits", lambda dtype, by_column: same)
    calls: list[Any] = []
    for name in ("matmul", "rmatmul"):
        product = getattr(scaling, name)
        monkeypatch.setattr(scaling, name, lambda *pair, of=product: calls.append(pair) or of(*pair))
    spec = PassSpec(HALS().solve_w, HALS(), shares_products=True)
    block_pass.process_models(masking.with_mask(v, 0, mask), [ModelPart(one, spec) for one in h])
    assert {right.shape for _, right in calls[:-1]} == {(v.shape[1], 45)}  # V Hᵀ, of all strips of V
    assert sum(len(left) for left, _ in calls[:-1]) == len(v)
    assert calls[-1][0].shape == (45, len(v))  # WᵀV


def test_a_stack_has_models_of_one_kind_and_a_bounded_number_of_components() -> None:
    one, other = EntryMask(held_out=0.1, seed=0), EntryMask(held_out=0.1, seed=1)
    spec = PassSpec(HALS().solve_w, HALS(), shares_products=True)
    specs = [spec._replace(mask=mask) for mask in (one, other, one, None, one, one)]
    found = block_pass.stacks(specs, [60, 60, 60, 60, 60, 500])
    assert sorted(found) == [[0, 2], [1], [3], [4], [5]]
    finer = HALS().at_level(1)
    assert block_pass.stacks([spec, PassSpec(finer.solve_w, finer)], [3, 3]) == [[0], [1]]


def test_masked_blocks_are_cut_into_batches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    v, _, h = factors("float32", (2, 3))
    block = MaskedBlock(v, None, np.arange(len(v)), HELD_OUT)
    cuts: list[int] = []
    cut = block_pass.holed.iter_batches
    monkeypatch.setattr(
        block_pass.holed, "iter_batches", lambda *given: cuts.append(len(given[1])) or cut(*given)
    )
    spec = PassSpec(HALS().solve_w, HALS(), shares_products=True)
    block_pass.process_models(block, [ModelPart(one, spec) for one in h])
    assert cuts == [2]
