"""Outputs at places that workers do not share with this process: refused before the first read."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client
from support.command import Forks
from support.fits import Cluster, begin, cluster, ends_well, refused
from support.matrices import low_rank
from support.servers import needs, process

from dask_nmf import Run, nmf
from dask_nmf.cli.process.exit_codes import exit_code
from dask_nmf.cluster import sharing
from dask_nmf.cluster.sharing import check_shared, shares_this_disk
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.storage.locations import Location, locate

V = low_rank(120, 12, 3)
Answer = Callable[[str, str, str], str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run in a folder with nothing else."""
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "run.zarr"


def elsewhere(place: Location) -> Location:
    """A place of the same name in another folder, as another machine has it."""
    assert place.path is not None
    other = place.path.parents[1] / "of another machine"
    other.mkdir(exist_ok=True)
    return locate(other / place.path.name)


def sees_nothing(place: Location, name: str, text: str) -> str:
    return sharing.ProbeFiles(elsewhere(place)).read(name)


def sees_another(place: Location, name: str, text: str) -> str:
    return ANSWER(place, name, "of another fit")


def writes_elsewhere(place: Location, name: str, text: str) -> str:
    assert sharing.ProbeFiles(place).read(name) == text
    return sharing.ProbeFiles(elsewhere(place)).write(sharing.answer_text(text))


def may_not_write(place: Location, name: str, text: str) -> str:
    raise PermissionError(13, "Permission denied", place.name)


ANSWER = sharing.answer_probe
STRANGERS = {
    sees_nothing: "it sees other files there",
    sees_another: "it sees other files there",
    writes_elsewhere: "it sees other files there",
    may_not_write: "Permission denied",
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_place_that_workers_do_not_share_is_refused_and_nothing_left_there(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch, stranger: Answer
) -> None:
    monkeypatch.setattr(sharing, "answer_probe", stranger)
    with pytest.raises(ValueError, match=r"^the worker at .* does not share .*outputs with") as told:
        nmf(V, 3, store=place)
    assert STRANGERS[stranger] in str(told.value)
    assert exit_code(told.value) == 2
    assert not list(place.parent.iterdir())


def test_a_place_that_workers_share_has_no_note_left(client: Client, place: Path) -> None:
    check_shared(locate(place))
    assert not list(place.parent.iterdir())
    assert nmf(V, 3, store=place, max_iter=2).n_iter == 2
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_disk_that_is_full_is_no_other_disk(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Location, name: str, text: str) -> str:
        raise OSError(28, "No space left on device", place.name)

    monkeypatch.setattr(sharing, "answer_probe", full)
    with pytest.raises(OSError, match="No space left") as refused:
        check_shared(locate(place))
    assert exit_code(refused.value) == 74
    assert list(place.parent.iterdir()) == []


def test_threads_of_this_process_are_not_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "ProbeFiles", None)
    check_shared(locate(place))
    assert shares_this_disk()


def test_a_run_that_goes_on_where_workers_do_not_share_it_stays_as_it_is(
    client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        nmf(V, 3, store=place, max_iter=4, tol=0, callback=interrupt)
    before, record = times(place), Run.load(place).record
    with monkeypatch.context() as patch:
        patch.setattr(sharing, "answer_probe", sees_nothing)
        with pytest.raises(ValueError, match="does not share"):
            nmf(V, 3, store=place, max_iter=4, tol=0)
    assert times(place) == before
    assert {**Run.load(place).record, "writer": record["writer"]} == record
    assert nmf(V, 3, store=place, max_iter=4, tol=0).n_iter == 4


def times(run: Path) -> dict[Path, int]:
    """When the files of a run were written, but for its root, which names who writes."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "zarr.json")
    return {path: path.stat().st_mtime_ns for path in files}


def interrupt(step: object) -> None:
    raise KeyboardInterrupt


def test_an_output_of_transform_is_refused_too(
    client: Client, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run.zarr"
    nmf(V, 3, store=run, max_iter=2)
    monkeypatch.setattr(sharing, "answer_probe", sees_nothing)
    with pytest.raises(ValueError, match="does not share"):
        transform_to(locate(run), V, locate(place), False, lambda matrix: nullcontext())
    assert not [path for path in place.parent.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("solver", ["mu", "sgd"])
def test_a_factor_that_is_carried_on_disk_needs_workers_that_share_it(
    client: Client, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    """A scheduler at a loopback address tells nothing of its workers: it may be the end of a tunnel."""
    assert shares_this_disk()
    monkeypatch.setattr(sharing, "answer_probe", sees_nothing)
    with pytest.raises(ValueError, match=r"workers are on other machines; give store="):
        nmf(V, 3, solver=solver)


@pytest.fixture
def boxed(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler at a loopback address, and a worker that has two folders of its own."""
    with cluster(tmp_path) as servers, ExitStack() as stack:
        servers.scheduler()
        box = ["bwrap", "--dev-bind", "/", "/"]
        for hidden in ("outputs", "temporary"):
            (tmp_path / hidden).mkdir(exist_ok=True)
            box += ["--tmpfs", str(tmp_path / hidden)]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", servers.address, "--nthreads", "1"]
        worker += ["--memory-limit", "1GiB", "--no-dashboard", "--local-directory", str(tmp_path / "worker")]
        stack.enter_context(process(*box, *worker, log=tmp_path / "worker.log", cwd=tmp_path))
        yield servers


@pytest.mark.real
@needs("bwrap")
def test_a_worker_with_folders_of_its_own(
    tmp_path: Path, boxed: Cluster, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=V, chunks=(40, 12))
    for solver in ("hals", "mu", "sgd"):
        fit = begin(tmp_path, "outputs/run.zarr", solver, 2, "--scheduler", boxed.address)
        refused(fit, 2, "does not share", str(tmp_path / "outputs"))
        assert not os.listdir(tmp_path / "outputs")
    ends_well(begin(tmp_path, "run.zarr", "mu", 2, "--scheduler", boxed.address))
    (tmp_path / "run.zarr").rename(tmp_path / "outputs" / "run.zarr")  # whose W the worker does not see
    words = ["outputs/run.zarr", "v.zarr", "--output", "best.csv", "--scheduler", boxed.address]
    told = forks.call(["recommend", *words], tmp_path)
    assert told.returncode == 3, told.stderr
    assert "does not see" in told.stderr.splitlines()[-1]
    assert not (tmp_path / "best.csv").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with Client(boxed.address), pytest.raises(ValueError, match="workers are on other machines"):
        nmf(np.asarray(V), 3, solver="mu")
