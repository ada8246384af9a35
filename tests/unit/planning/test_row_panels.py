"""The planner: pure integers, so pure properties."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.strategies import many

from dask_nmf.planning import row_panels, worker_memory
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import MIB, Layout

GIB = 1024 * MIB
limits = st.none() | st.integers(300 * MIB, 64 * GIB)


@st.composite
def dense_layouts(draw: Any) -> Layout:
    chunk_rows = draw(st.integers(1, 5000))
    return Layout(
        rows=draw(st.integers(1, 2_000_000)),
        columns=draw(st.integers(1, 20_000)),
        itemsize=draw(st.sampled_from([4, 8])),
        chunk_rows=chunk_rows,
        chunk_bytes=draw(st.integers(0, 64 * MIB)),
        needs_cast=draw(st.booleans()),
        density_unknown=draw(st.booleans()),
    )


@st.composite
def sparse_layouts(draw: Any) -> Layout:
    rows = draw(st.integers(1, 3000))
    entries = np.random.default_rng(draw(st.integers(0, 99))).integers(0, draw(st.integers(1, 40_000)), rows)
    indptr = np.concatenate([[0], np.cumsum(entries)])
    return Layout(rows, 50_000, draw(st.sampled_from([4, 8])), needs_cast=draw(st.booleans()), indptr=indptr)


layouts = dense_layouts() | sparse_layouts()


def make(layout: Layout, rank: int, limit: int | None, threads: int) -> PanelPlan | None:
    """The plan, or None where it is refused."""
    try:
        return row_panels.plan_panels(layout, rank, limit, threads)
    except MemoryError:
        return None


@many
@example(layout=Layout(200_000, 1, 4, chunk_rows=1, density_unknown=True), rank=1, limit=None, threads=1)
@given(layout=layouts, rank=st.integers(1, 200), limit=limits, threads=st.integers(1, 16))
def test_panels_cover_the_rows_and_fit(layout: Layout, rank: int, limit: int | None, threads: int) -> None:
    made = make(layout, rank, limit, threads)
    if made is None:
        assert limit is not None
        return
    edges = made.edges
    assert (edges[0], edges[-1]) == (0, layout.rows)
    assert all(a < b for a, b in pairwise(edges))
    assert all(edge % layout.chunk_rows == 0 for edge in edges[:-1])
    unit = row_panels.aligned_rows(edges)
    assert all((b - a) % unit == 0 for a, b in pairwise(edges[:-1]))
    assert limit is None or made.worker_bytes <= limit
    assert made.pass_bytes == layout.panel_bytes(0, layout.rows)
    assert made.sample_rows == 0 or min(2 * rank + 2, layout.rows) <= made.sample_rows <= layout.rows


@given(layout=layouts, cuts=st.lists(st.floats(0, 1), max_size=8), weighted=st.booleans())
def test_the_bytes_of_all_panels_are_those_of_each(layout: Layout, cuts: list[float], weighted: bool) -> None:
    layout = replace(layout, weights=replace(layout, indptr=None) if weighted else None)
    edges = sorted({0, layout.rows, *(int(cut * layout.rows) for cut in cuts)})
    assert layout.bytes_of_panels(edges).tolist() == [layout.panel_bytes(*pair) for pair in pairwise(edges)]


@many
@given(layout=layouts, rank=st.integers(1, 200), limit=limits, threads=st.integers(1, 16))
def test_a_panel_is_no_larger_than_it_has_to_be(
    layout: Layout, rank: int, limit: int | None, threads: int
) -> None:
    made = make(layout, rank, limit, threads)
    if made is None or layout.density_unknown:
        return
    step = layout.chunk_rows if layout.indptr is None else row_panels.aligned_rows(made.edges)
    for first, last in pairwise(made.edges):
        assert last - first <= step or layout.panel_bytes(first, last) <= row_panels.LARGEST


@many
@given(
    layout=layouts, rank=st.integers(1, 100), threads=st.integers(1, 8), limit=st.integers(300 * MIB, 8 * GIB)
)
def test_more_memory_never_refuses_what_less_took(
    layout: Layout, rank: int, threads: int, limit: int
) -> None:
    if make(layout, rank, limit, threads) is not None:
        assert make(layout, rank, 2 * limit, threads) is not None


@given(layout=dense_layouts(), rank=st.integers(1, 200), one=st.integers(1, 16), other=st.integers(1, 16))
def test_threads_matter_only_through_memory(layout: Layout, rank: int, one: int, other: int) -> None:
    assert (
        row_panels.plan_panels(layout, rank, None, one).edges
        == row_panels.plan_panels(layout, rank, None, other).edges
    )


def test_a_large_v_has_panels_of_a_good_size() -> None:
    edges = row_panels.plan_panels(Layout(1_000_000, 1000, 4, chunk_rows=1000), 32, 4 * GIB, 2).edges
    sizes = [4000 * (b - a) for a, b in pairwise(edges)]
    assert min(sizes[:-1]) >= 64 * MIB
    assert max(sizes) <= row_panels.LARGEST


def test_a_small_v_is_cut_for_load_balance() -> None:
    assert (
        len(row_panels.plan_panels(Layout(64 * MIB // 4, 4, 4), 10, None, 2).edges) - 1 == row_panels.PANELS
    )
    assert len(row_panels.plan_panels(Layout(1000, 10, 8), 3, None, 2).edges) - 1 == 1


def test_a_blind_layout_has_a_chunk_a_panel() -> None:
    edges = row_panels.plan_panels(
        Layout(1000, 10, 8, chunk_rows=100, density_unknown=True), 3, None, 2
    ).edges
    assert edges == tuple(range(0, 1001, 100))


@pytest.mark.parametrize("limit", [None, 680 * MIB])
def test_sparse_panels_have_like_numbers_of_entries(limit: int | None) -> None:
    entries = np.r_[np.full(1000, 20_000), np.full(99_000, 10)]
    layout = Layout(100_000, 100_000, 4, indptr=np.r_[0, np.cumsum(entries)])
    made = row_panels.plan_panels(layout, 5, limit, 2)
    sizes = [layout.panel_bytes(*pair) for pair in pairwise(made.edges)]
    assert len(sizes) >= row_panels.PANELS
    assert max(sizes[:-1]) < 2 * min(sizes[:-1])
    assert max(sizes) <= 1.01 * max(made.pass_bytes // row_panels.PANELS, row_panels.SMALLEST)


def test_edges_of_an_earlier_plan_are_kept() -> None:
    assert row_panels.plan_panels(Layout(100, 10, 8), 3, None, 2, edges=(0, 30, 60, 100)).edges == (
        0,
        30,
        60,
        100,
    )


@pytest.mark.parametrize("edges", [None, (0, 100_000)])
def test_what_cannot_fit_is_refused_with_numbers(edges: tuple[int, ...] | None) -> None:
    layout = Layout(100_000, 10_000, 4, chunk_rows=100_000)
    with pytest.raises(MemoryError) as caught:
        row_panels.plan_panels(layout, 20, 2 * GIB, 2, edges)
    text = str(caught.value)
    assert "100000 rows x 10000 columns take 3815 MiB" in text
    assert "its limit is 2048 MiB" in text
    assert "fewer threads, or store V in chunks of fewer rows" in text
    needed = int(text.split("give it at least ")[1].split(" MiB")[0]) + 1
    assert row_panels.plan_panels(layout, 20, needed * MIB, 2, edges).edges == (0, 100_000)


@pytest.mark.parametrize(
    ("edges", "unit"), [((0, 10), 10), ((0, 4, 8, 10), 4), ((0, 6, 16, 20), 2), ((0, 100, 101), 100)]
)
def test_unit_is_the_rows_of_one_writer(edges: tuple[int, ...], unit: int) -> None:
    assert row_panels.aligned_rows(edges) == unit


def test_a_sample_shrinks_before_panels_are_not_worth_a_task() -> None:
    entries = np.linspace(0, 40_000_000, 300_001).astype(np.int64)
    layout = Layout(300_000, 20_000, 4, chunk_bytes=12 * MIB, indptr=entries, masked=True)
    for limit in (652_000_000, 752_000_000):
        planned = row_panels.plan_panels(layout, 9, limit, 1, blocks=True)
        assert planned.pass_bytes / (len(planned.edges) - 1) > row_panels.LEAST / 2
        assert planned.worker_bytes <= limit * worker_memory.USABLE


@pytest.mark.parametrize(
    ("limit", "listed"),
    [
        (750_000_000, False),
        (800_000_000, False),
        (900_000_000, False),
        (720_000_000, True),
        (800_000_000, True),
    ],
)
def test_panels_of_a_good_size_come_before_a_large_sample_and_prefetch(limit: int, listed: bool) -> None:
    chunk = 2**20  # entries: smaller panels decode the chunks at their ends many times
    entries = np.linspace(0, 40_000_000, 300_001).astype(np.int64)
    layout = Layout(
        300_000, 20_000, 4, chunk_bytes=12 * chunk, indptr=entries, masked=True, listed=listed, prefetch=True
    )  # whose sums have 20,000 Gram matrices
    planned = row_panels.plan_panels(layout, 8, limit, 1)
    panels = len(planned.edges) - 1
    assert panels <= 32
    assert 40_000_000 / panels >= chunk
    assert row_panels.aligned_rows(planned.edges) * 8 * 4 >= 16 * 1024, "W has chunks of a few disk blocks"
    assert planned.sample_rows >= 1000
    assert planned.worker_bytes <= limit * worker_memory.USABLE


def test_stored_cells_leave_more_room_for_the_sample_than_cells_that_a_mask_finds() -> None:
    entries = np.linspace(0, 40_000_000, 300_001).astype(np.int64)
    masked = Layout(300_000, 20_000, 4, chunk_bytes=12 * 2**20, indptr=entries, masked=True)
    found, stored = (
        row_panels.plan_panels(replace(masked, listed=listed), 8, 800_000_000, 1) for listed in (False, True)
    )
    assert stored.sample_rows > 1.2 * found.sample_rows
    assert len(stored.edges) <= len(found.edges)


@many
@example(layout=Layout(200_000, 1000, 4, chunk_rows=100), rank=8, threads=1, limit=530 * MIB)
@given(layout=dense_layouts(), rank=st.integers(1, 50), threads=st.integers(1, 4), limit=limits)
def test_a_sample_is_large_only_beside_panels_of_a_good_size(
    layout: Layout, rank: int, threads: int, limit: int | None
) -> None:
    made = make(layout, rank, limit, threads)
    if made is None or layout.density_unknown or made.sample_rows <= max(1000, 50 * rank):
        return
    largest = max(layout.panel_bytes(*pair) for pair in pairwise(made.edges))
    good = min(row_panels.SMALLEST, made.pass_bytes)
    assert largest >= good // 2, "panels of about equal height may be half as large as they could be"


def test_copies_of_a_small_csr_panel_take_less_than_those_of_a_dense_one() -> None:
    indptr = np.linspace(0, 1_400_000, 117_660, dtype=np.int64)
    layout = Layout(117_659, 99_922, 4, indptr=indptr, by_batches=True)
    plan = row_panels.plan_panels(layout, 30, 10**9, 1)  # a worker of 1 GB, and sums of 24 MB
    whole = replace(plan.memory, panel=worker_memory.STRIP_BYTES)
    plain = replace(whole, layout=replace(layout, by_batches=False))
    assert whole.worker_bytes([30]) - plain.worker_bytes([30]) <= worker_memory.STRIP_BYTES


def test_a_sample_has_rows_enough_to_draw_or_there_is_none() -> None:
    layout = Layout(200_000, 200_000, 4)
    assert row_panels.plan_panels(layout, 1, 560 * MIB, 1).sample_rows == 4
    without = row_panels.plan_panels(
        layout, 1, 530 * MIB, 1
    )  # two rows would fit, of which none may be drawn
    assert without.sample_rows == 0
    assert without.worker_bytes <= 530 * MIB * worker_memory.USABLE
