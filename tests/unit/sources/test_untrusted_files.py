"""Runs that lie, files that are damaged, and names that steer terminals; see docs/security.md."""

import json
import random
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import Forks
from support.headers import CLAIMS, MOST
from support.matrices import low_rank
from tools import fuzz
from tools.damage import damage

from dask_nmf import Run
from dask_nmf.display.text import escape_control
from dask_nmf.errors import DataError, InvalidRunError
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.runs.commits import KEY
from dask_nmf.runs.record.validation import MEASURES, OPTIONAL_MEASURES
from dask_nmf.storage.locations import locate, locate_file

ROOT = Path(__file__).resolve().parents[3]
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\nlevel=error forged\u202e"

# Runs that lie.

RECORDS: dict[str, tuple[tuple[str, ...], Any]] = {
    "rank of text": (("settings", "n_components"), "2"),
    "starts": (("settings", "n_init"), 10**9),
    "starts of the answer": (("result", "settings", "n_init"), 10**9),
    "solver": (("settings", "solver"), "\x1b[31m"),
    "loss": (("settings", "beta_loss"), [2]),
    "no settings": (("settings",), None),
    "shape of one": (("matrix", "shape"), [30]),
    "dtype": (("matrix", "dtype"), "|O"),
    "transposed": (("matrix", "transposed"), "no"),
    "pass": (("pass",), 10**12),
    "pass of text": (("pass",), "3"),
    "history": (("history",), []),
    "errors": (("history", "relative_error"), {"0": 1}),
    "seconds": (("history", "seconds"), ["1", "1", "1"]),
    "measures": (("measures", "baseline"), None),
    "measures of the answer": (("result", "measures", "baseline"), None),
    "folder of the answer": (("result", "folder"), "../../etc"),
    "chunks of the answer": (("result", "units"), [10**9, 1]),
    "layout": (("layout", "panels"), 10**12),
    "carried": (("carried",), {"0": "data/../../x"}),
    "scale": (("measures", "scale"), 0),
    "unit": (("measures", "right_unit"), 1e-320),
    "listing": (("listing",), {"V": 7}),
    "listing of what": (("listing",), {"V": None, "../V": "0"}),
    "outcome": (("outcome",), "converged: 1"),
    "message": (("message",), {"a": 1}),
    "result": (("result",), 1),
    "encoding": (("encoding",), 2),
    "state": (("state", "w_slot"), 9),
    "state of text": (("state", "own_beta"), "0.5"),
    "state of another solver": (("state", "own_rate"), 1.0),
    "slot of the best": (("state", "held_out_best_slot"), -2),
    "factors": (("factors",), ["../../h"]),
    "factors of a number": (("factors",), ["loss"]),
}


def put(run: Path, keys: tuple[str, ...], value: Any) -> None:
    told = json.loads((run / "zarr.json").read_text())
    part = told["attributes"][KEY]
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    (run / "zarr.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs to copy."""
    return {
        state: fuzz.a_run(tmp_path_factory.mktemp(state), state)
        for state in ("finished", "stopped", "broken")
    }


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run.parent, folder / "it")) / run.name


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_no_commit_made_is_damaged(case: str, sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    put(run, *RECORDS[case])
    with pytest.raises(
        InvalidRunError, match=r"run\.zarr is damaged: .*; restore it, or remove it"
    ) as refused:
        Run.load(run)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("attributes", [[30, 20], [], "x", 1])
def test_attributes_that_are_no_object_are_refused(attributes: Any, tmp_path: Path) -> None:
    path = fuzz.matrix("zarr v3", tmp_path)
    told = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**told, "attributes": attributes}))
    assert fuzz.checked_matrix(path) == "DataError"


def test_a_rank_that_its_factors_do_not_have_is_damage(sound: dict[str, Path], tmp_path: Path) -> None:
    broken, finished = (copied(sound[state], tmp_path / state) for state in ("broken", "finished"))
    put(broken, ("settings", "n_components"), 10**9)
    put(finished, ("result", "settings", "n_components"), 10**9)
    refused = r"run\.zarr is damaged: .*\b1000000000\b.*; restore it"
    with pytest.raises(InvalidRunError, match=refused):
        Run.load(broken).state()
    with pytest.raises(InvalidRunError, match=refused):
        Run.load_result(finished).read("H")


def test_the_measures_of_a_record_are_those_of_a_fit() -> None:
    assert Measures._fields == (*MEASURES, *OPTIONAL_MEASURES)


def test_a_lost_part_of_a_commit_costs_its_pass(sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["broken"], tmp_path)
    record = Run.load(run).record
    assert (record["pass"], record["previous"]["pass"]) == (2, 1)
    shutil.rmtree(run / "data" / record["commit"] / "H")
    again, whole = fuzz.fitted(run), fuzz.fitted(copied(sound["finished"], tmp_path / "whole"))
    np.testing.assert_array_equal(again.H, whole.H)
    np.testing.assert_array_equal(again.W, whole.W)


