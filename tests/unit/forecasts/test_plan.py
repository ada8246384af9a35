"""The plan of a fit before it begins: it is that of the fit, and one panel is read for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client, LocalCluster
from distributed.deploy.spec import SpecCluster
from support.cuts import cut_both_ways
from support.matrices import low_rank
from support.reads import EDGES, READS, counted_matrix

import dask_nmf
from dask_nmf import nmf, plan, select_rank
from dask_nmf.cli.app import app
from dask_nmf.cluster.backends.local import local_workers
from dask_nmf.execution import partition
from dask_nmf.execution.partition import Resources

V = low_rank(60, 12, 3, noise=1)
HOLES = np.where(np.random.default_rng(0).random(V.shape) < 0.1, np.nan, V)
SPARSE = scipy.sparse.random_array((300, 40), density=0.2, rng=1, format="csr")
FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dense": (V, {}),
    "wide": (V.T, {}),
    "sparse": (SPARSE, {"beta_loss": "kullback-leibler"}),
    "dask": (da.from_array(V, chunks=(7, 5)), {"solver": "mu"}),
    "missing": (HOLES, {"missing": "nan"}),
    "held out": (V, {"validation_fraction": 0.1}),
    "weights": (V, {"weights": np.ones_like(V)}),
    "starts": (V, {"n_init": 3}),
    "svd": (V, {"init": "nndsvd"}),
    "sgd": (SPARSE, {"solver": "sgd", "missing": "unstored"}),
    "float32": (V, {"dtype": "float32"}),
}
GIB = 2**30


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return the numbers of the records of an event."""
    records = (getattr(record, "nmf", {}) for record in caplog.records)
    return [numbers for numbers in records if numbers.get("event") == event]


