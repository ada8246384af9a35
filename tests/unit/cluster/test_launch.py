"""Where a fit runs: what is asked for, what the cluster must have, who can reach it."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from support.command import Forks

from dask_nmf import nmf
from dask_nmf.cluster import config, versions
from dask_nmf.cluster.backends import local
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.cluster.watch import ENDED_FOR_MEMORY
from dask_nmf.errors import NoWorkers
from dask_nmf.execution.partition import resources

FIT = ["fit", "v.npy", "--rank", "3", "--output", "run.zarr", "--max-iter", "2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a V."""
    np.save(tmp_path / "v.npy", np.random.default_rng(0).random((60, 20)))
    return tmp_path


def refused(forks: Forks, folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """The exit code of a command that fails, and its line."""
    told = forks.call([*FIT, *words], folder, **environment)
    assert "Traceback" not in told.stderr
    assert not (folder / "run.zarr").exists()
    return told.returncode, told.stderr.strip().splitlines()[-1]


def test_keys_come_from_yaml_and_the_environment() -> None:
    assert config.read() == config.Configuration()
    given = {"cluster": "ssh", "workers": 3, "wait": "2 minutes", "ssh": {"remote-python": "python3"}}
    with dask.config.set({"dask-nmf": given}):
        found = config.read()
    assert (found.cluster, found.workers, found.wait) == ("ssh", 3, 120)
    assert found.ssh == {"remote_python": "python3"}
    environment = {"DASK_DASK_NMF__WAIT": "5", "DASK_DASK_NMF__SSH__HOSTS": "['a', 'b']"}
    with dask.config.set(dask.config.collect_env(environment)):
        assert config.read().wait == 5
        assert config.read().ssh["hosts"] == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"worker": 3}, ["dask_nmf.worker,", "workers", "ssh.hosts"]),
        ({"ssh": {"port": 22}}, ["dask_nmf.ssh.port,", "ssh.connect_options"]),
        ({"wait": "long"}, ["dask_nmf.wait", "5 minutes"]),
        ({"workers": "many"}, ["dask_nmf.workers", "many"]),
        ("slurm", ["keys and values"]),
    ],
)
def test_keys_that_are_not_known_are_refused(given: object, words: list[str]) -> None:
    with dask.config.set({"dask_nmf": given}), pytest.raises(ValueError, match=r"dask_nmf") as error:
        config.read()
    assert all(word in str(error.value) for word in words)


CALLS = {
    "a scheduler and a cluster": (
        ["--cluster", "local", "--scheduler", "tcp://127.0.0.1:1"],
        {},
        "leave one",
    ),
    "a size that is none": (["--cluster", "local", "--memory-limit", "much"], {}, "is no size"),
    "a size without end": (["--cluster", "local", "--memory-limit", "1e400GB"], {}, "is no size"),
    "no memory": (
        ["--workers", "1", "--memory-limit", "0"],
        {},
        "is 0 MiB, and a worker needs at least 458 MiB",
    ),
    "less than no memory": (["--workers", "1", "--memory-limit", "-1GiB"], {}, "at least 458 MiB"),
    "memory that no worker lives on": (
        ["--workers", "1", "--memory-limit", "50MiB"],
        {},
        "is 50 MiB, and a worker needs at least 458 MiB",
    ),
    "such memory by SSH": (
        ["--cluster", "ssh", "--memory-limit", "50MiB"],
        {},
        "is 50 MiB, and a worker needs at least 458 MiB",
    ),
    "no workers": (["--workers", "0"], {}, "--workers"),
    "no threads": (["--threads-per-worker", "0"], {}, "--threads-per-worker"),
    "no workers in the configuration": ([], {"DASK_DASK_NMF__WORKERS": "0"}, "dask_nmf.workers is 0"),
    "no hosts": (["--cluster", "ssh"], {}, "dask_nmf.ssh.hosts"),
    "no number of jobs": (["--cluster", "slurm"], {}, "--workers"),
    "memory of a job": (["--cluster", "slurm", "--memory-limit", "1GiB"], {}, "jobqueue.slurm"),
    "no SLURM": (["--cluster", "slurm", "--workers", "2"], {"PATH": "/nowhere"}, "sbatch"),
    "a kind of its own": ([], {"DASK_DASK_NMF__CLUSTER": "cloud"}, "local, ssh, slurm"),
    "an unknown key": ([], {"DASK_DASK_NMF__WORKER": "3"}, "dask_nmf.worker,"),
}


@pytest.mark.parametrize("case", CALLS)
def test_what_does_not_go_together_is_refused(forks: Forks, folder: Path, case: str) -> None:
    words, environment, word = CALLS[case]
    code, line = refused(forks, folder, *words, **environment)
    assert code == 2
    assert word in line


