"""Schedulers and workers that are started by hand: with TLS, without this package, of another version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client
from support.command import Forks
from support.docs import ROOT, blocks, commands, shell
from support.fits import begin, cluster, ends_well, frozen, make_v, wait_for
from support.servers import PATIENCE, is_whole_json, needs, process, until

import dask_nmf
from dask_nmf import nmf
from dask_nmf.cluster import versions

SITE = Path(np.__file__).parents[1]
SCHEDULER = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
WORKER = ["-m", "distributed.cli.dask_worker", "--nthreads", "1", "--memory-limit", "1GiB", "--no-dashboard"]
FILE = ["--scheduler-file", "scheduler.json"]

Fit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a V, and the configurations."""
    (tmp_path / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((300, 40)))
    return tmp_path


@pytest.fixture
def fit(folder: Path, forks: Forks) -> Fit:
    """Call the command there."""

    def call(output: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        told = ["fit", "v.npy", "--rank", "3", "--output", output, "--tol", "0", "--max-iter", "3", *words]
        return forks.call(told, folder, **environment)

    return call


def last_line(told: subprocess.CompletedProcess[str], code: int) -> str:
    """What a command that failed says."""
    assert told.returncode == code, told.stderr
    assert "Traceback" not in told.stderr
    return told.stderr.strip().splitlines()[-1]


@contextmanager
def started(
    folder: Path, scheduler: list[str], *workers: list[str], **environment: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """A scheduler that has written its file, and workers, by their Pythons."""
    more = {"cwd": folder, "env": os.environ | environment}
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    with process(*scheduler, *SCHEDULER, *FILE, log=folder / "scheduler.log", **more):
        until(lambda: is_whole_json(file))
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    process(*python, *WORKER, *FILE, log=folder / f"worker-{number}.log", **more)
                )
                for number, python in enumerate(workers)
            ]


@pytest.mark.parametrize(("kind", "block"), [("local", 0), ("scheduler", 1)])
def test_the_commands_of_the_pages(folder: Path, kind: str, block: int) -> None:
    zarr.create_array(folder / "V.zarr", data=np.load(folder / "v.npy"), chunks=(100, 40))
    page = ROOT / "cluster_configs" / kind / "README.md"
    assert "run.zarr: relative error" in shell(commands(blocks(page, "console")[block]), folder)


@needs("openssl")
def test_tls_lets_in_who_has_a_certificate_and_nobody_else(folder: Path, fit: Fit) -> None:
    script = folder / "cluster_configs" / "scheduler" / "certificates.sh"
    for place in ("certificates", "others"):
        subprocess.run(
            ["sh", script, place, "127.0.0.1", "localhost"], cwd=folder, check=True, capture_output=True
        )
    subprocess.run(["sh", script, "certificates", "localhost"], cwd=folder, check=True, capture_output=True)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (folder / "certificates").iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith("-key.pem")} == {0o600}
    tls = {"DASK_CONFIG": "cluster_configs/scheduler"}
    plain = {"DASK_CONFIG": "cluster_configs/scheduler/dask.yaml"}
    python = [sys.executable]
    with started(folder, python, python, **tls):
        address = json.loads((folder / "scheduler.json").read_text())["address"]
        assert address.startswith("tls://127.0.0.1")
        told = fit("run.zarr", *FILE, **tls)
        assert told.returncode == 0, told.stderr
        assert "TLS" not in told.stderr
        bare = address.replace("tls://", "tcp://")
        assert "for want of TLS" in last_line(fit("x.zarr", "--scheduler", bare, **plain), 2)
        assert "encryption" in last_line(fit("x.zarr", "--scheduler", bare, **tls), 2)
        (folder / "certificates").rename(folder / "ours")
        (folder / "others").rename(folder / "certificates")
        line = last_line(fit("x.zarr", *FILE, **tls), 2)
        assert "certificate does not match" in line
        shutil.copy(folder / "ours" / "ca.pem", folder / "certificates")  # now it trusts them
        assert "cannot connect" in last_line(fit("x.zarr", *FILE, **tls), 2)
    expected = nmf(folder / "v.npy", 3, tol=0, max_iter=3)
    run = zarr.open_group(folder / "run.zarr", mode="r")
    np.testing.assert_allclose(run["H"][:], expected.H, rtol=1e-6)
    assert not (folder / "x.zarr").exists()


