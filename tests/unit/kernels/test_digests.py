"""The digest of V: the sum that it is by definition, however V is stored and cut, and never of another V."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.cuts import grid_plan
from support.matrices import SOURCES, Array, dask_csr, sparse
from support.strategies import chunkings, cuts

from dask_nmf.execution.engines.grid import GridEngine
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.kernels.blocks.masking import EVERYTHING, EntryMask
from dask_nmf.kernels.summary import digests
from dask_nmf.kernels.summary.digests import (
    Digest,
    differing_rows,
    digest_of,
    keys_of,
    merge_digests,
    row_hashes,
)
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.planning import row_panels
from dask_nmf.sources.factors_and_weights import open_entry_weights
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def defined(v: Array) -> list[int]:
    """The digest of each row of V, in Python's integers."""
    rows, columns = (
        np.random.PCG64(seed).random_raw(size) for seed, size in zip((1, 0), v.shape, strict=True)
    )
    sums = []
    for row, key in zip(v, rows.tolist(), strict=True):
        bits = row.view(f"u{v.itemsize}").tolist()
        words = [(x & 0xFFFFFFFF, x >> 32) for x in bits]
        keys = [((k & 0xFFFFFFFF) | 1, (k >> 32) | 1) for k in columns.tolist()]
        total = sum(
            a * b for word, pair in zip(words, keys, strict=True) for a, b in zip(word, pair, strict=True)
        )
        sums.append(total * (key | 1) % 2**64)
    return sums


def digest(v: Any, rows: int | None = None, first: int = 0, **options: Any) -> Digest:
    hashes = row_hashes(v, keys_of(0, v.shape[1]), **options)
    return digest_of(hashes, first, v.shape[0] if rows is None else rows)


def read(source: Any, rule: EntryMask = EVERYTHING, **weights: Any) -> tuple[Digest, ...]:
    """The digests of the first read."""
    matrix = open_matrix(source)
    panels = row_panels.plan_panels(matrix.layout, 3, None, 2).edges
    beside = open_entry_weights(matrix, weights["weights"]) if weights else None
    return PanelEngine(matrix, panels, beside, rule).summarize(SampleSpec(panels[-1], 9, 0)).digests


@dtypes
def test_a_digest_is_the_sum_that_defines_it(dtype: Any) -> None:
    v = sparse(7, 5, dtype=dtype)
    assert digest(v).sums.tolist() == defined(v)


@pytest.mark.usefixtures("several_panels")
@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("kind", SOURCES)
def test_the_first_read_gives_it_however_v_is_stored(
    kind: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    v = sparse(*shape)
    (found,) = read(SOURCES[kind](v, tmp_path / "v"))
    upright = open_matrix(SOURCES[kind](v, tmp_path / "w")).orientation.turn_array(v).copy()
    assert found.sums.tolist() == defined(upright)


@pytest.mark.usefixtures("several_panels")
@given(data=st.data())
def test_no_chunking_changes_it(data: st.DataObject) -> None:
    v = sparse(30, 20)
    chunks = data.draw(chunkings(v.shape))
    for array in (da.from_array(v, chunks=chunks), dask_csr(v, scipy.sparse.csr_array, chunks)):
        assert read(array)[0].sums.tolist() == defined(v)


@given(edges=cuts(30), span=st.sampled_from([2, 5, 30, 100]))
def test_parts_add_up(edges: tuple[int, ...], span: int) -> None:
    v = sparse(30, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "MOST_SPANS", span)
        parts = [digest(v[a:b], 30, a) for a, b in pairwise(edges)]
        whole = digest(v)
        assert len(whole.sums) <= span
        np.testing.assert_array_equal(merge_digests(parts).sums, whole.sums)


@pytest.mark.parametrize("orientation", Orientation)
def test_a_v_that_is_cut_both_ways_has_the_same(orientation: Orientation) -> None:
    v = sparse(30, 20)
    matrix = open_matrix(da.from_array(v, chunks=(7, 6)), orientation=orientation)
    rows, columns = orientation.turn(((0, 14, 30), (0, 7, 20)))
    engine = GridEngine(matrix, grid_plan(rows, columns, 1))
    (found,) = engine.summarize(SampleSpec(rows[-1], 0, 0)).digests
    assert found.sums.tolist() == defined(orientation.turn_array(v).copy())


@dtypes
@given(data=st.data())
def test_one_entry_that_changes_shows_in_its_row_alone(dtype: Any, data: st.DataObject) -> None:
    v = sparse(30, 20, dtype=dtype)
    row, column = data.draw(st.integers(0, 29)), data.draw(st.integers(0, 19))
    other = v.copy()
    steps = data.draw(st.sampled_from([1, 2**20, -1, 2**22]))
    other.view(f"i{v.itemsize}")[row, column] = abs(int(v.view(f"i{v.itemsize}")[row, column]) + steps)
    assert differing_rows(digest(other), digest(v).sums, 30) == [(row, row + 1)]


def swapped(v: Array, *, rows: bool) -> Array:
    return v[[1, 0, *range(2, len(v))]] if rows else v[:, [1, 0, *range(2, v.shape[1])]]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: swapped(v, rows=True),
        lambda v: swapped(v, rows=False),
        lambda v: v[::-1],
        lambda v: np.roll(v, 1, axis=0),
        lambda v: 2 * v,
        lambda v: v + (np.indices(v.shape).sum(axis=0) % 2),
    ],
)
def test_counts_that_change_places_show(change: Any) -> None:
    v = np.random.default_rng(0).poisson(3, (30, 20)).astype(np.float32)
    assert differing_rows(digest(np.ascontiguousarray(change(v))), digest(v).sums, 30)


def test_ranges_are_of_neighbours_and_end_with_v(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MOST_SPANS", 8)
    v = sparse(30, 20)
    other = v.copy()
    other[[0, 7, 29], 3] += 1
    assert differing_rows(digest(other), digest(v).sums, 30) == [(0, 8), (28, 30)]


@dtypes
def test_what_is_the_same_number_has_the_same_digest(dtype: Any) -> None:
    v = sparse(6, 5, dtype=dtype)
    stored = scipy.sparse.csr_array(np.ones_like(v))
    stored.data = v.ravel()  # its zeros are stored
    negative, strange = np.where(v == 0, -v, v), np.where(v == 0, np.nan, v).astype(dtype)
    payload = strange.copy()
    payload.view(f"u{v.itemsize}")[v == 0] += 1
    assert np.isnan(payload).sum() == (v == 0).sum() > 0
    for one, other in ((v, negative), (v, stored), (v, np.asfortranarray(v)), (strange, payload)):
        np.testing.assert_array_equal(digest(one).sums, digest(other).sums)
    assert differing_rows(digest(strange), digest(v).sums, 6)


def test_a_zero_that_is_stored_shows_where_it_counts() -> None:
    v = scipy.sparse.csr_array(sparse(30, 20))
    other = v.copy()
    other.data[5] = 0
    emptied = other.copy()
    emptied.eliminate_zeros()
    for rule, same in ((EntryMask(), True), (EntryMask("unstored"), False)):
        assert (not differing_rows(read(other, rule)[0], read(emptied, rule)[0].sums, 30)) == same


def test_weights_have_a_digest_of_their_own() -> None:
    v, weights = sparse(30, 20), sparse(30, 20, seed=1)
    found = read(v, EntryMask(weighted=True), weights=weights)
    assert [part.sums.tolist() for part in found] == [defined(v), defined(weights)]
