"""Starts from singular vectors: as scikit-learn's, from two reads of V."""

import logging
import threading
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition._nmf import _initialize_nmf
from support.grids import pairwise
from support.matrices import SOURCES, Array, low_rank
from support.matrices import sparse as mostly_zeros
from support.strategies import cuts, seeds

from dask_nmf import NMF, nmf, rng
from dask_nmf.display.lines import logging_to_terminal
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.factor_store import InMemoryFactor
from dask_nmf.fitting.cuts.panel_cut import PanelCut
from dask_nmf.fitting.fit import first_read
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.starts import initialize, nndsvd
from dask_nmf.fitting.starts.problem import Factors
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.options.settings import NNDSVD, Settings
from dask_nmf.planning.row_panels import plan_panels
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

RANK = 4
SHAPES = {"tall": (60, 25), "wide": (25, 60)}
TYPES = {np.float32: 2e-5, np.float64: 1e-10}
KINDS = {"dense": np.asarray, "csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
inits = pytest.mark.parametrize("init", NNDSVD)
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
dtypes = pytest.mark.parametrize("dtype", TYPES)


def decaying(shape: tuple[int, int], dtype: Any = np.float64) -> Array:
    """Singular values that fall fast, and zeros: in places, in one row and in one column."""
    random = np.random.default_rng(0)
    u, x = (np.linalg.qr(random.standard_normal((size, 20)))[0] for size in shape)
    v = np.maximum(0.05 + (u * 3.0 ** -np.arange(20)) @ x.T, 0)
    v[2], v[:, 5] = 0, 0
    return v.astype(dtype)


def begun(
    v: Any,
    init: str,
    edges: tuple[int, ...] | None = None,
    sample_rows: int = 1000,
    seed: int = 0,
    beta: float = 2.0,
) -> tuple[Array, Array]:
    """W and H before the first pass."""
    matrix = v if isinstance(v, Matrix) else open_matrix(v)
    rows = matrix.layout.rows
    rule = EntryMask(seed=seed, orientation=matrix.orientation, beta=beta)
    panels = PanelEngine(matrix, edges or (0, rows // 3, rows // 2, rows), mask=rule)
    settings = Settings(RANK, "mu", beta_loss=beta, init=init, random_state=seed)
    slot = InMemoryFactor(rows, RANK, matrix.dtype)
    plan = replace(plan_panels(matrix.layout, RANK, None, 1, panels.edges), sample_rows=sample_rows)
    cut = PanelCut(FitRequest(settings), panels, panels, plan)
    measures, sampled, *_ = first_read(cut)
    h = None if sampled is None else sampled.h
    state = initialize.initial_state(panels, settings, measures, Factors(None, None), h, lambda: slot)
    assert state.w_slot == 0
    left, right = (part * unit for part, unit in zip((slot.array, state.h), measures.units, strict=True))
    return matrix.orientation.turn_factors(left, right)


def sklearns(v: Array, init: str) -> tuple[Array, Array]:
    w, h = _initialize_nmf(v, RANK, init, random_state=0)
    return w, h


def assert_close(one: tuple[Array, Array], other: tuple[Array, Array], atol: float) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


@kinds
@dtypes
@shapes
@pytest.mark.parametrize("init", ["nndsvd", "nndsvda"])
def test_factors_are_sklearns(init: str, shape: tuple[int, int], dtype: Any, make: Any) -> None:
    v = decaying(shape, dtype)
    assert_close(begun(make(v), init), sklearns(v, init), TYPES[dtype])


@kinds
@shapes
def test_sparse_data_too(shape: tuple[int, int], make: Any) -> None:
    v = mostly_zeros(*shape)
    v[: shape[0] // 2] *= 5
    assert_close(begun(make(v), "nndsvd"), sklearns(v, "nndsvd"), 1e-3)  # theirs is not exact either


@shapes
def test_small_random_numbers_are_where_zeros_were(shape: tuple[int, int]) -> None:
    v = decaying(shape)
    for plain, filled in zip(begun(v, "nndsvd"), begun(v, "nndsvdar"), strict=True):
        zeros = plain == 0
        assert zeros.sum() > 20
        np.testing.assert_array_equal(plain[~zeros], filled[~zeros])
        assert 0 < filled[zeros].min() <= filled[zeros].max() < v.mean() / 20
        assert filled[zeros].mean() == pytest.approx(0.8 * v.mean() / 100, rel=0.3)
    assert not np.array_equal(begun(v, "nndsvdar")[0], begun(v, "nndsvdar", seed=1)[0])


@inits
@shapes
@given(data=st.data())
def test_they_do_not_depend_on_the_cut(init: str, shape: tuple[int, int], data: st.DataObject) -> None:
    v, rows = decaying(shape), max(shape)
    sample_rows = data.draw(st.sampled_from([10, 30, rows]))
    whole = begun(v, init, (0, rows), sample_rows)
    assert_close(begun(v, init, data.draw(cuts(rows)), sample_rows), whole, 1e-9)
    tall = scipy.sparse.csr_array if shape[0] == rows else scipy.sparse.csc_array
    assert_close(begun(tall(v), init, data.draw(cuts(rows)), sample_rows), whole, 1e-9)


@pytest.mark.parametrize("sample_rows", [1, 5, 20])
def test_few_sampled_rows_are_enough_where_values_decay(sample_rows: int) -> None:
    v = decaying((400, 60))
    assert_close(begun(v, "nndsvd", sample_rows=sample_rows), sklearns(v, "nndsvd"), 0.02)


@given(factor=st.sampled_from([-40, -10, 10, 40]))
def test_scale_of_v_is_only_a_scale(factor: int) -> None:
    v = decaying((60, 25))
    scaled = tuple(part / 2.0 ** (factor / 2) for part in begun(v * 2.0**factor, "nndsvd"))
    assert_close((scaled[0], scaled[1]), begun(v, "nndsvd"), 1e-12)


@inits
def test_a_v_of_less_rank_gives_zero_components(init: str) -> None:
    v = np.outer(np.arange(30.0), np.ones(20))
    for factor in begun(v, init):
        assert np.isfinite(factor).all()
    w, h = begun(v, "nndsvd")
    np.testing.assert_allclose(w @ h, v, atol=1e-12)
    assert w[:, 1:].max() == h[1:].max() == 0


@pairwise({"shape": [(1, 1), (1, 7), (7, 1), (6, 6)], "solver": ["hals", "mu", "sgd"], "init": NNDSVD})
def test_the_smallest_matrices(init: str, solver: str, shape: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = nmf(np.ones(shape), 1, solver=solver, init=init, max_iter=30)
    assert result.relative_error < 1e-6
    assert result.message.startswith("converged")
    assert np.isfinite(result.W.compute()).all()


class CountingReader(ReaderDefaults):
    """Rows of a V, and how often each slice of them was read; one row is a fingerprint."""

    def __init__(self, v: Array) -> None:
        self.v, self.shape, self.dtype = v, v.shape, v.dtype
        self.reads = Counter[tuple[int, int]]()
        self.lock = threading.Lock()

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        first, last = index[0].start, index[0].stop
        with self.lock:
            self.reads[first, last] += last - first > 1
        return self.v[index]


@pytest.mark.parametrize("solver", ["hals", "mu"])
@inits
def test_the_start_reads_v_twice_more(init: str, solver: str, several_panels: None) -> None:
    v = decaying((60, 25))
    reader = CountingReader(v)
    matrix = Matrix(v.shape, v.dtype, "here", Orientation.ROWS, Layout(*v.shape, 8), reader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nmf(matrix, RANK, solver=solver, init=init, max_iter=3, tol=0, cache="off")
    counts = [count for count in reader.reads.values() if count]
    assert len(counts) > 1
    assert set(counts) == {1 + 2 + 3 + 1}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"missing": "nan"}, "missing is 'nan' and init is 'nndsvd'.*every entry.*leave missing out"),
        ({"validation_fraction": 0.1}, r"validation_fraction is 0.1 and init is 'nndsvd'.*'sample'"),
        ({"weights": np.ones((9, 6))}, "weights are given and init is 'nndsvd'.*leave weights out"),
        ({"H": np.ones((2, 6))}, "H is given to begin with, and init is 'nndsvd'; leave init out"),
    ],
)
def test_what_has_no_singular_vectors_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        nmf(np.ones((9, 6)), 2, init="nndsvd", **options)
    assert "\n" not in str(caught.value)


def test_zeros_that_mu_cannot_move_are_warned_of_once() -> None:
    v = decaying((60, 25))
    with pytest.warns(UserWarning, match="'nndsvda' or 'nndsvdar'") as caught:
        result = nmf(v, RANK, solver="mu", init="nndsvd", max_iter=3, tol=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for begin, end in zip(sklearns(v, "nndsvd"), (result.W, result.H), strict=True):
        assert np.all(end.compute()[begin == 0] == 0)


def test_the_command_says_so_in_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_terminal("json", terminal=False), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("such and such", stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert '"level": "warning"' in line
    assert '"message": "such and such"' in line
    assert logging.getLogger("dask_nmf").handlers == []


@pytest.mark.parametrize(
    ("init", "kind"), [("nndsvd", "zarr v3"), ("nndsvda", "csr in zarr"), ("nndsvdar", "dask csr_array")]
)
def test_workers_and_stores_begin_the_same(init: str, kind: str, client: Any, tmp_path: Path) -> None:
    v = decaying((60, 25))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked: dict[str, Any] = {"solver": "mu", "init": init, "max_iter": 2}
        there = nmf(SOURCES[kind](v, tmp_path / "v"), RANK, store=tmp_path / "run.zarr", **asked)
        here = nmf(v, RANK, **asked)
    assert_close(dask.compute(there.W, there.H), dask.compute(here.W, here.H), 1e-9)


@kinds
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_the_loss_does_not_change_them(beta: float, make: Any) -> None:
    v = decaying((60, 25)) + 0.01
    whole = begun(make(v), "nndsvda")
    assert_close(begun(make(v), "nndsvda", beta=beta), whole, 1e-9)


@pytest.mark.parametrize(("solver", "beta"), [("hals", 1.0), ("mu", 1.0), ("mu", 0.5), ("mu", 3.0)])
@inits
def test_a_divergence_begins_so_too(init: str, solver: str, beta: float, several_panels: None) -> None:
    v = low_rank(60, 25, RANK, noise=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = nmf(v, RANK, solver=solver, beta_loss=beta, init=init, max_iter=20)
    assert np.diff(result.error_history).max() < 1e-9
    assert result.relative_error < 0.35


@inits
def test_the_estimator_takes_them(init: str) -> None:
    v = low_rank(60, 25, RANK, noise=0.5, dtype=np.float32)
    model = NMF(RANK, init=init, max_iter=200, tol=1e-6, random_state=0).fit(v)
    best = NMF(RANK, tol=1e-6, random_state=0).fit(v)
    assert model.components_.dtype == np.float32
    assert model.reconstruction_err_ < 1.1 * best.reconstruction_err_


@given(seed=seeds)
def test_normal_numbers_are_normal_and_belong_to_their_rows(seed: int) -> None:
    numbers = rng.normal(seed, rng.Stream.DIRECTIONS, np.arange(500), 20)
    np.testing.assert_allclose([numbers.mean(), numbers.std()], [0, 1], atol=0.06)
    np.testing.assert_array_equal(rng.normal(seed, rng.Stream.DIRECTIONS, np.arange(7, 9), 20), numbers[7:9])
    assert not np.array_equal(rng.normal(seed + 1, rng.Stream.DIRECTIONS, np.arange(500), 20), numbers)


def test_of_each_pair_the_first_large_entry_is_positive() -> None:
    vectors = np.array([[-0.1, -0.7, 0.7], [0.5, -0.5, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(nndsvd.fix_signs(vectors), vectors * [[-1], [1], [1]])
    assert nndsvd.fix_signs(np.empty((0, 3))).shape == (0, 3)
