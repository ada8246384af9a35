"""The schedules: a real cron, systemd's own checks, a real Airflow; each runs what is shipped, on a small V."""

import ast
import getpass
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from servers import needs, process
from sources import low_rank

from dask_nmf import cli

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "cluster_configs" / "schedules"
CRON, SERVICE, TIMER, DAG = (
    FOLDER / name for name in ("dask-nmf.cron", "dask-nmf.service", "dask-nmf.timer", "airflow_dag.py")
)
BIN = Path(sys.executable).parent
RANK = 20  # of all of them
HOURS = 3600
EXPOSURE = 25  # tenths, of systemd's ten


def cron_line() -> str:
    (line,) = re.findall(r"^\d.*$", CRON.read_text(), re.MULTILINE)
    return str(line)


def unit(name: str) -> str:
    """The value of a setting of the service."""
    (value,) = re.findall(rf"^{name}=(.*)$", SERVICE.read_text(), re.MULTILINE)
    return str(value)


def dag_constants() -> dict[str, str]:
    """Those at the top of the DAG."""
    found = [node for node in ast.parse(DAG.read_text()).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in found}


def test_commands_are_alike_and_known() -> None:
    in_cron = re.search(r"dask-nmf (fit .*?) 2>>", cron_line())
    assert in_cron
    _, _, in_unit = unit("ExecStart").partition("dask-nmf/bin/dask-nmf ")
    in_dag = dag_constants()["FIT"] + " --log-format json"
    assert in_cron[1] == in_unit == in_dag
    options = cli.app.commands["fit"].make_context("fit", shlex.split(in_unit)[1:]).params
    assert options["rank"] == RANK
    assert options["workers"] * options["memory_limit"] + 2**31 <= 6 * 2**30
    assert unit("MemoryMax") == "6G"
    assert options["time_limit"] < 6 * HOURS
    assert unit("TimeoutStartSec") == "6h"


def test_exit_codes_are_acted_upon() -> None:
    final = {cli.USAGE, cli.BAD_DATA}
    assert set(map(int, unit("RestartPreventExitStatus").split())) == final
    assert int(unit("SuccessExitStatus")) == cli.TERMINATED
    (skipped,) = re.findall(r"skip_on_exit_code=(.*),$", DAG.read_text(), re.MULTILINE)
    assert set(ast.literal_eval(skipped)) == final


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a V."""
    tmp_path.chmod(0o755)
    v = low_rank(400, 100, RANK, dtype=np.float32)
    zarr.create_array(tmp_path / "V.zarr", data=v, chunks=(100, 100))
    return tmp_path


def check_run(folder: Path) -> None:
    """W and H are nearly as good as any of their rank."""
    v = zarr.open_array(folder / "V.zarr", mode="r")[:]
    run = zarr.open_group(folder / "run.zarr", mode="r")
    w, h = run["W"][:], run["H"][:]
    error = np.linalg.norm(v - w @ h)
    best = np.linalg.norm(np.linalg.svd(v, compute_uv=False)[RANK:])
    assert min(w.min(), h.min()) >= 0
    assert best <= error < 1.2 * best


def until(what: Callable[[], Any], seconds: float) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def state(run: Path) -> dict[str, Any]:
    """What `dask-nmf info` says."""
    told = subprocess.run([BIN / "dask-nmf", "info", run, "--json"], stdout=subprocess.PIPE, check=True).stdout
    return dict(json.loads(told))


@pytest.mark.real
@needs("cron", root=True)
def test_cron_runs_a_fit_and_leaves_one_at_work_alone(folder: Path) -> None:
    """The file that is shipped, every minute; and its line once more, on a run that is being worked on."""
    line = re.sub(r"^15 2 \* \* \*  nmf", f"* * * * *  {getpass.getuser()}", cron_line())
    text = CRON.read_text().replace(cron_line(), f"{line}\n{line.replace('run.zarr', 'held.zarr').replace('fit.log', 'held.log')}")
    text = text.replace("/opt/dask-nmf/bin", str(BIN)).replace("/srv/nmf", str(folder))
    file = Path(f"/etc/cron.d/dask-nmf-{os.getpid()}")
    held = [BIN / "dask-nmf", "fit", "V.zarr", "--rank", "20", "--output", "held.zarr", "--tol", "0"]
    held += ["--max-iter", "1000000", "--log-format", "json"]
    with process(*held, log=folder / "holder.log", cwd=folder) as holder:
        until(lambda: (folder / "holder.log").read_text().count('"pass"') > 2, 60)
        try:
            file.write_text(f"PYTHONPATH={ROOT}\n{text}")
            with process(shutil.which("cron", path="/usr/sbin") or "cron", "-f", log=folder / "cron.log"):
                until(lambda: (folder / "held.log").exists() and "exit code" in (folder / "held.log").read_text(), 100)
                until(lambda: (folder / "fit.log").exists() and '"done"' in (folder / "fit.log").read_text(), 60)
        finally:
            file.unlink()
        before = state(folder / "held.zarr")["passes"]
        until(lambda: state(folder / "held.zarr")["passes"] > before, 30)
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(30) == cli.TERMINATED
    assert "exit code 75" in (folder / "held.log").read_text()
    assert "exit code" not in (folder / "fit.log").read_text()
    check_run(folder)
