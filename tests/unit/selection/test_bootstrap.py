"""Standard errors of components, against refits to repeated rows."""

import re
from dataclasses import replace
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
from sklearn import decomposition
from support.matrices import Array

from dask_nmf import RankSelection, select_rank
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.partition import Resources
from dask_nmf.kernels.blocks.resampling import Resample
from dask_nmf.planning import row_panels
from dask_nmf.planning.client_memory import ClientMemory
from dask_nmf.planning.model_groups import ModelGroups
from dask_nmf.planning.row_panels import plan_panels
from dask_nmf.planning.worker_memory import MIB, Layout
from dask_nmf.selection import bootstrap
from dask_nmf.selection.bootstrap import Bootstrap, check_room_for_replicates, memory_of_replicates
from dask_nmf.selection.models import APART
from dask_nmf.selection.stored import stacks
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.selection.stored.summary import selection_summary
from dask_nmf.storage.locations import located
from dask_nmf.types import Orientation

RANK = 2
SAMPLES = 4
OPTIONS: dict[str, Any] = {"ranks": RANK, "n_init": 1, "holdout": 0.1, "error_bars": SAMPLES}


def planted(rows: int = 60, columns: int = 12) -> Array:
    """Return a matrix of rank 2 with noise; some rows and columns have one component, so it is unique."""
    rng = np.random.default_rng(0)
    left, right = rng.uniform(1, 2, (rows, RANK)), rng.uniform(1, 2, (RANK, columns))
    for component in range(RANK):
        left[component :: 2 * RANK, component] = right[component, component :: 2 * RANK] = 0
    return left @ right * rng.uniform(0.8, 1.2, (rows, columns))


def deviation(V: Array, H: Array, beta_loss: str) -> Array:
    """Return the standard deviation of H over refits by scikit-learn to rows that are repeated."""
    found = []
    for number in range(SAMPLES):
        rows = Resample(number << APART, Orientation.ROWS).rows(0, len(V))
        model = decomposition.NMF(
            RANK,
            init="custom",
            solver="cd" if beta_loss == "frobenius" else "mu",
            beta_loss=beta_loss,
            tol=1e-9,
            max_iter=5000,
        )
        sample = V[rows]
        model.fit_transform(sample, W=np.full((len(sample), RANK), sample.mean()), H=H.copy())
        own = model.components_
        found.append(own * (H.sum(axis=1) / own.sum(axis=1))[:, None])
    return np.std(found, axis=0, ddof=1)


CASES = {
    "tall": (np.asarray, "frobenius", (60, 12)),
    "wide csr": (scipy.sparse.csr_array, "frobenius", (14, 40)),
    "KL of tall csr": (scipy.sparse.csr_array, "kullback-leibler", (60, 12)),
    "KL of wide": (np.asarray, "kullback-leibler", (14, 40)),
}


@pytest.mark.parametrize("case", CASES)
def test_standard_errors_are_those_of_refits_to_repeated_rows(
    case: str,
) -> None:
    turn, beta_loss, shape = CASES[case]
    V = planted(*shape)
    found = select_rank(turn(V), beta_loss=beta_loss, tol=1e-9, **OPTIONS)
    assert found.result is not None
    assert found.components_stderr is not None
    expected = deviation(V, found.result.H.compute(), beta_loss)
    np.testing.assert_allclose(found.components_stderr, expected, rtol=0.05, atol=0.02 * expected.max())
    stability = found.bootstrap_stability
    assert stability is not None
    assert stability.shape == (RANK,)
    assert ((stability > 0.9) & (stability < 1)).all()


def assert_same(one: RankSelection, other: RankSelection) -> None:
    """Check that error bars are the same, bit for bit."""
    assert one.finished
    assert other.finished
    assert one.to_dict() == other.to_dict()
    assert one.components_stderr is not None
    np.testing.assert_array_equal(one.components_stderr, other.components_stderr)


