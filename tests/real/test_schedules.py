"""The schedules: a real cron, a real Airflow and systemd's own checks run what is shipped, on a small V."""

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from support.matrices import low_rank
from support.schedules import CRON, DAG, RANK, ROOT, SERVICE, TIMER, cron_line, unit
from support.servers import PATIENCE, needs, process, until

import dask_nmf
from dask_nmf.cli.process.exit_codes import ExitCode

BIN = Path(sys.executable).parent
LONG = 900  # seconds, in which a fit compiles what it calls, and Airflow is installed
EXPOSURE = 25  # tenths, of systemd's ten


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


def state(run: Path) -> dict[str, Any]:
    """What `dask-nmf info` says."""
    told = subprocess.run(["dask-nmf", "info", run, "--json"], stdout=subprocess.PIPE, check=True).stdout
    return dict(json.loads(told))


@needs("cron", root=True)
def test_cron_runs_a_fit_and_leaves_one_at_work_alone(folder: Path) -> None:
    """The file that is shipped, every minute; and its line once more, for a run that is being worked on."""
    line = re.sub(r"^15 2 \* \* \*  nmf", f"* * * * *  {getpass.getuser()}", cron_line())
    other = line.replace("run.zarr", "held.zarr").replace("fit.log", "held.log")
    text = CRON.read_text().replace(cron_line(), f"{line}\n{other}")
    text = text.replace("/opt/dask-nmf/bin", str(BIN)).replace("/srv/nmf", str(folder))
    held = ["dask-nmf", "fit", "V.zarr", "--rank", "20", "--output", "held.zarr", "--tol", "0"]
    held += ["--max-iter", "1000000", "--log-format", "json"]

    def said(log: str) -> str:
        """What a log has, if there is one."""
        return (folder / log).read_text() if (folder / log).exists() else ""

    file = Path(f"/etc/cron.d/dask-nmf-{os.getpid()}")
    with process(*held, log=folder / "holder.log", cwd=folder) as holder:
        until(lambda: said("holder.log").count('"pass"') > 2)
        file.write_text(f"PYTHONPATH={ROOT}\n{text}")
        try:
            with process("/usr/sbin/cron", "-f", log=folder / "cron.log") as cron:
                until(lambda: "exit code" in said("held.log") and '"done"' in said("fit.log"), 2 * PATIENCE)
                file.unlink()
                until(lambda: not psutil.Process(cron.pid).children())
        finally:
            file.unlink(missing_ok=True)
        before = state(folder / "held.zarr")["passes"]
        until(lambda: state(folder / "held.zarr")["passes"] > before)
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(PATIENCE) == ExitCode.TERMINATED
    codes = {log: set(re.findall(r"exit code (\d+)", said(log))) for log in ("held.log", "fit.log")}
    assert codes["held.log"] == {"75"}
    assert codes["fit.log"] <= {"75"}  # of a minute later, if a minute was not enough
    check_run(folder)


def placed(source: Path, target: Path, folder: Path) -> Path:
    """A copy of what is shipped, with the places of this machine."""
    text = source.read_text().replace("/opt/dask-nmf/bin", str(BIN)).replace("/srv/nmf", str(folder))
    target.write_text(text)
    return target


@needs("systemd-analyze")
def test_systemd_knows_every_word(folder: Path) -> None:
    for unit_file in (SERVICE, TIMER):
        placed(unit_file, folder / unit_file.name, folder)

    def told(*words: object) -> str:
        """All that it prints."""
        command = ["systemd-analyze", *map(str, words)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
        )
        return done.stdout

    units = (folder / SERVICE.name, folder / TIMER.name)
    assert told("verify", "--man=no", *units) == ""
    (folder / SERVICE.name).write_text((folder / SERVICE.name).read_text().replace("NoNew", "NonNew"))
    assert "NonNewPrivileges" in told("verify", "--man=no", *units)
    (nightly,) = re.findall(r"^OnCalendar=(.*)$", TIMER.read_text(), re.MULTILINE)
    assert "02:15:00" in told("calendar", nightly)
    assert "Overall exposure" in told("security", "--offline=yes", f"--threshold={EXPOSURE}", SERVICE)


