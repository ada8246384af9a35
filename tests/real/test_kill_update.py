"""`update` and `forget` killed near their commit: the run is as before, or changed as a whole."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.fits import Fit, ends_well, start
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

    def begin(run: str) -> Fit:
        return start([command, run, "v.zarr", *rows], tmp_path, tmp_path / f"{run}.log")

    shutil.copytree(tmp_path / "fitted", tmp_path / "whole")
    began = time.monotonic()
    ends_well(begin("whole"))
    whole = time.monotonic() - began
    for number in range(KILLS):
        run = tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "fitted", run)
        killed = begin(run.name)
        time.sleep(whole * (0.85 + 0.1 * number / KILLS))
        os.kill(killed.pid, signal.SIGKILL)
        killed.process.wait()
        assert Run.load_result(run).array("W").shape[0] in (first, last)
        assert all(check.passed for check in verify(run) if check.name in ("record", "W", "H"))
        if not took_out_all(run):  # else the numbers mean other rows, and the same command is refused
            ends_well(begin(run.name))
        result, expected = (Run.load_result(tmp_path / name) for name in (run.name, "whole"))
        np.testing.assert_array_equal(result.read("W"), expected.read("W"))
        np.testing.assert_array_equal(result.read("H"), expected.read("H"))
        assert all(check.passed for check in verify(run))
        assert len(list((run / "data").glob("result-*"))) == 1