def test_workers_that_are_too_small_are_refused_by_address() -> None:
    """Of a running cluster: what a worker needs is known before it is given anything."""
    small = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "memory_limit": "100MiB"}
    with LocalCluster(**small, dashboard_address="127.0.0.1:0") as running, Client(running):
        (address,) = running.scheduler.workers
        said = f"the memory limit of the worker at {address} is 100 MiB, and a worker needs at least 458 MiB"
        with pytest.raises(MemoryError, match=re.escape(said)):
            nmf(np.ones((20, 5)), 2)


def test_a_worker_that_is_gone_again_is_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    there, calls = client.scheduler_info, iter([{"workers": {}}])
    monkeypatch.setattr(client, "scheduler_info", lambda **how: next(calls, None) or there(**how))
    assert resources().workers == 2


def test_why_there_is_no_worker_is_said_once(cluster: LocalCluster) -> None:
    """The nannies of workers tell the scheduler that they end them, and how large they were."""
    empty = {"n_workers": 0, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**empty) as running, Client(running) as client, dask.config.set({"dask_nmf.wait": 0.2}):
        with pytest.raises(NoWorkers, match=r"had no worker for 0\.2 s \(dask_nmf\.wait\); start workers"):
            nmf(np.ones((20, 5)), 2)
        for size in 150, 200:
            client.log_event(ENDED_FOR_MEMORY, {"worker": "tcp://a", "pid": 1, "rss": size * 2**20})
        with pytest.raises(
            NoWorkers, match=r"2 were ended as they took more .*, the largest 200 MiB; give each"
        ):
            nmf(np.ones((20, 5)), 2)


def test_more_memory_than_the_machine_has_is_told(caplog: pytest.LogCaptureFixture) -> None:
    local._warn_if_too_much(2, local.MEMORY_LIMIT // 2)
    local._warn_if_too_much(None, None)
    assert not caplog.records
    local._warn_if_too_much(2, local.MEMORY_LIMIT)
    assert f"--memory-limit {local.MEMORY_LIMIT // 2**21}MiB or less" in caplog.text


@pytest.mark.parametrize(("module", "kind"), [("asyncssh", "ssh"), ("dask_jobqueue", "slurm")])
def test_an_extra_that_is_not_installed_is_named(forks: Forks, folder: Path, module: str, kind: str) -> None:
    (folder / "sbatch").touch(0o755)
    script = f"import sys; sys.modules[{module!r}] = None; from dask_nmf.cli.main import main; main()"
    (folder / "without.py").write_text(script)
    words = ["without.py", *FIT, "--cluster", kind, "--workers", "1"]
    told = forks.run(words, folder, PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert told.returncode == 2, told.stderr
    assert told.stderr.strip().splitlines()[-1].endswith(f"pip install 'dask_nmf[{kind}]'")


def test_who_does_not_come_in_time_is_waited_for_no_longer(forks: Forks, folder: Path) -> None:
    short = {"DASK_DASK_NMF__WAIT": "0.5", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    code, line = refused(forks, folder, "--scheduler-file", "nothing.json", **short)
    assert code == 75
    assert "nothing.json" in line
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes the connection and says nothing
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        (folder / "scheduler.json").write_text(json.dumps({"address": address}))
        code, line = refused(forks, folder, "--scheduler-file", "scheduler.json", **short)
    assert code == 75
    assert address in line


HERE = {"python": "3.11.2.final.0", "dask": "2026.8.0", "numpy": "2.4.6", "zarr": "3.1.6", "lz4": "4.3"}


def test_versions_that_differ_are_told_in_a_line() -> None:
    same, near = {**HERE, "lz4": "4.0"}, {**HERE, "python": "3.11.9.final.0", "zarr": "3.1.0"}
    assert versions.difference(HERE, {"the scheduler": HERE, "the worker at A": same}) is None
    line = str(versions.difference(HERE, {"the scheduler": HERE, "the worker at A": near}))
    assert "\n" not in line
    assert "zarr is 3.1.6 here and 3.1.0 on the worker at A" in line
    assert "python is 3.11.2" in line
    other = {name: f"{version}1" for name, version in HERE.items()}
    assert "(and 1 more)" in str(versions.difference(HERE, {"the scheduler": other}))


@pytest.mark.parametrize(
    ("other", "word"),
    [({"python": "3.12.1.final.0"}, "Python 3.12,"), ({"zarr": None}, "install zarr 3.1.6")],
)
def test_versions_that_cannot_work_are_refused(other: dict[str, str | None], word: str) -> None:
    with pytest.raises(ValueError, match=r"^the worker at A") as error:
        versions.difference(HERE, {"the worker at A": {**HERE, **other}})
    assert word in str(error.value)


def listening() -> set[tuple[int, str, int]]:
    """Sockets of this process and its children."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        (process.pid, *found.laddr)
        for process in family
        for found in process.net_connections()
        if found.status == "LISTEN"
    }


def test_a_local_cluster_listens_on_the_loopback_interface_only() -> None:
    before = listening()  # those of other tests
    with local_cluster(2, 1, None):
        found = listening() - before
    assert len(found) >= 6  # scheduler and dashboard; of both workers: nanny, worker, its pages
    assert {address for _, address, _ in found} == {"127.0.0.1"}
