"""The command, through real processes: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import zarr
from distributed import LocalCluster
from support.command import COMMAND, Forks, assert_refused
from support.servers import needs

from dask_nmf import __version__, nmf, transform
from dask_nmf.cli.commands import app
from dask_nmf.cli.options import GROUPS

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster that the commands of this module share, so that each starts fast."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def dask_nmf(tmp_path: Path, scheduler: str, forks: Forks) -> Run:
    """Call the command in ``tmp_path``; with ``own=True`` in a new Python, and on its own cluster."""

    def call(*words: object, own: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
        if not own:
            return forks.call(words, tmp_path, DASK_SCHEDULER_ADDRESS=scheduler, **environment)
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


@pytest.fixture
def v(tmp_path: Path) -> np.ndarray:
    """A small V, and its file ``v.zarr`` in ``tmp_path``."""
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, size=(300, 4)) @ rng.gamma(0.5, size=(4, 40)) + 0.1 * rng.random((300, 40))
    stored = zarr.create_array(tmp_path / "v.zarr", shape=v.shape, chunks=(100, 40), dtype=v.dtype)
    stored[:] = v
    return v


def test_fit_info_transform_and_again(dask_nmf: Run, v: np.ndarray, tmp_path: Path) -> None:
    done = dask_nmf("fit", "v.zarr", "--rank", 4, "--output", "run.zarr", "--max-iter", 5, own=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run.zarr: relative error 0.0")
    run = zarr.open_group(tmp_path / "run.zarr", mode="r")
    W, H = run["W"][:], run["H"][:]
    error = np.linalg.norm(v - W @ H) / np.linalg.norm(v)

    told = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)
    assert told["state"] == "finished"
    assert told["relative_error"] == pytest.approx(error, rel=1e-9)
    assert told["passes"] == len(told["error_history"])
    assert_aligned(dask_nmf("info", "run.zarr").stdout.splitlines(), told)

    before = (tmp_path / "run.zarr" / "zarr.json").stat().st_mtime_ns
    again = dask_nmf("fit", "v.zarr", "--rank", 4, "--output", "run.zarr", "--max-iter", 5)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert again.stdout == done.stdout
    assert (tmp_path / "run.zarr" / "zarr.json").stat().st_mtime_ns == before

    told = dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr")
    assert told.returncode == 0, told.stderr
    np.testing.assert_allclose(zarr.open_group(tmp_path / "w.zarr", mode="r")["W"][:], W, atol=1e-5)
    assert dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr").returncode == 2
    replaced = dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"v.zarr", "run.zarr", "w.zarr"}
    of_run, of_w = told_of(dask_nmf, "run.zarr"), told_of(dask_nmf, "w.zarr")
    assert of_w == {
        "transform": str(tmp_path / "w.zarr"),
        "state": "finished",
        "run": str(tmp_path / "run.zarr"),
        "source": str(tmp_path / "v.zarr"),
        "shape": [300, 4],
        "dtype": "float64",
        "n_components": 4,
        "version": __version__,
        "settings": {name: of_run["settings"][name] for name in of_w["settings"]},
    }
    assert set(of_w["settings"]) == {"beta_loss", "missing", "alpha_W", "l1_ratio"}
    lines = dask_nmf("info", "w.zarr").stdout.splitlines()
    assert [line.strip().split(":")[0] for line in lines] == [*of_w, *of_w["settings"]]


def test_info_says_that_an_output_of_transform_is_damaged(dask_nmf: Run, tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "w.zarr", attributes={"dask_nmf_transform": {"run": 1}})
    left = {"w.zarr"}
    assert_refused(
        dask_nmf("info", "w.zarr"), 2, "a damaged output of dask-nmf transform", folder=tmp_path, left=left
    )


def told_of(dask_nmf: Run, path: str) -> dict[str, Any]:
    """What info says of a run or another output."""
    told: dict[str, Any] = json.loads(dask_nmf("info", path, "--json").stdout)
    return told


def assert_aligned(lines: list[str], told: dict[str, Any]) -> None:
    """Each value of a run stands on a line of its own, and all of them begin at one column."""
    pairs = [line.strip().split(":", 1) for line in lines]
    below = {name: list(told[name]) for name in ("answer", "settings")}
    assert [name for name, _ in pairs] == [line for name in told for line in (name, *below.get(name, []))]
    shown = dict(pairs[::-1])
    assert float(shown["relative_error"]) == pytest.approx(told["relative_error"], rel=1e-5)
    losses = [float(loss) for loss in shown["error_history"].split("(")[0].split()]
    assert losses == pytest.approx(told["error_history"][-5:], rel=1e-5)
    assert shown["shape"].strip() == "300 x 40"
    assert shown["validation_error"].strip() == shown["missing"].strip() == "-"
    assert shown["n_components"].strip() == "4"
    columns = {len(line) - len(line.split(":", 1)[1].lstrip()) for line in lines if not line.endswith(":")}
    assert len(columns) == 1


def test_another_fit_on_the_same_output_is_refused_unless_it_may_overwrite(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path
) -> None:
    fit = ["fit", "v.zarr", "--output", "run.zarr", "--max-iter", 2]
    assert dask_nmf(*fit, "--rank", 3).returncode == 0
    refused = dask_nmf(*fit, "--rank", 4, "--seed", 1)
    assert_refused(
        refused,
        2,
        "n_components is 4, the run has 3",
        "random_state is 1",
        folder=tmp_path,
        left={"v.zarr", "run.zarr"},
    )
    assert dask_nmf(*fit, "--rank", 4, "--overwrite").returncode == 0
    assert zarr.open_group(tmp_path / "run.zarr", mode="r")["H"].shape == (4, 40)


def test_json_lines(dask_nmf: Run, v: np.ndarray) -> None:
    done = dask_nmf(
        "fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--max-iter", 3, "--tol", 0, "--log-format", "json"
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    passes = [line for line in lines if line["event"] == "pass"]
    assert [line["pass"] for line in passes] == [1, 2, 3]
    assert all(line["relative_error"] > 0 and line["seconds"] > 0 for line in passes)


def test_convergence_can_be_required(dask_nmf: Run, v: np.ndarray) -> None:
    fit = ["fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--max-iter", 2, "--require-convergence"]
    assert dask_nmf(*fit, "--tol", 0).returncode == 4
    assert dask_nmf(*fit, "--tol", 0.9, "--overwrite").returncode == 0


@pytest.fixture
def holes(v: np.ndarray, tmp_path: Path) -> np.ndarray:
    """V with a third of it missing; ``holes.zarr`` has NaN there, ``weights.npy`` 1 and 2."""
    holes = np.where(np.random.default_rng(1).random(v.shape) < 1 / 3, np.nan, v)
    zarr.create_array(tmp_path / "holes.zarr", data=holes, chunks=(100, 40))
    np.save(tmp_path / "weights.npy", np.repeat([[1, 2]], 300, axis=0).repeat(20, axis=1))
    return holes


def test_missing_weighted_and_held_out_entries(dask_nmf: Run, holes: np.ndarray, tmp_path: Path) -> None:
    words = ["--missing", "nan", "--weights", "weights.npy", "--validation-fraction", 0.1]
    words += ["--alpha-w", 0.01, "--alpha-h", 0.02, "--max-iter", 4]
    done = dask_nmf("fit", "holes.zarr", "-k", 3, "-o", "run.zarr", *words)
    assert done.returncode == 0, done.stderr
    same = nmf(
        holes,
        3,
        missing="nan",
        weights=np.load(tmp_path / "weights.npy"),
        validation_fraction=0.1,
        alpha_W=0.01,
        alpha_H=0.02,
        max_iter=4,
    )
    assert f", held out {same.validation_error:.6g}, after {same.n_iter} passes" in done.stdout
    told = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)
    assert told["validation_error"] == pytest.approx(same.validation_error, rel=1e-6)
    assert (told["unobserved_rows"], told["unobserved_columns"]) == (0, 0)

    told = dask_nmf("transform", "run.zarr", "holes.zarr", "--output", "w.zarr")
    assert told.returncode == 0, told.stderr
    H = zarr.open_group(tmp_path / "run.zarr", mode="r")["H"][:]
    expected = transform(holes, H, missing="nan", alpha_W=0.01)
    np.testing.assert_allclose(zarr.open_group(tmp_path / "w.zarr", mode="r")["W"][:], expected, rtol=1e-6)


def test_sgd_and_an_error_that_is_enough(dask_nmf: Run, v: np.ndarray) -> None:
    words = ["--solver", "sgd", "--schedule", "bold-driver", "--learning-rate", 1e-3, "--batch-size", 8]
    words += ["--stop-below", np.linalg.norm(v) / 4, "--require-convergence"]
    done = dask_nmf("fit", "v.zarr", "-k", 4, "-o", "run.zarr", *words)
    assert done.returncode == 0, done.stderr
    assert "is below" in done.stdout
    settings = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)["settings"]
    asked = {"solver": "sgd", "schedule": "bold-driver", "learning_rate": 1e-3, "batch_size": 8}
    assert asked.items() <= settings.items()


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


@pytest.mark.parametrize(
    ("other", "ours"),
    [("--n-components", "--rank"), ("--random-state", "--seed"), ("--max-itr", "--max-iter")],
)
def test_an_option_of_others_is_refused_with_ours(dask_nmf: Run, other: str, ours: str) -> None:
    told = dask_nmf("fit", "v.zarr", "-o", "run.zarr", "-k", 3, other, 3)
    assert told.returncode == 2
    assert re.search(f"Did you mean '?{ours}'?\\?", told.stderr)  # quoted by later versions of click


def test_help_has_every_option_once_under_a_heading(dask_nmf: Run) -> None:
    for command in app.commands.values():
        lines = dask_nmf(command.name, "--help").stdout.split("\nOptions:\n")[1].splitlines()
        options = [option for option in command.params if isinstance(option, click.Option)]
        for name in (max(option.opts, key=len) for option in options):
            assert sum(f"{name} " in f"{line} " for line in lines if line.startswith("  -")) == 1, name
    headings = [line for line in dask_nmf("fit", "--help").stdout.splitlines() if re.match(r"\w+:$", line)]
    assert headings == [f"{title}:" for title in GROUPS]


def test_usage_errors_come_from_the_parser(dask_nmf: Run) -> None:
    assert dask_nmf("fit", "v.zarr", "-o", "run.zarr").returncode == 2
    told = dask_nmf("fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--workers", "many")
    assert told.returncode == 2
    assert "not a valid integer" in told.stderr


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


def test_no_thread_of_a_library_meets_the_end_of_the_interpreter(tmp_path: Path) -> None:
    """The process is gone before: those of obstore would abort it, whatever its exit code was to be."""
    crashes = "import os; last = type('Last', (), {'__del__': lambda self, abort=os.abort: abort()})()"
    python, option, script = COMMAND
    words = [python, option, f"{crashes}; {script}", "info", "nothing.zarr"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_refused(told, 2, "there is no run at nothing.zarr", folder=tmp_path, left=set())


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, dask_nmf.cli.main; print({'dask', 'numpy', 'zarr', 'sklearn'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
    began = time.monotonic()
    subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["W", "H"])
def test_factors_are_given_as_paths(dask_nmf: Run, v: np.ndarray, tmp_path: Path, name: str) -> None:
    first = nmf(v, 4, max_iter=2)
    np.save(tmp_path / "known.npy", np.asarray(getattr(first, name)))
    fit, key = ("fit", "v.zarr", "--rank", 4), name.lower()
    assert dask_nmf(*fit, "-o", "run.zarr", f"--fixed-{key}", "known.npy").returncode == 0
    expected = nmf(v, 4, **{f"fixed_{name}": getattr(first, name).compute()})
    for found in ("W", "H"):
        stored = zarr.open_array(tmp_path / "run.zarr" / found, mode="r")[:]
        np.testing.assert_allclose(stored, getattr(expected, found), rtol=1e-6)
    go_on = dask_nmf(*fit, "-o", "next.zarr", f"--{key}", f"run.zarr/{name}", "--max-iter", 1)
    assert go_on.returncode == 0
    wrong = dask_nmf(*fit, "-o", "x.zarr", f"--fixed-{key}", "v.zarr")
    left = {"v.zarr", "known.npy", "run.zarr", "next.zarr"}
    assert_refused(wrong, 2, f"fixed_{name} has shape (300, 40)", folder=tmp_path, left=left)
