"""The files for SLURM, with programs that note how they are called in the place of SLURM's."""

from __future__ import annotations

import os
import subprocess
from datetime import date
from pathlib import Path

import dask
import dask_jobqueue
import pytest
import yaml
from support.docs import ROOT

FOLDER = ROOT / "cluster_configs" / "slurm"
FIT = ["fit", "V.zarr", "--rank", "20"]
SCONTROL = f"""#!/bin/bash
if [ $1 = show ]; then echo "   Command={FOLDER}/job.sbatch fit"; else echo "$@" >> calls; fi
"""
PYTHON = '#!/bin/bash\necho "$DASK_CONFIG $@" >> calls; exit $STATUS'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a node: programs of SLURM, and an environment of Python."""
    programs = {
        "sbatch": '#!/bin/bash\necho "$PWD $@" >> "$CALLS"',
        "srun": '#!/bin/bash\nshift; exec "$@"',
        "scontrol": SCONTROL,
        "python": PYTHON,
        "activate": f"PATH={tmp_path}/bin:$PATH",
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    ours = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "NMF_ENVIRONMENT": str(tmp_path)}
    return os.environ | ours | {"CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "7"}


def job(folder: Path, environment: dict[str, str], **more: str) -> tuple[int, str, str]:
    """Run the job: its exit code, what it called after its step, and its log."""
    told = subprocess.run(
        ["bash", FOLDER / "job.sbatch", *FIT],
        cwd=folder, env=environment | more, capture_output=True, text=True, check=False,
    )  # fmt: skip
    step = f"{FOLDER}/dask.yaml {FOLDER}/runner.py {' '.join(FIT)}\n"
    called = (folder / "calls").read_text()
    assert called.startswith(step)
    return told.returncode, called.removeprefix(step), told.stderr


@pytest.mark.parametrize(
    ("status", "code", "again"), [(0, 0, ""), (2, 2, ""), (75, 0, "requeue 7\n"), (143, 0, "requeue 7\n")]
)
def test_the_job_runs_from_any_folder(
    tmp_path: Path, environment: dict[str, str], status: int, code: int, again: str
) -> None:
    assert job(tmp_path, environment, STATUS=str(status))[:2] == (code, again)


@pytest.mark.parametrize("status", [75, 143])
@pytest.mark.parametrize(
    ("count", "bound", "again"),
    [(49, "", True), (50, "", False), (2, "3", True), (3, "3", False), (0, "0", False)],
)
def test_the_job_does_not_queue_itself_without_end(
    tmp_path: Path, environment: dict[str, str], status: int, count: int, bound: str, again: bool
) -> None:
    told = job(tmp_path, environment, STATUS=str(status), SLURM_RESTART_COUNT=str(count), NMF_RESTARTS=bound)
    assert told[:2] == ((0, "requeue 7\n") if again else (status, ""))
    assert again or f"exit code {status} after {count} restarts" in told[2]


def test_a_job_without_its_environment_ends_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    nowhere = environment | {"NMF_ENVIRONMENT": str(tmp_path / "nowhere")}
    told = subprocess.run(
        ["bash", FOLDER / "job.sbatch", *FIT], cwd=tmp_path, env=nowhere, capture_output=True, check=False
    )
    assert told.returncode == 2
    assert b"nowhere/bin/activate" in told.stderr
    assert not (tmp_path / "calls").exists()


def test_each_night_a_job_is_submitted_from_the_folder_of_v(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "data").mkdir()
    script = (FOLDER / "nightly.sh").read_text()
    subprocess.run(
        [FOLDER / "nightly.sh"], cwd="/", env=environment | {"NMF_FOLDER": str(tmp_path / "data")}, check=True
    )
    (dated,) = [line for line in script.splitlines() if "$(date" in line]
    text = subprocess.run(
        ["bash", "-c", f"echo {dated.split('--output ')[1]}"], capture_output=True, text=True, check=True
    )
    assert text.stdout == f"run-{date.today()}.zarr\n"
    place, *words = (tmp_path / "calls").read_text().split()
    assert place == str(tmp_path / "data")
    assert words[:3] == ["--job-name=nmf-nightly", "--dependency=singleton", f"{FOLDER}/job.sbatch"]
    assert words[3:] == [*FIT, "--output", "run.zarr", "--log-format", "json"]


def test_keys_are_those_of_jobqueue() -> None:
    """Those that are comments too; and none is right for one machine only."""
    text = (FOLDER / "dask.yaml").read_text()
    given = yaml.safe_load(text.replace("    # ", "    "))["jobqueue"]["slurm"]
    known = dask.config.get("jobqueue.slurm")
    assert dask_jobqueue.__version__
    assert {name for name in given if name not in known} == set()
    assert (
        yaml.safe_load(text)["jobqueue"]["slurm"]
        .keys()
        .isdisjoint({"queue", "account", "interface", "python"})
    )