def test_lost_parts_of_both_commits_are_missed(sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["broken"], tmp_path)
    for lost in (run / "data").glob("pass-*/H"):
        shutil.rmtree(lost)
    with pytest.raises(InvalidRunError, match=r"run\.zarr is damaged: .*H.*; restore it"):
        fuzz.fitted(run)


@pytest.mark.parametrize("name", ["W/c.0.0", "H/c.0.0"])
def test_a_lost_part_of_an_answer_is_missed(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    (run / "data" / Run.load(run).record["result"]["folder"] / name).unlink()
    with pytest.raises(InvalidRunError, match="damaged"):
        predict_to(locate(run), run.parent / "cells.csv", locate_file(tmp_path / "out.csv"), False)


def test_an_answer_that_claims_another_size_is_damaged(sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    put(run, ("result", "matrix", "shape"), [30, 10**12])
    with pytest.raises(InvalidRunError, match="damaged"):
        transform_to(
            locate(run), run.parent / "v.npy", locate(tmp_path / "w.zarr"), False, lambda _: nullcontext()
        )


def test_a_line_of_cells_without_an_end_is_refused(sound: dict[str, Path], tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="line 1"):
            predict_to(locate(sound["finished"]), Path("/dev/zero"), locate_file(tmp_path / "out.csv"), False)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


# What is shown.


def test_visible_text_is_one_line_that_can_be_printed() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert escape_control(everything).isprintable()
    plain = "".join(char for char in everything if char.isprintable())
    assert escape_control(plain) == plain
    assert escape_control("a\nb\x1b[0m\udcff") == r"a\nb\x1b[0m\udcff"


@pytest.fixture
def shown(forks: Forks, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command; checks that what it says steers nothing."""

    def call(*words: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
        answer = forks.call(words, tmp_path)
        for text in (answer.stdout, answer.stderr):
            assert all(line.isprintable() for line in text.split("\n")), text
            assert "\nlevel=error" not in text
        assert answer.returncode == code, answer.stderr
        return answer

    return call


def test_names_and_attributes_steer_no_terminal(
    shown: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    v, run = tmp_path / f"{ESCAPES}.npy", tmp_path / f"run{ESCAPES}.zarr"
    np.save(v, low_rank(30, 20, 2))
    shown("fit", v, "--rank", 2, "--output", run, "--max-iter", 2)
    shown("fit", v, "--rank", 3, "--output", run, code=2)
    lines = shown("fit", v, "--rank", 2, "--output", run, "--max-iter", 2, "--log-format", "json").stderr
    assert all("event" in json.loads(line) for line in lines.splitlines())
    put(run, ("message",), ESCAPES)
    put(run, ("matrix", "source"), ESCAPES)
    assert "\\x1b[2J" in shown("info", run).stdout
    assert json.loads(shown("info", run, "--json").stdout)["message"] == ESCAPES
    (tmp_path / "cells.csv").write_text(f"0,0\n{ESCAPES}\n")
    shown("predict", run, "cells.csv", "--output", "values.csv", code=3)
    put(run, ("settings", "solver"), ESCAPES)
    assert "damaged" in shown("info", run, code=2).stderr
    assert "\\x1b[2J" in shown("info", run, ESCAPES, code=2).stderr


@pytest.mark.parametrize("case", ["zarr v2 rows", "csc row outside", "npz lies", "deep"])
def test_the_command_refuses_hostile_files_in_one_line(
    case: str, shown: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    source = CLAIMS[case][0](tmp_path)
    error = shown("fit", source, "--rank", 2, "--output", "run.zarr", code=3).stderr
    assert len(error.splitlines()) == 1
    assert error.startswith("dask-nmf: ")


# Damage at random.


@pytest.mark.parametrize("kind", fuzz.MATRICES)
@settings(max_examples=20)
@given(draw=st.randoms(use_true_random=False))
def test_a_damaged_matrix_is_refused_or_read_as_others_read_it(
    kind: str, draw: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = fuzz.matrix(kind, tmp_path_factory.mktemp("v"))
    damage(path, draw)
    fuzz.checked_matrix(path)


@pytest.mark.parametrize("state", fuzz.STATES)
@settings(max_examples=10)
@given(draw=st.randoms(use_true_random=False))
def test_a_damaged_run_is_refused_or_right(
    state: str, draw: random.Random, sound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = copied(sound[state], tmp_path_factory.mktemp("run"))
    damage(run, draw)
    fuzz.checked_run(run)


@pytest.mark.real
@pytest.mark.parametrize("seed", ["one", "two"])
def test_a_minute_of_damage(seed: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tools.fuzz", "0.5", seed]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The page.


def test_the_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"`tests/([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 10
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name