def test_missing_entries_and_any_chunks_are_allowed() -> None:
    V = planted()
    V[np.random.default_rng(1).random(V.shape) < 0.1] = np.nan
    options = {**OPTIONS, "missing": "nan"}
    whole, parts = select_rank(V, **options), select_rank(da.from_array(V, chunks=(7, 5)), **options)
    assert whole.components_stderr is not None
    assert np.isfinite(whole.components_stderr).all()
    np.testing.assert_allclose(whole.components_stderr, parts.components_stderr, rtol=1e-6)


def test_error_bars_that_are_killed_after_any_pass_end_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=planted(), chunks=(20, 12))
    monkeypatch.setattr(bootstrap, "PASSES", 3)
    options = {**OPTIONS, "max_iter": 3, "tol": 0}
    whole = select_rank(tmp_path / "v.zarr", store=tmp_path / "whole.zarr", **options)
    commit = SelectionStore.commit_replicates
    for passes in (0, 2):

        def killed(store: SelectionStore, number: int, models: Any, last: int = passes) -> None:
            if number > last:
                raise KeyboardInterrupt
            commit(store, number, models)

        place = tmp_path / f"{passes}.zarr"
        with monkeypatch.context() as patch:
            patch.setattr(SelectionStore, "commit_replicates", killed)
            with pytest.raises(KeyboardInterrupt):
                select_rank(tmp_path / "v.zarr", store=place, **options)
        assert_same(select_rank(tmp_path / "v.zarr", store=place, **options), whole)
    limited = [
        select_rank(tmp_path / "v.zarr", store=tmp_path / "limited.zarr", time_limit=0, **options)
        for _ in range(12)
    ]
    assert_same(limited[-1], whole)
    assert "the error bars are left; run it again to go on" in " ".join(found.message for found in limited)