def site(folder: Path, *without: str) -> list[str]:
    """A Python that has the packages of this one but for some, and this package only where it is sent."""
    folder.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.startswith((*without, "__editable__", "_editable")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-S"]


def test_workers_without_this_package_are_named_or_sent_it(folder: Path, fit: Fit) -> None:
    bare = site(folder / "site", "dask_nmf")
    missing = subprocess.run(
        [*bare, "-c", "import dask_nmf"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert "No module named 'dask_nmf'" in missing.stderr
    with started(folder, bare, bare) as (worker,):
        line = last_line(fit("run.zarr", *FILE), 2)
        assert "scheduler lacks the package dask_nmf" in line
        assert "--upload-package" in line
        told = fit("run.zarr", *FILE, "--upload-package")
        assert told.returncode == 0, told.stderr
        worker.terminate()
        worker.wait(PATIENCE)
        later = {"cwd": folder, "env": os.environ | {"NUMBA_DISABLE_JIT": "1"}}  # or it would compile anew
        with (
            process(*bare, *WORKER, *FILE, log=folder / "later.log", **later),
            Client(scheduler_file=folder / "scheduler.json") as client,
        ):
            client.wait_for_workers(1, timeout=PATIENCE)
            versions.check(client)
            client.restart(timeout=PATIENCE)
            versions.check(client)
            told = fit("later.zarr", *FILE)
            assert told.returncode == 0, told.stderr
    with started(folder, [sys.executable], bare):
        line = last_line(fit("x.zarr", *FILE), 2)
        assert "the worker at tcp://127.0.0.1:" in line
    one, other = (zarr.open_group(folder / f"{name}.zarr", mode="r")["H"][:] for name in ("run", "later"))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_worker_without_this_package_joins(tmp_path: Path) -> None:
    bare = site(tmp_path / "site", "dask_nmf")
    make_v(tmp_path / "v.zarr")
    with cluster(tmp_path) as servers:
        servers.scheduler()
        servers.worker()
        fit = begin(tmp_path, "run.zarr", "hals", 60, "--scheduler", servers.address, "--cache", "off")
        wait_for(fit, "pass", 2)
        joins = [*WORKER, servers.address, "--no-nanny"]
        with process(*bare, *joins, log=tmp_path / "bare.log", cwd=tmp_path) as worker:
            with frozen(fit), Client(servers.address) as client:
                client.wait_for_workers(2, timeout=PATIENCE)
            worker.wait(PATIENCE)  # Dask ends it when it cannot read its first task, which is of this fit
            ends_well(fit)
    log = (tmp_path / "bare.log").read_text()
    assert "No module named 'dask_nmf'" in log


def test_other_versions_are_told_or_refused(folder: Path, fit: Fit) -> None:
    old, new = site(folder / "old", "dask_nmf", "zarr"), site(folder / "new", "dask_nmf", "zarr")
    for name in ("old", "new"):
        shutil.copytree(Path(dask_nmf.__file__).parent, folder / name / "dask_nmf")
    shutil.copytree(SITE / "zarr", folder / "new" / "zarr")
    (described,) = SITE.glob("zarr-*.dist-info")
    shutil.copytree(described, folder / "new" / described.name)
    metadata = folder / "new" / described.name / "METADATA"
    metadata.write_text(metadata.read_text().replace("\nVersion: ", "\nVersion: 1", 1))
    with started(folder, [sys.executable], new):
        address = json.loads((folder / "scheduler.json").read_text())["address"]
        everywhere = address.replace(
            "127.0.0.1", "0.0.0.0"
        )  # Linux: this machine, though it does not look so
        told = fit("run.zarr", "--scheduler", everywhere)
        assert told.returncode == 0, told.stderr
        differing = [line for line in told.stderr.splitlines() if "versions differ" in line]
        assert len(differing) == 1
        assert (
            f"zarr is {zarr.__version__} here and 1{zarr.__version__} on the worker at tcp://" in differing[0]
        )
        assert len([line for line in told.stderr.splitlines() if "without TLS" in line]) == 1
    with started(folder, [sys.executable], old):
        assert "lacks the package zarr" in last_line(fit("x.zarr", *FILE), 2)
    package = folder / "new" / "dask_nmf" / "_version.py"
    package.write_text(package.read_text().replace('__version__ = "', '__version__ = "9'))
    with started(folder, [sys.executable], new):
        line = last_line(fit("x.zarr", *FILE), 2)
        assert f"has dask_nmf 9{dask_nmf.__version__}, and this process {dask_nmf.__version__}" in line
