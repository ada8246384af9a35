"""`update` and `forget` killed near their commit: the run is as before, or changed as a whole."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.command import COMMAND
from support.matrices import low_rank

from dask_nmf import Run, nmf
from dask_nmf.results import verify

pytestmark = pytest.mark.real
V = low_rank(400, 30, 3)
KILLS = 1  # each costs the start of two processes


def took_out_all(run: Path) -> bool:
    """Return whether a forget had ended its last commit when it was killed."""
    lineage = Run.load_result(run).record.get("lineage", [])
    return any(entry["kind"] == "forget" and entry["clean"] for entry in lineage)


@pytest.mark.parametrize("command", ["update", "forget"])
def test_a_killed_command_leaves_one_version_and_the_same_command_ends_it(
    command: str, tmp_path: Path
) -> None:
    first = 380 if command == "update" else 400
    nmf(V[:first], 3, store=tmp_path / "fitted", random_state=0)
    zarr.create_array(tmp_path / "v.zarr", data=V[380:])
    (tmp_path / "ids.txt").write_text("".join(f"{number}\n" for number in range(380, 400)))
    rows = ["--rows", "ids.txt"] if command == "forget" else []
    last = 400 if command == "update" else 380

    def start(run: str) -> subprocess.Popen[bytes]:
        words = [*COMMAND, command, run, "v.zarr", *rows]
        return subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    shutil.copytree(tmp_path / "fitted", tmp_path / "whole")
    began = time.monotonic()
    process = start("whole")
    assert process.communicate(timeout=120)[1] is not None
    assert process.returncode == 0
    whole = time.monotonic() - began
    for number in range(KILLS):
        run = tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "fitted", run)
        process = start(run.name)
        time.sleep(whole * (0.85 + 0.1 * number / KILLS))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert Run.load_result(run).array("W").shape[0] in (first, last)
        assert all(check.passed for check in verify(run) if check.name in ("record", "W", "H"))
        if not took_out_all(run):  # else the numbers mean other rows, and the same command is refused
            process = start(run.name)
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors
        result, expected = (Run.load_result(tmp_path / name) for name in (run.name, "whole"))
        np.testing.assert_array_equal(result.read("W"), expected.read("W"))
        np.testing.assert_array_equal(result.read("H"), expected.read("H"))
        assert all(check.passed for check in verify(run))
        assert len(list((run / "data").glob("result-*"))) == 1
