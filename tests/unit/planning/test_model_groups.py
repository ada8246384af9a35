"""Groups of models that share the reads of V: all models, few groups, and no more memory than there is."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import many

from dask_nmf.planning.grid import GridPlan, plan_grid
from dask_nmf.planning.model_groups import group_models, ranks_to_plan
from dask_nmf.planning.row_panels import PanelPlan, plan_panels
from dask_nmf.planning.worker_memory import MIB, Layout

ranks = st.lists(st.integers(1, 60), max_size=30)
layouts = st.builds(
    Layout,
    rows=st.integers(100, 1_000_000),
    columns=st.integers(1, 100_000),
    itemsize=st.sampled_from([4, 8]),
    chunk_rows=st.integers(1, 100),
    chunk_columns=st.integers(1, 1000),
    masked=st.booleans(),
    own_grams=st.booleans(),
)
limits = st.none() | st.integers(600 * MIB, 16 * 1024 * MIB)


def plan(layout: Layout, rank: int, limit: int | None, cut: str) -> PanelPlan | GridPlan | None:
    """Return a plan of V; None if it is refused."""
    try:
        if cut == "grid":
            return plan_grid(layout, rank, limit, 2)
        return plan_panels(layout, rank, limit, 2, blocks=cut == "strata")
    except MemoryError:
        return None


cuts = st.sampled_from(["panels", "strata", "grid"])


@many
@given(layout=layouts, limit=limits, cut=cuts, ranks=ranks)
def test_every_model_is_in_one_group_that_fits(
    layout: Layout, limit: int | None, cut: str, ranks: list[int]
) -> None:
    made = plan(layout, max(ranks, default=1), limit, cut)
    if made is None:
        return
    found = group_models(made, ranks)
    assert sorted(number for group in found.groups for number in group) == list(range(len(ranks)))
    assert found.reads == made.reads * len(found.groups)
    peaks = [made.memory.worker_bytes([ranks[number] for number in group]) for group in found.groups]
    assert max(peaks, default=0) == found.worker_bytes <= made.memory.room
    assert limit is not None or len(found.groups) <= 1
    for one, other in pairwise(found.groups):  # no two neighbours would have fitted into one
        together = [ranks[number] for number in (*one, *other)]
        assert made.memory.worker_bytes(together) > made.memory.room


@given(layout=layouts, cut=cuts, ranks=ranks.filter(bool), more=st.integers(1, 60))
def test_memory_grows_with_every_model_by_less_than_it_takes_alone(
    layout: Layout, cut: str, ranks: list[int], more: int
) -> None:
    made = plan(layout, 60, None, cut)
    assert made is not None
    nothing = made.memory.worker_bytes([1])
    before, after = made.memory.worker_bytes(ranks), made.memory.worker_bytes([*ranks, more])
    assert before < after <= before + made.memory.worker_bytes([more])
    assert nothing <= made.memory.worker_bytes([max(ranks)]) <= before


@given(layout=layouts, rank=st.integers(1, 60), cut=cuts)
def test_one_model_takes_as_much_as_the_plan_says(layout: Layout, rank: int, cut: str) -> None:
    made = plan(layout, rank, None, cut)
    assert made is not None
    assert made.memory.worker_bytes([rank]) == made.worker_bytes


@pytest.mark.parametrize(("rank", "reads"), [(10, 2), (100, 1)])
def test_a_plan_for_the_sum_of_ranks_has_room_for_all_models(rank: int, reads: int) -> None:
    made = plan_panels(Layout(500_000, 2000, 4, 100, 2000 * 400), rank, 1024 * MIB, 2)
    assert group_models(made, [10] * 10).reads == reads


def test_a_model_that_does_not_fit_is_refused_with_both_numbers() -> None:
    made = plan_panels(Layout(100_000, 20_000, 4, 100), 5, 600 * MIB, 1)
    with pytest.raises(MemoryError, match=r"of rank 5000 takes \d+ MiB, and a worker may fill 420 MiB"):
        group_models(made, [5, 5000])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_panels_are_planned_for_the_sum_of_the_ranks_and_its_halves_down_to_the_largest(
    some: list[int],
) -> None:
    planned = ranks_to_plan(some)
    assert planned[0] == sum(some)
    assert planned[-1] == max(some)
    assert all(half == max(whole // 2, max(some)) for whole, half in pairwise(planned))
    assert len(set(planned)) == len(planned)


def test_panels_between_the_largest_and_the_smallest_let_more_models_share_a_read() -> None:
    layout = Layout(200_000, 5000, 4, chunk_rows=400, chunk_columns=5000, by_batches=True, prefetch=True)
    some = range(2, 31)
    reads = {}
    for rank in ranks_to_plan(some):
        planned = plan(layout, rank, 1_000_000_000, "panels")
        if planned is not None:
            reads[rank] = group_models(planned, some).reads
    assert reads[30] >= 8
    assert min(reads.values()) == 2
