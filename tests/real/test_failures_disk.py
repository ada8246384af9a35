"""Disks that are full, read-only or gone under a fit, for real: small ones, mounted for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.fits import Fit, begin, cluster, ends_well, frozen, make_v, refused, same_factors, wait_for
from support.servers import needs

pytestmark = needs("mount", root=True)
PASSES = 40
HERE = ("--cache", "off")  # in the threads of the command, reading V anew
CARRIES = ("mu", PASSES, *HERE)  # its W is written in each pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small V, and what undisturbed fits make of it."""
    folder = tmp_path_factory.mktemp("disks")
    make_v(folder / "v.zarr", 4000)
    ends_well(begin(folder, "hals.zarr", "hals", PASSES, *HERE))
    ends_well(begin(folder, "mu.zarr", *CARRIES))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def disk(place: Path, size: str = "20m") -> Iterator[Path]:
    """A disk of its own, mounted in a folder."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def fill(place: Path) -> Path:
    """Take all of the room that is left on a disk."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filler


@contextmanager
def at_work(folder: Path, *asked: str | int) -> Iterator[Fit]:
    """A fit after its second pass, that stands still."""
    fit = begin(folder, *asked, held=f"pass {PASSES - 1}")  # type: ignore[arg-type]
    wait_for(fit, "pass", 2)
    with frozen(fit):
        yield fit


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_the_disk_of_the_run_is_full_for_a_while(solver: str, folder: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk"):
        shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
        asked = ("disk/run.zarr", solver, PASSES, *HERE)
        with at_work(tmp_path, *asked) as fit:
            filler = fill(tmp_path / "disk")
        refused(fit, 74, "No space left", "run the same command again")
        refused(begin(tmp_path, *asked), 74, "No space left")
        filler.unlink()
        ends_well(begin(tmp_path, *asked))
        same_factors(tmp_path / "disk" / "run.zarr", folder / f"{solver}.zarr")


def test_the_disk_of_the_run_is_read_only_for_a_while(folder: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk"):
        shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
        asked = ("disk/run.zarr", "hals", PASSES, *HERE)
        with at_work(tmp_path, *asked) as fit:
            # the command holds the lock's file open, so the disk itself cannot be remounted
            subprocess.run(["mount", "--bind", tmp_path / "disk", tmp_path / "disk"], check=True)
            remount(tmp_path / "disk", "bind,ro")
        refused(fit, 74, "Read-only", "run the same command again")
        subprocess.run(["umount", tmp_path / "disk"], check=True)
        ends_well(begin(tmp_path, *asked))
        same_factors(tmp_path / "disk" / "run.zarr", folder / "hals.zarr")


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_the_run_is_deleted_under_the_fit(solver: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
    asked = ("run.zarr", solver, PASSES, *HERE)
    with at_work(tmp_path, *asked) as fit:
        shutil.rmtree(tmp_path / "run.zarr")
    refused(fit, 2, "run.zarr", "damaged", "begin anew")
    assert not list(tmp_path.glob("run.zarr/**/zarr.json"))  # workers may have written chunks of mu's W
    shutil.rmtree(tmp_path / "run.zarr", ignore_errors=True)
    ends_well(begin(tmp_path, *asked))
    same_factors(tmp_path / "run.zarr", folder / f"{solver}.zarr")


def test_the_disk_of_v_is_full_and_then_gone(folder: Path, tmp_path: Path) -> None:
    asked = ("run.zarr", "hals", PASSES, *HERE)
    with disk(tmp_path / "disk") as place:
        shutil.copytree(folder / "v.zarr", place / "v.zarr")
        (tmp_path / "v.zarr").symlink_to(place / "v.zarr")
        fill(place)
        remount(place, "ro")
        with at_work(tmp_path, *asked) as fit:
            subprocess.run(["umount", "--lazy", place], check=True)
        refused(fit, 3, "cannot be read")
        subprocess.run(["mount", "--bind", folder, place], check=True)
        ends_well(begin(tmp_path, *asked))
        same_factors(tmp_path / "run.zarr", folder / "hals.zarr")


def test_the_disk_for_temporary_files_is_full(folder: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "64k") as place:
        fill(place)
        fit = begin(folder, "temporary.zarr", DASK_TEMPORARY_DIRECTORY=str(place))
        refused(fit, 74, "No space left", "run the same command again")


def test_the_disk_that_workers_spill_to_is_full(folder: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = stack.enter_context(disk(tmp_path / "disk", "200k"))
        servers = stack.enter_context(cluster(tmp_path))
        shutil.copytree(folder / "v.zarr", tmp_path / "v.zarr")
        servers.scheduler()
        os.environ["DASK_DISTRIBUTED__WORKER__MEMORY__TARGET"] = (
            "0.0001"  # of a worker's memory: all is spilled
        )
        stack.callback(os.environ.pop, "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET")
        worker = servers.ready_worker("--no-nanny", "--local-directory", str(place))
        fit = begin(tmp_path, "run.zarr", "hals", 20, "--scheduler", servers.address, held="pass 19")
        wait_for(fit, "pass", 2)
        fill(place)
        ends_well(fit)
        assert worker.poll() is None
