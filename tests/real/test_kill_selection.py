"""Kill everything in mid-selection: the same command again ends with the same table and the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
from support.command import COMMAND
from support.fits import OWN, SOON, Fit, make_v, same_factors, wait_for

from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.storage.locations import locate

SELECT = (
    *("select", "v.zarr", "--ranks", "2,6,8", "--n-init", "2", "--tol", "0", "--max-iter", "8"),
    *("--error-bars", "3"),
)


def begin(folder: Path, output: str, number: int) -> Fit:
    """Start the command in a process group of its own."""
    log = folder / f"{output}.{number}.log"
    words = (*SELECT, "--output", output, "--log-format", "json", *OWN)
    with log.open("w") as errors, (folder / f"{output}.{number}.out").open("w") as lines:
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=folder,
            env=os.environ | SOON,
            stdout=lines,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    return Fit(process, log)


def test_sigkill_of_everything_in_mid_selection(tmp_path: Path) -> None:
    make_v(tmp_path / "v.zarr", 4000)
    whole = begin(tmp_path, "whole.zarr", 0)
    assert whole.process.wait(300) == 0, whole.log.read_text()
    for number, (event, times) in enumerate(
        (("plan", 1), ("shared pass", 2), ("rank", 1), ("error bars", 2))
    ):
        killed = begin(tmp_path, "killed.zarr", number)
        wait_for(killed, event, times)
        os.killpg(killed.pid, signal.SIGKILL)  # the scheduler is in the process of the command
        killed.process.wait()
    last = begin(tmp_path, "killed.zarr", 4)
    assert last.process.wait(300) == 0, last.log.read_text()
    mine, theirs = ((tmp_path / name).read_text() for name in ("killed.zarr.4.out", "whole.zarr.0.out"))
    assert mine.partition(":")[2] == theirs.partition(":")[2]
    same_factors(tmp_path / "killed.zarr" / "fit", tmp_path / "whole.zarr" / "fit")
    bars, others = (
        SelectionStore.load(locate(tmp_path / name)).error_bars() for name in ("killed.zarr", "whole.zarr")
    )
    assert bars is not None
    assert others is not None
    np.testing.assert_array_equal(bars.stderr, others.stderr)
    np.testing.assert_array_equal(bars.likeness, others.likeness)
