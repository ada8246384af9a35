"""`select_rank`, for any V and any place where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client, LocalCluster
from support.matrices import Array

from dask_nmf import NMF, RankSelection, Run, select_rank
from dask_nmf.errors import RunLocked, RunMismatch
from dask_nmf.selection import select
from dask_nmf.selection.stored.summary import selection_summary
from dask_nmf.storage.locations import locate

OPTIONS: dict[str, Any] = {"n_init": 2, "folds": 2, "holdout": 0.1, "max_iter": 6}
RANK = 3


def planted(rows: int = 120, columns: int = 30) -> Array:
    """Return a matrix of rank 3 with a tenth of noise."""
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, 1, (rows, RANK)) @ rng.gamma(0.5, 1, (RANK, columns))
    return np.maximum(v + 0.1 * v.std() * rng.standard_normal(v.shape), 0)


@pytest.fixture
def v(tmp_path: Path) -> Path:
    zarr.create_array(tmp_path / "v.zarr", data=planted(), chunks=(30, 30))
    return tmp_path / "v.zarr"


def assert_same(one: RankSelection, other: RankSelection) -> None:
    assert one.to_dict() == other.to_dict()
    np.testing.assert_array_equal(one.clusters, other.clusters)
    np.testing.assert_array_equal(one.components, other.components)


def test_numpy_dask_and_zarr_give_the_same_selection(v: Path) -> None:
    first = select_rank(planted(), "2:4", **OPTIONS)
    assert first.n_components == RANK
    assert first.finished
    assert first.components is not None
    assert first.components.shape == (RANK, 30)
    assert first.component_stability.shape == (RANK,)
    # The final fit begins with the components, and keeps their order.
    assert first.result is not None
    h, own = first.result.H.compute(), first.components
    cosines = (h * own).sum(axis=1) / np.linalg.norm(h, axis=1) / np.linalg.norm(own, axis=1)
    assert cosines.min() > 0.99
    for other in (da.from_array(planted(), chunks=(50, 20)), v):
        found = select_rank(other, [4, 2, 3], **OPTIONS)
        assert found.n_components == RANK
        for mine, theirs in zip(first.ranks, found.ranks, strict=True):
            assert mine["held_out_error"] == pytest.approx(theirs["held_out_error"], rel=1e-6)


def test_held_out_errors_are_those_of_entries_that_were_not_fitted() -> None:
    exact = np.random.default_rng(1).random((60, 2)) @ np.random.default_rng(2).random((2, 20))
    found = select_rank(exact, "1:2", n_init=1, holdout=0.1, tol=1e-8)
    assert found.n_components == 2
    errors = {row["n_components"]: row["held_out_error"] for row in found.ranks}
    assert errors[2] < 0.02 * errors[1]
    assert errors[1] == pytest.approx(np.linalg.svd(exact)[1][1] / np.sqrt(exact.size), rel=0.5)


def test_a_selection_is_given_as_pandas_and_as_xarray() -> None:
    found = select_rank(scipy.sparse.csr_array(planted()), "2:4", **OPTIONS)
    frame = found.to_frame()
    assert list(frame.index) == [2, 3, 4]
    assert frame["held_out_error"].idxmin() == RANK
    assert len(found.to_frame("models")) == 12
    data = found.to_xarray()
    np.testing.assert_array_equal(data.held_out_error, frame["held_out_error"])
    means = data.model_held_out_error.mean(("start", "fold"))
    np.testing.assert_allclose(means, data.held_out_error)
    assert data.component_stability.sel(n_components=2).notnull().sum() == 2
    assert data.attrs["recommended"] == RANK
    with pytest.raises(ValueError, match="give 'ranks' or 'models'"):
        found.to_frame("folds")
    assert "<table>" in found._repr_html_()
    assert repr(found).startswith("<RankSelection: 3 of ranks 2 to 4; rank 3; ")


def test_a_wide_v_has_components_too() -> None:
    found = select_rank(np.ascontiguousarray(planted().T), "2:4", **OPTIONS)
    assert found.n_components == RANK
    assert found.components is not None
    assert found.components.shape == (RANK, 120)


def test_ranks_above_both_sides_and_a_v_of_zeros_are_accepted() -> None:
    found = select_rank(planted(12, 6), [1, 9], n_init=1, holdout=0.2, max_iter=3)
    assert [row["n_components"] for row in found.ranks] == [1, 9]
    nothing = select_rank(np.zeros((20, 8)), "1:2", n_init=2, holdout=0.2)
    assert nothing.n_components == 1


def test_a_rank_is_chosen_by_kullback_leibler_where_w_h_is_0_under_counts() -> None:
    one_word = np.eye(30)[np.random.default_rng(0).integers(0, 30, 300)]
    chosen = select_rank(one_word, [2, 4], n_init=2, holdout=0.1, beta_loss="kullback-leibler", max_iter=6)
    assert np.isfinite(chosen.to_frame()["held_out_error"]).all()


def test_a_cluster_of_two_workers_gives_the_same_table_as_threads(
    v: Path, cluster: LocalCluster, several_panels: None
) -> None:
    options = {**OPTIONS, "error_bars": 2}
    threads = select_rank(v, "2:4", **options)
    with Client(cluster):
        found = select_rank(v, "2:4", **options)
    assert_same(found, threads)
    np.testing.assert_array_equal(found.components_stderr, threads.components_stderr)


def test_the_old_answer_stays_until_there_is_a_newer_one(
    v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    old = select_rank(v, "1:2", store=store, **OPTIONS)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    for options in ({"ranks": "2:4"}, {"ranks": "3:4", "tol": 1e-3, "overwrite": True}):
        with monkeypatch.context() as patch:
            patch.setattr(select, "factorise", stopped)
            with pytest.raises(KeyboardInterrupt):
                select_rank(v, store=store, **{**OPTIONS, **options})
        described = selection_summary(locate(store))
        assert described is not None
        assert described["n_components"] == old.n_components
        assert described["state"] == "unfinished"
        assert len(NMF.load(store).components_) == old.n_components
        patched = select_rank(v, store=store, **{**OPTIONS, **options})
        assert_same(patched, select_rank(v, store=store, **{**OPTIONS, **options, "overwrite": False}))
        assert patched.n_components == RANK
        assert len(Run.load_result(store).read("H")) == RANK
        old = patched
    assert [row["n_components"] for row in old.ranks] == [3, 4]


def test_the_final_fit_is_stopped_by_the_time_limit_and_goes_on(v: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "store": tmp_path / "s.zarr", "tol": 0}
    found = [select_rank(v, "2:3", time_limit=0, **options) for _ in range(8)]
    assert found[0].result is None
    assert "stopped by the time limit; rank 3 so far" in found[0].message
    last = found[-1]
    assert last.result is not None
    assert last.result.n_iter == 2
    assert not last.finished
    assert "run it again to go on" in last.message
    whole = select_rank(v, "2:3", **options)
    assert whole.finished
    assert whole.to_dict() == {**select_rank(v, "2:3", **OPTIONS, tol=0).to_dict()}


def test_what_differs_is_named_and_a_selection_in_use_is_locked(v: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    select_rank(v, "2", store=store, **{**OPTIONS, "n_init": 1})
    with pytest.raises(RunMismatch, match=r"other selection: tol is 0\.1, it has 0\.0001; give"):
        select_rank(v, "2", store=store, tol=0.1, **OPTIONS)
    with locate(store).lock(), pytest.raises(RunLocked):
        select_rank(v, "2", store=store, **OPTIONS)
    with pytest.raises(TypeError, match="takes no weights"):
        select_rank(v, "2", weights=planted())  # type: ignore[call-arg]
