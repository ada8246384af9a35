"""Kill everything in mid-selection: the same command again ends with the same table and the same bits."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import scipy.sparse
import zarr
from support.fits import OWN, Fit, hold_of, make_v, same_factors, start, wait_for
from support.holds import hold

from dask_nmf import plan
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.storage.locations import locate

SELECT = (
    *("select", "v.zarr", "--ranks", "2,6,8", "--n-init", "2", "--tol", "0", "--max-iter", "8"),
    *("--error-bars", "3"),
)


SIZES: dict[str, Any] = {"threads_per_worker": 1, "memory_limit": "1GiB"}
BATCHES = (
    *("select", "wide.zarr", "--ranks", "10,30,40", "--n-init", "3", "--tol", "0", "--max-iter", "2"),
    *("--holdout", "0.2"),
)


def begin(
    folder: Path,
    output: str,
    number: int,
    command: tuple[str, ...] = SELECT,
    held: str = "",
    **environment: str,
) -> Fit:
    """Start the command in a process group of its own; ``held``: see `holds`."""
    words = (*command, "--output", output, "--log-format", "json", *OWN)
    log, lines = (folder / f"{output}.{number}.{ending}" for ending in ("log", "out"))
    if held:
        hold(hold_of(log), held)
    return start(words, folder, log, lines, **environment)


def test_sigkill_of_everything_in_mid_selection(tmp_path: Path) -> None:
    make_v(tmp_path / "v.zarr", 4000)
    whole = begin(tmp_path, "whole.zarr", 0)
    assert whole.process.wait(600) == 0, whole.log.read_text()
    for number, (event, times) in enumerate(
        (("plan", 1), ("shared pass", 2), ("rank", 1), ("error bars", 2))
    ):
        killed = begin(tmp_path, "killed.zarr", number, held=f"{event} {times}")
        wait_for(killed, event, times)
        os.killpg(killed.pid, signal.SIGKILL)  # the scheduler is in the process of the command
        killed.process.wait()
    last = begin(tmp_path, "killed.zarr", 4)
    assert last.process.wait(600) == 0, last.log.read_text()
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


def make_sparse(path: Path) -> None:
    """Write a CSR matrix whose models take tens of MB each."""
    v = scipy.sparse.random_array((42_000, 40_000), density=1e-4, format="csr", dtype=np.float32, rng=1)
    kind = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(v.shape)}
    group = zarr.create_group(path, attributes=kind)
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(v, name), chunks=(1 << 16,))


def least_room(path: Path) -> int:
    """Return about the fewest bytes of the client with which the command is not refused."""
    for room in range(330 * 2**20, 2**30, 16 * 2**20):
        with dask.config.set({"dask_nmf.client_memory": room}), suppress(MemoryError):
            plan(str(path), ranks="10,30,40", n_init=3, workers=2, probe=False, **SIZES)
            return room
    raise AssertionError("it takes more than 1 GiB")


def test_sigkill_in_any_of_several_batches(tmp_path: Path) -> None:
    make_sparse(tmp_path / "wide.zarr")
    room = {"DASK_DASK_NMF__CLIENT_MEMORY": str(least_room(tmp_path / "wide.zarr"))}
    whole = begin(tmp_path, "whole.zarr", 0, BATCHES)
    assert whole.process.wait(600) == 0, whole.log.read_text()
    for number, passes in enumerate((1, 2, 2)):
        killed = begin(tmp_path, "killed.zarr", number, BATCHES, f"shared pass {passes}", **room)
        wait_for(killed, "shared pass", passes)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.process.wait()
    last = begin(tmp_path, "killed.zarr", 3, BATCHES, **room)
    assert last.process.wait(600) == 0, last.log.read_text()
    first = (tmp_path / "killed.zarr.0.log").read_text()
    assert '"batches": 3' in first
    mine, theirs = ((tmp_path / name).read_text() for name in ("killed.zarr.3.out", "whole.zarr.0.out"))
    assert mine.partition(":")[2] == theirs.partition(":")[2]
    same_factors(tmp_path / "killed.zarr" / "fit", tmp_path / "whole.zarr" / "fit")