@pytest.mark.parametrize("shape", [(60, 12), (14, 40)], ids=["tall", "wide"])
def test_replicates_that_do_not_fit_the_client_together_run_in_batches(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PASSES", 3)
    V, options = planted(*shape), {**OPTIONS, "max_iter": 3}
    whole = select_rank(V, **options)
    running: list[int] = []
    make = Bootstrap._make_pass

    def watched(self: Bootstrap, models: Any, numbers: Any) -> None:
        running.append(len(numbers))
        make(self, models, numbers)

    monkeypatch.setattr(Bootstrap, "_make_pass", watched)
    rooms = iter([3, *[2] * 20])  # after the first pass there is less room
    monkeypatch.setattr(ClientMemory, "replicates_at_once", lambda *given: next(rooms))
    first = select_rank(V, store=tmp_path / "s.zarr", **{**options, "error_bars": 0})
    assert first.finished
    while not (found := select_rank(V, store=tmp_path / "s.zarr", time_limit=0, **options)).finished:
        pass
    assert running == [3, 2, 2, 1, 2, 2]  # the fourth one catches up with the third
    assert_same(found, whole)


@pytest.mark.parametrize("shape", [(60, 12), (14, 40)], ids=["tall", "wide"])
def test_replicates_of_earlier_batches_are_not_written_again(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PASSES", 3)
    monkeypatch.setattr(ClientMemory, "replicates_at_once", lambda *given: 2)
    written: list[dict[str, int]] = []
    commit, write = SelectionStore.commit_replicates, stacks.write

    def committed(store: SelectionStore, number: int, models: Any) -> None:
        written.append({})
        commit(store, number, models)

    def watched(group: zarr.Group, path: str, pieces: list[Array]) -> None:
        if written:
            written[-1][Path(path).name] = sum(map(len, pieces))
        write(group, path, pieces)

    monkeypatch.setattr(SelectionStore, "commit_replicates", committed)
    monkeypatch.setattr(stacks, "write", watched)
    found = select_rank(planted(*shape), store=tmp_path / "s.zarr", **{**OPTIONS, "max_iter": 3})
    two = 2 * RANK  # rows of the factors of a batch
    running, ended = {"h": two, "h_input": two}, {"h": two}
    assert [*written[:5], {"h": written[5]["h"]}] == 2 * [running, running, ended]
    assert_same(found, select_rank(planted(*shape), **{**OPTIONS, "max_iter": 3}))


@given(st.integers(1, 40), st.integers(2, 200), st.integers(1, 4000), st.integers(1, 300_000))
def test_as_many_replicates_run_at_once_as_the_client_has_room_for(
    rank: int, replicates: int, room: int, columns: int
) -> None:
    memory = ClientMemory(Layout(1000, columns, 4), room * MIB)
    try:
        most = memory.replicates_at_once(rank, replicates)
    except MemoryError as refusal:
        needed = int(re.findall(r"at least (\d+)MiB", str(refusal))[0])
        assert needed > room
        assert replace(memory, room=inf).replicates_at_once(rank, replicates) == replicates
        return
    assert 1 <= most <= replicates
    assert replace(memory, room=2 * memory.room).replicates_at_once(rank, replicates) >= most


@pytest.mark.parametrize("indptr", [None, range(0, 200_001 * 40, 40)], ids=["dense", "csr"])
def test_the_room_for_replicates_is_that_of_their_own_plan_before_models_are_fitted(
    indptr: range | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "resources", lambda: Resources(None, 2, 1))
    layout = Layout(200_000, 500, 8, indptr=None if indptr is None else np.array(indptr))
    models, own = (plan_panels(layout, rank, None, 2) for rank in (2000, 300))
    assert models.sample_rows > own.sample_rows
    with dask.config.set({"dask_nmf.client_memory": "1100MiB"}):
        assert memory_of_replicates(models).replicates_at_once(10, 30) == 30
        assert memory_of_replicates(own).replicates_at_once(10, 30) == 30
        check_room_for_replicates(models, 10, 30)
        with pytest.raises(MemoryError, match="with the components of 20000, takes up to"):
            check_room_for_replicates(models, 10, 20_000)


def test_a_bootstrap_sample_that_the_client_has_no_room_for_is_refused(tmp_path: Path) -> None:
    fitted = select_rank(planted(), store=tmp_path / "s.zarr", **{**OPTIONS, "error_bars": 0})
    with (
        dask.config.set({"dask_nmf.client_memory": "330MiB"}),
        pytest.raises(MemoryError, match=r"one bootstrap sample of rank 2, .* fill 330 MiB; take fewer"),
    ):
        select_rank(planted(), store=tmp_path / "s.zarr", **OPTIONS)
    again = select_rank(planted(), store=tmp_path / "s.zarr", **{**OPTIONS, "error_bars": 0})
    assert again.to_dict() == fitted.to_dict()


def test_error_bars_without_room_in_the_client_are_refused_before_models_are_fitted(tmp_path: Path) -> None:
    most = 10**7  # samples of rank 3, of 288 bytes each
    with (
        dask.config.set({"dask_nmf.client_memory": "2GiB"}),
        pytest.raises(MemoryError, match=f"one bootstrap sample of rank 3, with the components of {most}, "),
    ):
        select_rank(
            planted(), store=tmp_path / "s.zarr", **{**OPTIONS, "ranks": [RANK, 3], "error_bars": most}
        )
    assert not list(tmp_path.rglob("zarr.json"))


def test_error_bars_are_added_to_a_finished_selection_and_stay_with_its_answer(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=planted(), chunks=(20, 12))
    place = {"store": tmp_path / "s.zarr"}
    without = select_rank(tmp_path / "v.zarr", **{**OPTIONS, "error_bars": 0}, **place)
    assert without.components_stderr is None
    assert without.bootstrap_stability is None
    added = select_rank(tmp_path / "v.zarr", **OPTIONS, **place)
    assert added.ranks == without.ranks
    root = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    for error_bars in (SAMPLES, 0):  # they are read, and not computed again
        again = select_rank(tmp_path / "v.zarr", **{**OPTIONS, "error_bars": error_bars}, **place)
        assert_same(again, added)
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == root
    other = select_rank(tmp_path / "v.zarr", **{**OPTIONS, "error_bars": 0, "n_init": 2}, **place)
    assert other.components_stderr is None


def test_standard_errors_are_shown_beside_the_fit_and_go_with_their_answer(tmp_path: Path) -> None:
    place = tmp_path / "s.zarr"
    for error_bars in (SAMPLES, SAMPLES + 1):  # the second ones are shown by the other names of chunks
        found = select_rank(planted(), store=place, **{**OPTIONS, "error_bars": error_bars})
        group = zarr.open_group(place, mode="r")
        shown: Any = group["components_stderr"]
        np.testing.assert_array_equal(shown[...], found.components_stderr)
        np.testing.assert_array_equal(zarr.open_array(place / "components_stderr", mode="r")[...], shown[...])
        assert shown.metadata.dimension_names == ("component", "column")
        assert selection_summary(located(place))["components_stderr"] == str(place / "components_stderr")
    (place / "components_stderr" / "zarr.json").unlink()  # as if the command had been killed before it wrote
    select_rank(planted(), store=place, **{**OPTIONS, "error_bars": 0})
    np.testing.assert_array_equal(zarr.open_array(place / "components_stderr", mode="r")[...], shown[...])
    select_rank(planted(), store=place, **{**OPTIONS, "error_bars": 0, "n_init": 2})
    assert "components_stderr" not in zarr.open_group(place, mode="r")
    assert selection_summary(located(place))["components_stderr"] is None


@pytest.mark.parametrize("other", [SAMPLES - 1, SAMPLES + 1])
def test_another_number_of_error_bars_replaces_the_first_and_nothing_else_is_kept(
    other: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PASSES", 2)
    place, options = tmp_path / "s.zarr", {**OPTIONS, "max_iter": 3}
    for error_bars in (SAMPLES, other):
        found = select_rank(planted(), store=place, **{**options, "error_bars": error_bars})
        alone = select_rank(planted(), **{**options, "error_bars": error_bars})
        assert_same(found, alone)
        folders = zarr.open_group(place, mode="r").attrs["dask_nmf_selection"]["folders"]  # type: ignore[index,call-overload]
        assert {path.name for path in (place / "data").iterdir()} == set(folders.values())
        assert {path.name.split("-")[0] for path in (place / "data").iterdir()} == {
            *("layout", "factors", "result", "error")
        }


def test_a_v_of_few_rows_has_no_empty_sample() -> None:
    found = select_rank(planted(3, 12), **{**OPTIONS, "error_bars": 40, "holdout": 0.2})
    assert found.components_stderr is not None
    assert np.isfinite(found.components_stderr).all()
    column = select_rank(planted(12, 3)[:, :1], 1, n_init=1, holdout=0.2, error_bars=3)
    assert column.components_stderr is not None
    assert (column.components_stderr < 1e-6).all()  # each replicate has the sum of the component


def test_one_bootstrap_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"error_bars is 1; it must be 0 or an integer ≥ 2"):
        select_rank(planted(), **{**OPTIONS, "error_bars": 1})


@pytest.mark.parametrize("shape", [(60, 12), (14, 40)], ids=["tall", "wide"])
def test_replicates_that_do_not_fit_a_worker_together_are_read_in_groups(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PASSES", 2)
    monkeypatch.setattr(row_panels, "SMALLEST", 1)
    monkeypatch.setattr(row_panels, "PANELS", 3)
    options, most = {**OPTIONS, "max_iter": 3}, [0]
    whole = select_rank(planted(*shape), **options)
    groups = ModelGroups(((0, 3), (1,), (2,)), 0, 3)
    compute = PanelEngine.compute

    def counted(engine: PanelEngine, h: Array, reduction: Any, w: Any = None, more_h: Any = ()) -> Any:
        most[0] = max(most[0], 1 + len(more_h))
        return compute(engine, h, reduction, w, more_h)

    monkeypatch.setattr(bootstrap, "group_models", lambda planned, ranks, share: groups)
    monkeypatch.setattr(PanelEngine, "compute", counted)
    found = select_rank(planted(*shape), **options)
    assert most == [2]
    assert found.components_stderr is not None
    assert whole.components_stderr is not None
    np.testing.assert_allclose(found.components_stderr, whole.components_stderr, rtol=1e-12)
    np.testing.assert_array_equal(found.bootstrap_stability, whole.bootstrap_stability)
