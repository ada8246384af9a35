"""The command that tells what a fit would cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.command import Forks, Run, assert_refused


@pytest.fixture
def dask_nmf(tmp_path: Path, forks: Forks) -> Run:
    """Call the command in ``tmp_path``, without a cluster that runs already."""
    return lambda *words: forks.call(words, tmp_path)


def test_a_plan_is_printed_and_nothing_is_written(dask_nmf: Run, v: np.ndarray, tmp_path: Path) -> None:
    sizes = ("--workers", 2, "--threads-per-worker", 1, "--memory-limit", "1GiB")
    text, told = (dask_nmf("plan", "v.zarr", "-k", 3, *sizes, *more) for more in ((), ("--json",)))
    assert text.returncode == told.returncode == 0, text.stderr
    assert text.stdout.startswith("Plan of a fit of rank 3 to ")
    assert "faster: with --dtype float32" in text.stdout
    plan = json.loads(told.stdout)
    assert (plan["workers"], plan["threads"], plan["memory_limit"]) == (2, 1, 2**30)
    assert plan["probe"]["columns"] == 40
    assert f"up to {plan['worker_bytes'] // 2**20} MiB, of 1024 MiB" in text.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["v.zarr"]


def test_the_ranks_of_a_selection_are_planned(dask_nmf: Run, v: np.ndarray) -> None:
    told = dask_nmf("plan", "v.zarr", "--ranks", "2:4", "--n-init", 2, "--no-probe", "--json")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert (plan["models"], plan["reads"], plan["probe"]) == (6, 1, None)


FIT = ("-k", "3")
REFUSED = {
    "no rank": ((), 2, "give --rank for the plan of a fit, or --ranks"),
    "both": ((*FIT, "--ranks", "2:3"), 2, "give --rank for the plan of a fit, or --ranks"),
    "no start": ((*FIT, "--n-init", "0"), 2, "n_init is 0; it must be an integer"),
}


@pytest.mark.parametrize(("words", "code", "text"), REFUSED.values(), ids=REFUSED)
def test_usage_is_refused(dask_nmf: Run, v: np.ndarray, words: tuple[str, ...], code: int, text: str) -> None:
    refused = dask_nmf("plan", "v.zarr", *words)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert text in refused.stderr


@pytest.mark.parametrize("words", [("v.zarr", "--memory-limit", "100MiB"), ("none.zarr",), ("bad.npy",)])
def test_refusals_are_those_of_fit(
    dask_nmf: Run, v: np.ndarray, words: tuple[str, ...], tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", -v)
    fit = dask_nmf("fit", *words, *FIT, "-o", "run.zarr")
    plan = dask_nmf("plan", *words, *FIT)
    assert plan.stderr.splitlines()[-1] == fit.stderr.splitlines()[-1]
    assert_refused(plan, fit.returncode, folder=tmp_path, left={"v.zarr", "bad.npy"})
