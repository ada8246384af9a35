"""The command that chooses the rank."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.command import Forks, Run, assert_refused

SELECT = ("select", "v.zarr", "--ranks", "2:4", "--n-init", 2, "--holdout", 0.1, "--max-iter", 5)


@pytest.fixture
def dask_nmf(tmp_path: Path, forks: Forks) -> Run:
    """Call the command in ``tmp_path``; it leaves a small V to its own threads."""
    return lambda *words: forks.call(words, tmp_path)


def test_the_rank_is_chosen_and_the_selection_stands_for_its_fit(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path
) -> None:
    found = dask_nmf(*SELECT, "-o", "s.zarr", "--figures", "new/figures")
    assert found.returncode == 0, found.stderr
    figures = sorted(path.name for path in (tmp_path / "new" / "figures").iterdir())
    assert figures == ["consensus.png", "consensus.svg", "ranks.png", "ranks.svg"]
    line, heading, *rows = found.stdout.splitlines()
    assert line.startswith("s.zarr: rank 4; the held-out error of rank 4")
    assert heading.split()[0] == "rank"
    assert [row.split()[0] for row in rows] == ["2", "3", "*"]
    again = dask_nmf(*SELECT, "-o", "s.zarr")
    assert again.stdout == found.stdout
    assert "nothing is left to do" in again.stderr
    described = json.loads(dask_nmf("info", "s.zarr", "--json").stdout)
    assert described["state"] == "finished"
    assert (described["n_components"], described["models"], described["models_left"]) == (4, 6, 0)
    assert [row["n_components"] for row in described["ranks"]] == [2, 3, 4]
    assert rows[-1] in dask_nmf("info", "s.zarr").stdout.splitlines()
    (tmp_path / "pairs.csv").write_text("0,0\n")
    for words in (
        ("transform", "s.zarr", "v.zarr", "-o", "w.zarr"),
        ("predict", "s.zarr", "pairs.csv", "-o", "values.csv"),
        ("recommend", "s.zarr", "v.zarr", "-o", "best.csv"),
    ):
        done = dask_nmf(*words)
        assert done.returncode == 0, done.stderr
    refused = dask_nmf("fit", "v.zarr", "-k", 2, "-o", "s.zarr")
    assert refused.returncode == 2
    assert "is a selection of ranks" in refused.stderr


def test_a_time_limit_ends_the_passes_and_the_same_command_goes_on(dask_nmf: Run, v: np.ndarray) -> None:
    short = dask_nmf(*SELECT, "-o", "s.zarr", "--time-limit", 0, "--require-convergence")
    assert short.returncode == 4, short.stderr
    assert "s.zarr: stopped by the time limit; rank 4 so far, 6 of 6 models are left" in short.stdout
    unfinished = dask_nmf("transform", "s.zarr", "v.zarr", "-o", "w.zarr")
    assert unfinished.returncode == 2
    assert "finish it with dask-nmf select first" in unfinished.stderr
    assert json.loads(dask_nmf("info", "s.zarr", "--json").stdout)["models_left"] == 6
    whole = dask_nmf(*SELECT, "-o", "s.zarr")
    assert whole.returncode == 0, whole.stderr
    assert "pass 1:" not in whole.stderr.partition("rank 4")[0]
    assert dask_nmf(*SELECT, "-o", "other.zarr").stdout.partition(":")[2] == whole.stdout.partition(":")[2]


REFUSED = {
    "ranks": (["v.zarr", "--ranks", "two"], 2, "give whole numbers"),
    "rank 0": (["v.zarr", "--ranks", "0:3"], 2, "give whole numbers"),
    "starts": (["v.zarr", "--ranks", "2", "--n-init", 0], 2, "n_init is 0"),
    "holdout": (["v.zarr", "--ranks", "2", "--holdout", 1], 2, "holdout is 1.0"),
    "time limit": (["v.zarr", "--ranks", "2", "--time-limit", -1], 2, "time_limit is -1.0"),
    "solver": (["v.zarr", "--ranks", "2", "--solver", "mu"], 2, "solver 'hals'"),
    "solver by strata": (["v.zarr", "--ranks", "2", "--solver", "sgd"], 2, "solver 'hals'"),
    "solver's other name": (["v.zarr", "--ranks", "2", "--solver", "cd"], 2, "'cd' is called 'hals' here"),
    "loss's other name": (["v.zarr", "--ranks", "2", "--beta-loss", "kl"], 2, "'kullback-leibler' here"),
    "loss": (["v.zarr", "--ranks", "2", "--beta-loss", "itakura-saito"], 2, "'kullback-leibler'"),
    "error bars": (["v.zarr", "--ranks", "2", "--error-bars", 1], 2, "error_bars is 1"),
    "figures": (
        ["v.zarr", "--ranks", "2", "--figures", "v.zarr/zarr.json/x"],
        2,
        "zarr.json is not a folder",
    ),
    "figures at a URL": (["v.zarr", "--ranks", "2", "--figures", "s3://bucket/x"], 2, "is a URL"),
    "no V": (["nothing.zarr", "--ranks", "2"], 2, "nothing.zarr"),
    "NaN": (["nan.npy", "--ranks", "2"], 3, "nan at row 1, column 2"),
    "negative": (["negative.npy", "--ranks", "2"], 3, "-1.0 at row 1, column 2"),
    "empty": (["empty.npy", "--ranks", "2"], 3, "empty"),
    "nothing held out": (["small.npy", "--ranks", "2", "--holdout", 0.001], 3, "give a larger holdout"),
}


def test_help_names_the_solver_and_the_losses_that_are_taken_and_no_others(dask_nmf: Run) -> None:
    help = " ".join(dask_nmf("select", "--help").stdout.split())
    assert "--solver [hals] Algorithm: hals, which" in help
    assert "Loss to minimise: frobenius or kullback-leibler." in help
    assert not {"mu", "sgd", "itakura-saito"} & set(re.findall(r"[\w-]+", help))


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_one_line_and_nothing_is_written(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path, case: str
) -> None:
    words, code, word = REFUSED[case]
    bad = v.copy()
    for name, value in (("nan", np.nan), ("negative", -1.0)):
        bad[1, 2] = value
        np.save(tmp_path / f"{name}.npy", bad)
    np.save(tmp_path / "empty.npy", v[:0])
    np.save(tmp_path / "small.npy", v[:4, :5])
    left = {path.name for path in tmp_path.iterdir()}
    assert_refused(dask_nmf("select", *words, "-o", "s.zarr"), code, word, folder=tmp_path, left=left)


def test_places_that_cannot_hold_a_selection_are_refused(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path
) -> None:
    inside = dask_nmf("select", "v.zarr", "--ranks", 2, "-o", "v.zarr/s.zarr")
    assert inside.returncode == 2
    assert "is inside of V" in inside.stderr
    over = dask_nmf("select", "v.zarr", "--ranks", 2, "-o", "v.zarr", "--overwrite")
    assert over.returncode == 2
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "note").write_text("mine")
    other = dask_nmf("select", "v.zarr", "--ranks", 2, "-o", "s.zarr", "--overwrite")
    assert other.returncode == 2
    assert "is not a selection" in other.stderr
    assert (tmp_path / "s.zarr" / "note").read_text() == "mine"
