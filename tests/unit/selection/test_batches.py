"""Batches of models: the same result however models are cut into them, and no more memory than there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array
from support.selections import assert_same

from dask_nmf import plan, select_rank
from dask_nmf.execution import partition
from dask_nmf.execution.partition import Resources
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.options.settings import Settings
from dask_nmf.planning.client_memory import ClientMemory, ClientPlan
from dask_nmf.planning.worker_memory import MIB, Layout
from dask_nmf.selection.batches.endings import SETTLED, risen_models
from dask_nmf.selection.models import RISEN, Model, ModelKey, SelectionOptions
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.select import Request, choose_rank
from dask_nmf.selection.stored import stacks
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.solvers.hals import HALS
from dask_nmf.storage.locations import locate

OPTIONS = SelectionOptions((1, 3, 6, 8), n_init=2, folds=2, holdout=0.2, settings=Settings(8, max_iter=7))


def planted(wide: bool = False) -> Array:
    """Return a matrix of rank 3 with noise, 60 x 20."""
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, 1, (60, 3)) @ rng.gamma(0.5, 1, (3, 20))
    v = np.maximum(v + 0.3 * v.std() * rng.standard_normal(v.shape), 0)
    return np.ascontiguousarray(v.T) if wide else v


def a_pair_each(
    memory: ClientMemory, pairs: Sequence[Sequence[int]], ended: Sequence[int] = ()
) -> ClientPlan:
    """Return a batch for each pair."""
    return ClientPlan(tuple((number,) for number in range(len(pairs))), 0)


def choose(v: Array, options: SelectionOptions = OPTIONS, store: Path | None = None) -> RankSelection:
    return choose_rank(v, options, Request(store=store and locate(store)))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_a_batch_for_each_pair_gives_the_same_as_one_for_all(
    wide: bool, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = planted(wide)
    whole = choose(v, store=tmp_path / "whole.zarr" if stored else None)
    assert RISEN in {row["message"] for row in whole.models}
    monkeypatch.setattr(ClientMemory, "plan", a_pair_each)
    assert_same(choose(v, store=tmp_path / "batches.zarr" if stored else None), whole)


def test_a_selection_that_is_killed_in_any_batch_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = planted()
    whole = choose(v, store=tmp_path / "whole.zarr")
    commit, place = SelectionStore.commit_models, tmp_path / "killed.zarr"

    def killed(store: SelectionStore, number: int, models: Sequence[Model]) -> None:
        commit(store, number, models)
        made[0] += 1
        if made[0] == 2:
            raise KeyboardInterrupt

    several = ClientMemory.plan
    for calls in range(100):
        made = [0]
        with monkeypatch.context() as patch:
            patch.setattr(SelectionStore, "commit_models", killed)
            patch.setattr(ClientMemory, "plan", several if calls % 3 == 1 else a_pair_each)
            try:
                found = choose(v, store=place)
            except KeyboardInterrupt:
                continue
        break
    assert calls > 3
    assert_same(found, whole)
    folders = zarr.open_group(place, mode="r").attrs["dask_nmf_selection"]["folders"]  # type: ignore[index,call-overload]
    assert {path.name for path in (place / "data").iterdir()} == set(folders.values())


def test_starts_and_ranks_are_added_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = SelectionOptions((1, 3), 1, 1, 0.2, Settings(3, max_iter=7))
    rows = []
    for name in ("one", "several"):
        first = choose(planted(), few, tmp_path / name)
        if name == "several":
            monkeypatch.setattr(ClientMemory, "plan", a_pair_each)
        more = choose(planted(), store=tmp_path / name)
        assert [row for row in more.models if row["start"] == row["fold"] == 0][:2] == first.models
        rows.append(more.models)
    assert rows[0] == rows[1]


errors = st.lists(st.sampled_from([1.0, 1.01, 1.1, 2.0, 3.0, float("nan")]), min_size=1, max_size=6)


@given(st.lists(errors, min_size=12, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_which_ranks_have_risen_for_a_pair_depends_on_it_and_those_before(
    held_out: list[list[float]], ended: list[bool]
) -> None:
    ranks, passes = (2, 3, 5, 8), SETTLED
    models = []
    for number, (fold, rank) in enumerate(product(range(3), ranks)):
        own = held_out[number] + [held_out[number][-1]] * (0 if ended[number] else passes)
        state = HALS().begin(np.zeros((rank, 1)))
        ending = Ending(Outcome.CONVERGED, "") if ended[number] else None
        model = Model(ModelKey(rank, 0, fold), state, (0.5,) * len(own), tuple(own), ending)
        models.append(model if ended[number] else cut(model, passes))
    together = risen_models(models, passes, ranks)
    alone: set[ModelKey] = set()
    for fold in range(3):
        up_to = [model for model in models if model.key.fold <= fold]
        own_pair = {key for key in risen_models(up_to, passes, ranks) if key.fold == fold}
        alone |= own_pair
    assert together == alone
    assert risen_models(models, passes - 1, ranks) == set()


def cut(model: Model, passes: int) -> Model:
    """Return a model as it was after some passes."""
    return Model(model.key, model.state, model.history[:passes], model.held_out[:passes], model.ending)


pairs = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=12)


@given(pairs, st.integers(1, 4000), st.integers(1, 200_000), st.booleans())
def test_each_pair_is_in_one_batch_that_fits_the_client(
    ranks: list[list[int]], room: int, columns: int, stored: bool
) -> None:
    memory = ClientMemory(Layout(1000, columns, 4), room * MIB, 1000, stored)
    needed = max(replace(memory, room=inf).plan([pair] * len(ranks)).client_bytes for pair in ranks)
    try:
        made = memory.plan(ranks)
    except MemoryError:
        assert needed > room * MIB
        return
    assert [number for batch in made.batches for number in batch] == list(range(len(ranks)))
    assert made.client_bytes <= room * MIB
    assert made.overlap or needed > room * MIB
    assert len(replace(memory, room=inf).plan(ranks).batches) == 1


def test_a_selection_that_the_client_has_no_room_for_is_refused_before_the_first_read() -> None:
    options = {"ranks": "2:20", "n_init": 20, "holdout": 0.1}
    wide = da.ones((50_000, 40_000), chunks=(500, -1), dtype="float32")
    with dask.config.set({"dask_nmf.client_memory": "2GiB"}):
        planned = plan(wide, ranks="2:20", n_init=20, workers=2, memory_limit="4GiB", probe=False)
    assert planned.batches > 1
    assert planned.client_bytes <= 2048 * MIB
    assert f"batches:              {planned.batches}, one after another" in repr(planned)
    with (
        dask.config.set({"dask_nmf.client_memory": "330MiB"}),
        pytest.raises(MemoryError, match=r"comparison of 380 models takes .* fill 330 MiB; store the"),
    ):
        select_rank(planted(), **options)
    with (
        dask.config.set({"dask_nmf.client_memory": "690MiB"}),
        pytest.raises(MemoryError, match=r"one start of 19 ranks, up to 20, takes up to \d+ MiB .* 690 MiB"),
    ):
        plan(wide, ranks="2:20", workers=2, n_init=1, memory_limit="4GiB", probe=False)


@pytest.mark.parametrize("asked", [{"n_components": 2}, {"ranks": "2:3"}])
def test_plans_count_a_v_that_is_in_the_memory_of_the_client(asked: dict[str, Any], tmp_path: Path) -> None:
    where = {**asked, "workers": 2, "memory_limit": "1GiB", "probe": False}
    v = np.ones((3000, 200))
    zarr.save(str(tmp_path / "v.zarr"), v)
    stored = plan(tmp_path / "v.zarr", **where).client_bytes
    rows = scipy.sparse.csr_array(v)
    for held, size in ((v, v.nbytes), (rows, rows.data.nbytes + rows.indices.nbytes)):
        assert plan(held, **where).client_bytes - stored >= size


def test_the_room_of_the_client_is_what_workers_here_leave_or_as_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition, "MEMORY_LIMIT", 20 * 2**30)
    alone, beside = (Resources(2**30, 1, 4, here=here).client_room for here in (0, 4))
    assert alone == int(0.7 * 20 * 2**30)
    assert beside == pytest.approx(0.7 * (20 - 4 * 0.7) * 2**30, abs=1)
    assert Resources(2**40, 1, 1).client_room == 0
    with dask.config.set({"dask_nmf.client_memory": "3GiB"}):
        assert Resources(None, 2, 1).client_room == 3 * 2**30
    for bad in ("much", "-5MB", [2]):
        with (
            dask.config.set({"dask_nmf.client_memory": bad}),
            pytest.raises(ValueError, match=r'client_memory is .*; write it as a size, such as "600MB"'),
        ):
            select_rank(planted(), "1:2")


def test_a_finished_selection_is_returned_whatever_the_room_of_the_client(tmp_path: Path) -> None:
    found = choose(planted(), store=tmp_path / "selection.zarr")
    with dask.config.set({"dask_nmf.client_memory": "1MiB"}):
        assert_same(choose(planted(), store=tmp_path / "selection.zarr"), found)


@pytest.mark.parametrize("heights", [[3], [1, 4, 2], [5, 5, 5, 1]])
def test_stacked_arrays_are_written_a_chunk_at_a_time_and_read_by_rows(
    heights: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "CHUNK", 2 * 7 * 4)
    pieces = [np.random.default_rng(rows).random((rows, 7), np.float32) for rows in heights]
    group = zarr.create_group(tmp_path / "g.zarr")
    path = "data/pass-1-000000000000-0/h"
    stacks.write(group, path, pieces)
    described, first = stacks.describe(pieces), 0
    assert stacks.layout_of(described).chunks == (2, 7)
    for piece in pieces:
        np.testing.assert_array_equal(stacks.read(group, path, described, first, first + len(piece)), piece)
        first += len(piece)


def test_stacked_arrays_may_differ_in_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrower ones have zeros beside them; a chunk is of several arrays."""
    monkeypatch.setattr(stacks, "CHUNK", 4 * 7 * 8)
    pieces = [np.random.default_rng(width).random((3, width)) for width in (5, 7, 6)]
    group, path = zarr.create_group(tmp_path / "g.zarr"), "data/pass-1-000000000000-0/h"
    stacks.write(group, path, pieces)
    whole = stacks.read(group, path, stacks.describe(pieces), 0, 9)
    for number, piece in enumerate(pieces):
        wide = np.pad(piece, ((0, 0), (0, 7 - piece.shape[1])))
        np.testing.assert_array_equal(whole[3 * number : 3 * number + 3], wide)