@pytest.mark.usefixtures("several_panels")
@pytest.mark.parametrize(("v", "options"), FITS.values(), ids=FITS)
def test_the_plan_is_that_of_the_fit(
    v: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dask_nmf")
    planned = plan(v, 3, max_iter=2, **options)
    caplog.clear()
    nmf(v, 3, max_iter=2, tol=0, **options)
    (numbers,) = logged(caplog, "plan")
    assert (planned.panels, planned.pass_bytes) == (numbers["panels"], numbers["bytes"])
    assert (planned.reads, planned.models) == (numbers["reads"], numbers["models"])
    assert f"up to {planned.worker_bytes // 2**20} MiB" in caplog.text
    assert planned.panels > 1
    assert planned.probe is not None
    assert planned.pass_seconds is not None
    assert planned.most_seconds is not None
    assert 0 < planned.pass_seconds < planned.most_seconds
    assert planned.most_passes == 2
    assert repr(planned).startswith("Plan of ")


def test_the_plan_on_a_cluster_is_that_of_the_fit(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dask_nmf")
    planned = plan(V, 3, probe=False)
    assert (planned.workers, planned.threads, planned.memory_limit) == (2, 1, None)
    assert planned.probe is planned.pass_seconds is planned.most_seconds is None
    caplog.clear()
    nmf(V, 3, max_iter=1)
    assert f"up to {planned.worker_bytes // 2**20} MiB" in caplog.text


@pytest.mark.usefixtures("several_panels")
def test_the_plan_of_a_selection_is_that_of_its_models(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dask_nmf")
    planned = plan(V, ranks="2:4", n_init=2, folds=2, holdout=0.1)
    caplog.clear()
    select_rank(V, "2:4", n_init=2, folds=2, holdout=0.1, max_iter=1)
    numbers = logged(caplog, "plan")[0]
    assert (planned.panels, planned.models, planned.reads) == (numbers["panels"], 12, numbers["reads"])
    assert planned.groups == ((2,) * 4 + (3,) * 4 + (4,) * 4,)
    assert planned.probe is not None
    assert planned.probe.models == 12


def test_models_that_do_not_share_a_read_are_in_groups() -> None:
    v = da.ones((200_000, 2000), chunks=(2000, -1), dtype="float32")
    few, more = (
        plan(v, ranks="2:40", workers=2, threads_per_worker=1, memory_limit=limit, probe=False)
        for limit in (GIB, 8 * GIB)
    )
    assert few.models == more.models == 39 * 5 == sum(map(len, few.groups))
    assert few.reads == len(few.groups) > 1 == more.reads
    assert few.pass_bytes == few.reads * more.pass_bytes
    assert few.worker_bytes <= 0.7 * GIB < more.worker_bytes
    assert any("share each read" in sentence for sentence in few.advice)


@pytest.mark.parametrize("limit", [GIB // 2, GIB])
def test_a_matrix_that_fits_no_worker_is_refused_as_in_the_fit(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = da.ones((20_000, 20_000), chunks=(20_000, 500))
    with pytest.raises(MemoryError) as ours:
        plan(v, 50, workers=1, threads_per_worker=4, memory_limit=limit, solver="mu")
    monkeypatch.setattr(partition, "resources", lambda: Resources(limit, 4, 1))
    with pytest.raises(MemoryError) as theirs:
        nmf(v, 50, solver="mu")
    assert str(ours.value) == str(theirs.value)
    assert "the smallest panel does not fit" in str(ours.value)


def test_a_matrix_is_cut_both_ways_where_the_fit_cuts_it() -> None:
    v = da.ones((40_000, 40_000), chunks=(1000, 1000), dtype="float32")
    planned = plan(v, 20, workers=2, threads_per_worker=1, memory_limit="700MiB", probe=False)
    tiling = partition.grid.plan_grid(
        partition.worker_memory.Layout(40_000, 40_000, 4, 1000, 4_000_000, False, chunk_columns=1000),
        20,
        700 * 2**20,
        1,
    )
    assert planned.cut == "blocks"
    assert planned.panels == tiling.shape[0] * tiling.shape[1]
    assert (planned.reads, planned.pass_bytes) == (tiling.reads, tiling.pass_bytes)


def test_a_block_is_read_where_v_is_cut_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_both_ways(monkeypatch, (0, 20, 40, 60), (0, 5, 12), 2)
    planned = plan(da.from_array(V, chunks=(20, 4)), 3)
    assert (planned.cut, planned.panels, planned.tasks) == ("blocks", 6, 12)
    assert planned.probe is not None
    assert planned.probe[:2] == (20, 7)


def test_one_panel_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition.row_panels, "_edges", lambda *_: EDGES)
    planned = plan(counted_matrix(), 3)
    assert dict(READS) == {(33, 40): 1}
    assert planned.probe is not None
    assert planned.probe[:3] == (7, 12, 7 * 12 * 8)
    READS.clear()
    plan(counted_matrix(), 3, probe=False)
    assert not READS


@pytest.mark.usefixtures("several_panels")
def test_a_pass_has_the_tasks_of_all_panels_and_one_update() -> None:
    planned = plan(V, 3, workers=1, threads_per_worker=2)
    assert planned.probe is not None
    panels = V.nbytes / planned.probe.bytes
    tasks = (planned.probe.read_seconds + planned.probe.compute_seconds) * panels / 2
    assert planned.first_pass_seconds == pytest.approx(tasks + planned.probe.update_seconds)


def test_a_range_of_passes_is_shown_where_it_is_one() -> None:
    assert "typically" in repr(plan(V, 3))
    assert "typically" not in repr(plan(V, 3, max_iter=2))


@pytest.mark.usefixtures("several_panels")
def test_a_bad_entry_of_the_panel_is_named_as_in_the_fit() -> None:
    bad = V.copy()
    bad[33, 5] = -1
    with pytest.raises(dask_nmf.errors.InvalidEntryError) as ours:
        plan(bad, 3)
    with pytest.raises(dask_nmf.errors.InvalidEntryError) as theirs:
        nmf(bad, 3)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.usefixtures("several_panels")
def test_a_panel_without_entries_gives_no_seconds() -> None:
    empty = V.copy()
    empty[20:45] = np.nan
    assert plan(empty, 3, missing="nan").pass_seconds is None
    assert plan(np.zeros((60, 12)), 3).pass_seconds is not None


@pytest.mark.parametrize("sizes", [(None, None), (3, None), (None, 2), (2, 3)])
@pytest.mark.parametrize("limit", [None, 600 * 2**20])
def test_workers_are_planned_as_they_are_started(
    sizes: tuple[int | None, int | None], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, Any] = {}
    monkeypatch.setattr(SpecCluster, "__init__", lambda self, **options: started.update(options))
    monkeypatch.setattr(LocalCluster, "__del__", lambda self: None)
    LocalCluster(
        None, *sizes, memory_limit=limit or "auto", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    planned, options = local_workers(*sizes, limit), started["worker"]["options"]
    assert (planned.workers, planned.threads) == (len(started["workers"]), options["nthreads"])
    memory = partition.MEMORY_LIMIT * min(1, planned.threads / dask_nmf.cluster.backends.local.CPU_COUNT)
    assert planned.memory_limit == (int(memory) if limit is None else limit)


@pytest.mark.parametrize("options", [{}, {"n_components": 3, "ranks": 4}])
def test_a_rank_or_ranks_are_needed(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give n_components for the plan of a fit, or ranks"):
        plan(V, **options)
    with pytest.raises(TypeError, match="give n_components=3"):
        plan(V, rank=3)  # type: ignore[call-arg]


def test_advice_names_a_command_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "v.zarr"
    v = np.random.default_rng(0).random((4000, 200))
    zarr.create_array(path, data=v, chunks=(5, 200))
    first = plan(str(path), 5, probe=False)
    command, _ = (sentence for sentence in first.advice if "convert" in sentence or "float32" in sentence)
    words = command.partition(": dask-nmf ")[2].split()
    assert words[0] == "convert"
    app(words, standalone_mode=False)
    assert len(plan(words[2], 5, probe=False, dtype="float32").advice) == 0