FILTERED = """
import contextlib, json, os, socket, sys, pyseccomp as s

calls, families, command = json.loads(sys.argv[1])
allowed = s.SyscallFilter(s.ERRNO(1))
for name in calls:
    with contextlib.suppress(OSError):  # of another architecture
        allowed.add_rule(s.ALLOW, name)
for family in families:
    allowed.add_rule(s.ALLOW, "socket", s.Arg(0, s.EQ, int(getattr(socket, family))))
allowed.load()
os.execv(command[0], command)
"""


def calls(name: str) -> set[str]:
    """The system calls of a set of systemd's, but for `socket`."""
    if not name.startswith("@"):
        return {name} - {"socket"}
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], stdout=subprocess.PIPE, text=True, check=True
    )
    inner = [line.strip() for line in told.stdout.splitlines()[1:] if line.strip()[:1] not in ("", "#")]
    return {call for each in inner for call in calls(each)}


@pytest.mark.timeout(2 * LONG)
@needs("bwrap", "systemd-analyze", root=True)
def test_a_fit_runs_under_the_restrictions_of_the_unit(folder: Path) -> None:
    """Its file system, system calls and sockets, as no systemd runs here."""
    cache = folder / "cache"
    cache.mkdir()
    box = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    box += [
        "--bind",
        folder,
        folder,
        "--chdir",
        folder,
        "--cap-drop",
        "ALL",
        "--unshare-ipc",
        "--unshare-uts",
    ]
    box += [
        word for place in (BIN.parent, ROOT) for word in ("--ro-bind", place, place)
    ]  # may lie below /tmp
    for installed in Path(dask_nmf.__file__).parent.rglob("__pycache__"):  # what a warm-up may have compiled
        box += ["--tmpfs", installed, "--remount-ro", installed]
    box += ["--setenv", unit("Environment").split("=")[0], cache]
    assert unit("ProtectSystem") == "strict"
    command = unit("ExecStart").replace("/opt/dask-nmf/bin", str(BIN)).split()
    filtered = json.dumps(
        [sorted(calls(unit("SystemCallFilter"))), unit("RestrictAddressFamilies").split(), command]
    )
    with process(*box, "--", sys.executable, "-c", FILTERED, filtered, log=folder / "fit.log") as fit:
        assert fit.wait(LONG) == 0, (folder / "fit.log").read_text()
    check_run(folder)
    assert any(cache.rglob("*.nbc"))  # kernels are kept for the next night


@pytest.fixture(scope="module")
def airflow(request: pytest.FixtureRequest) -> Path:
    """Airflow's command, in an environment that is kept for the next time: it takes half a minute."""
    assert request.config.cache is not None
    home = request.config.cache.mkdir("airflow")
    done = home / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", "apache-airflow>=3.1,<4"], check=True)
        done.touch()
    return home / "bin/airflow"


@pytest.mark.timeout(2 * LONG)  # with the installation
def test_airflow_runs_the_dag(airflow: Path, folder: Path) -> None:
    home = folder / "airflow"
    (home / "dags").mkdir(parents=True)
    placed(DAG, home / "dags" / DAG.name, folder)
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(PATIENCE),
    }

    def told(*words: str) -> str:
        """All that it prints."""
        done = subprocess.run(
            [airflow, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        return done.stdout

    told("db", "migrate")
    assert "No data found" in told("dags", "list-import-errors")
    assert "state=success" in told("dags", "test", "dask_nmf", "2026-01-02")
    check_run(folder)
    shutil.rmtree(folder / "run.zarr")
    zarr.open_array(folder / "V.zarr", mode="r+")[3, 4] = -1
    failed = told("dags", "test", "dask_nmf", "2026-01-03")
    assert "exit code 3" in failed
    assert "new_state=failed" in failed  # not up_for_retry
