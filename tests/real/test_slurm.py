"""`--cluster slurm` and the job that queues itself again, on a real SLURM."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from support.command import COMMAND
from support.docs import ENVIRONMENT, ROOT, bash, blocks, commands
from support.servers import needs, until
from support.signals import is_pending
from support.slurm import slurm, told

from dask_nmf import Result, nmf
from dask_nmf.cluster.backends.local import local_cluster

PAGE = ROOT / "cluster_configs" / "slurm" / "README.md"
MORE = ["--tol", "0", "--max-iter", "60", "--log-format", "json"]

pytestmark = [pytest.mark.timeout(1200), needs("slurmctld", "slurmd", "munged", root=True)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """That of the commands of a SLURM."""
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        ours = {
            "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "2s",
            "DASK_JOBQUEUE__SLURM__INTERFACE": "lo",
            "NMF_ENVIRONMENT": sys.prefix,
        }
        yield ENVIRONMENT | environment | ours


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the V that the page speaks of, in 40 panels."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size) for size in ((8000, 5), (5, 500)))
    v = ((w @ h) * rng.random((8000, 500))).astype(np.float32)
    zarr.create_array(folder / "V.zarr", data=v, chunks=(200, 500))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Result:
    """The fit that nobody disturbs."""
    with local_cluster(2, 1, "2GiB"):
        return nmf(folder / "V.zarr", 5, tol=0, max_iter=60, store=folder / "whole.zarr")


def assert_same(run: Path, whole: Result) -> None:
    found = zarr.open_group(run, mode="r")
    for name in ("W", "H"):
        np.testing.assert_array_equal(found[name][:], getattr(whole, name))


def passes(run: Path) -> int:
    """What is committed."""
    try:
        return int(zarr.open_group(run, mode="r").attrs["dask_nmf"]["pass"] or 0)
    except FileNotFoundError:
        return 0


def tasks(folder: Path) -> list[psutil.Process]:
    """Return the processes of a job that are the scheduler, the command, or a worker."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or [""]
        ours = process.info["cwd"] == str(folder) and "job.zarr" in words
        found += [process] if ours and Path(words[0]).name.startswith("python") else []
    return found


def test_workers_that_are_jobs_come_back(folder: Path, environment: dict[str, str], whole: Result) -> None:
    configure, fit = commands(blocks(PAGE, "console")[0])
    with subprocess.Popen(
        bash([configure, " ".join([fit, *MORE])]),
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stderr is not None
        for line in command.stderr:
            if '"pass": 2,' in line:
                told(environment, "scancel", "--name=dask-worker")  # all that there are
                break
        log = command.stderr.read()
    assert command.returncode == 0, log
    assert "Traceback" not in log
    assert_same(folder / "run.zarr", whole)
    until(lambda: not told(environment, "squeue", "--noheader"))


def test_jobs_that_stay_queued_are_not_waited_for_without_end(
    folder: Path, environment: dict[str, str]
) -> None:
    short = {"DASK_DASK_NMF__WAIT": "2", "DASK_CONFIG": str(PAGE.parent / "dask.yaml")}
    for more, code, word in (
        ({"DASK_JOBQUEUE__SLURM__JOB_EXTRA_DIRECTIVES": "['--begin=now+1hour']"}, 75, "dask_nmf.wait"),
        ({"DASK_JOBQUEUE__SLURM__QUEUE": "nowhere"}, 2, "invalid partition"),
        ({"DASK_JOBQUEUE__SLURM__INTERFACE": "nowhere0"}, 2, "nowhere0"),
    ):
        done = subprocess.run(
            [*COMMAND, "fit", "V.zarr", "--rank", "5", "--output", "x.zarr"],
            cwd=folder, env=environment | short | more, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert word in done.stderr.strip().splitlines()[-1]
    until(lambda: not told(environment, "squeue", "--noheader"))


def test_a_job_that_is_stopped_queues_itself_again(
    folder: Path, environment: dict[str, str], whole: Result
) -> None:
    (submit,) = commands(blocks(PAGE, "console")[1])
    output = submit.replace("run.zarr", "job.zarr")
    done = subprocess.run(
        bash([" ".join([output, *MORE])]),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    job = re.findall(r"\d+", done.stdout)[0]
    until(lambda: passes(folder / "job.zarr") >= 2)
    stopped_tasks = tasks(folder)
    assert stopped_tasks
    for task in stopped_tasks:
        task.suspend()  # or the fit might end before the signal comes
    told(environment, "scancel", "--batch", "--signal=TERM", job)  # as SLURM does ahead of the limit
    until(lambda: all(is_pending(task.pid) for task in stopped_tasks))
    for task in stopped_tasks:
        task.resume()
    log = folder / f"dask-nmf-{job}.log"
    until(lambda: "interrupted; run the same command" in log.read_text())
    stopped = passes(folder / "job.zarr")
    assert 2 <= stopped < 60
    until(lambda: "JobState=COMPLETED" in told(environment, "scontrol", "show", "job", job))
    assert "Restarts=1" in told(environment, "scontrol", "show", "job", job)
    assert f"resuming {folder / 'job.zarr'} after pass" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert_same(folder / "job.zarr", whole)
    again = subprocess.run(
        bash([" ".join([output.replace("sbatch ", "sbatch --wait ", 1), "--seed", "1"])]),
        cwd=folder,
        env=environment,
        check=False,
    )
    assert again.returncode == 2  # the exit code of the command: the run is of another fit
