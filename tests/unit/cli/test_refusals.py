"""What the command refuses: one line, an exit code, and nothing written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.command import Forks, Run, assert_refused
from support.servers import needs


def test_info_says_that_an_output_of_transform_is_damaged(dask_nmf: Run, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "w.zarr", attributes={"dask_nmf_transform": {"run": 1}})
    left = {"w.zarr"}
    assert_refused(
        dask_nmf("info", "w.zarr"), 2, "a damaged output of dask-nmf transform", folder=tmp_path, left=left
    )


MISSING = {
    "NaN": (["holes.zarr"], 3, "--missing nan"),
    "unstored of a dense V": (["v.zarr", "--missing", "unstored"], 3, "missing='nan'"),
    "weights of another shape": (["v.zarr", "--weights", "other.npy"], 3, "(4, 3)"),
    "no weights there": (["v.zarr", "--weights", "nowhere.npy"], 2, "nowhere.npy"),
    "a weight below 0": (["v.zarr", "--weights", "bad.npy"], 3, "-1.0 at row 7, column 3"),
    "another solver's": (["v.zarr", "--batch-size", 4], 2, "belong to solver 'sgd'"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_cannot_count_is_refused(dask_nmf: Run, holes: np.ndarray, tmp_path: Path, case: str) -> None:
    words, code, word = MISSING[case]
    bad = np.ones((300, 40))
    bad[7, 3] = -1
    np.save(tmp_path / "bad.npy", bad)
    np.save(tmp_path / "other.npy", np.ones((4, 3)))
    left = {path.name for path in tmp_path.iterdir()}
    told = dask_nmf("fit", *words, "-k", 3, "-o", "run.zarr")
    assert_refused(told, code, word, folder=tmp_path, left=left)


ENTRIES = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-1.5": -1.5}


@pytest.mark.parametrize(("value", "wide"), [("nan", False), ("inf", True), ("-inf", False), ("-1.5", True)])
def test_a_bad_entry_is_named_by_position(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path, value: str, wide: bool
) -> None:
    row, column = (7, 123) if wide else (123, 7)
    bad = v.T.copy() if wide else v.copy()
    bad[row, column] = ENTRIES[value]
    np.save(tmp_path / "bad.npy", bad)
    told = dask_nmf("fit", "bad.npy", "-k", 3, "-o", "run.zarr")
    words = (f"{value} at row {row}, column {column}", "NMF takes")
    assert_refused(told, 3, *words, folder=tmp_path, left={"v.zarr", "bad.npy"})


NOT_MATRICES = {
    "complex": (np.ones((5, 4), complex), "real part"),
    "text": (np.full((5, 4), "x"), "real numbers"),
    "1-d": (np.ones(5), "1 dimension"),
    "3-d": (np.ones((2, 3, 4)), "3 dimension"),
    "empty": (np.ones((0, 4)), "empty"),
}


@pytest.mark.parametrize("case", NOT_MATRICES)
def test_what_is_no_real_matrix_is_refused(dask_nmf: Run, tmp_path: Path, case: str) -> None:
    array, word = NOT_MATRICES[case]
    np.save(tmp_path / "v.npy", array)
    told = dask_nmf("fit", "v.npy", "-k", 2, "-o", "run.zarr")
    assert_refused(told, 3, word, folder=tmp_path, left={"v.npy"})


CALLS = {
    "no V": (["nothing.zarr", "-k", 3, "-o", "run.zarr"], "nothing.zarr"),
    "rank 0": (["v.zarr", "-k", 0, "-o", "run.zarr"], "n_components is 0"),
    "rank too large": (["v.zarr", "-k", 41, "--init", "nndsvd", "-o", "run.zarr"], "at most 40"),
    "no folder": (["v.zarr", "-k", 3, "-o", "no/run.zarr"], "make it first"),
    "V itself": (["v.zarr", "-k", 3, "-o", "v.zarr"], "inside of V"),
    "V itself, forced": (["v.zarr", "-k", 3, "-o", "v.zarr", "--overwrite"], "inside of V"),
    "option of another solver": (["v.zarr", "-k", 3, "-o", "run.zarr", "--delta", 1], "delta"),
    "two clusters": (["v.zarr", "-k", 3, "-o", "run.zarr", "--workers", 2], "local cluster"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_that_does_not_fit_is_refused(dask_nmf: Run, v: np.ndarray, tmp_path: Path, case: str) -> None:
    words, word = CALLS[case]
    assert_refused(dask_nmf("fit", *words), 2, word, folder=tmp_path, left={"v.zarr"})


@pytest.mark.parametrize("words", [[], ["--overwrite"]], ids=["", "forced"])
def test_an_output_that_is_no_run_is_left_alone(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path, words: list[str]
) -> None:
    zarr.create_group(tmp_path / "other.zarr", attributes={"mine": 1})
    told = dask_nmf("fit", "v.zarr", "-k", 3, "-o", "other.zarr", *words)
    assert_refused(told, 2, "not a run", folder=tmp_path, left={"v.zarr", "other.zarr"})
    assert dict(zarr.open_group(tmp_path / "other.zarr", mode="r").attrs) == {"mine": 1}


def test_a_worker_that_is_too_small_is_refused_with_numbers(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path
) -> None:
    told = dask_nmf("fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--memory-limit", "100MB", own=True)
    assert_refused(told, 2, "MiB", folder=tmp_path, left={"v.zarr"})


def test_a_flipped_byte_in_a_chunk_is_bad_data(dask_nmf: Run, v: np.ndarray, tmp_path: Path) -> None:
    chunk = tmp_path / "v.zarr" / "c" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 0xFF
    chunk.write_bytes(content)
    told = dask_nmf("fit", "v.zarr", "-k", 3, "-o", "run.zarr")
    assert_refused(told, 3, "cannot be read", "v.zarr", folder=tmp_path, left={"v.zarr"})


@needs("mount", root=True)
@pytest.mark.parametrize(("option", "word"), [("size=60k", "No space left"), ("ro", "Read-only")])
def test_a_disk_that_takes_nothing_more(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path, option: str, word: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", disk], check=True)
    try:
        told = dask_nmf("fit", "v.zarr", "-k", 30, "-o", "disk/run.zarr", "--max-iter", 2)
        assert told.returncode == 74, told.stderr
        assert word in told.stderr.strip().splitlines()[-1]
        assert "Traceback" not in told.stderr
        if option != "ro":
            assert json.loads(dask_nmf("info", "disk/run.zarr", "--json").stdout)["state"] == "unfinished"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_scheduler_that_does_not_answer_means_try_again(
    forks: Forks, v: np.ndarray, tmp_path: Path
) -> None:
    words = ["fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--scheduler", "tcp://127.0.0.1:1"]
    told = forks.call(words, tmp_path, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s")
    assert_refused(told, 75, "tcp://127.0.0.1:1", folder=tmp_path, left={"v.zarr"})
