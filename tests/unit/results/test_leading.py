"""The best columns and rows of each component, against sorted factors in memory."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.matrices import low_rank
from support.named import names, write_named

from dask_nmf import Run, nmf
from dask_nmf.cli.app import app
from dask_nmf.quality.features import feature_score
from dask_nmf.results import sides, top

ROWS, COLUMNS = names("cell,", 40), names("gene ", 15)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leading")
    place = write_named(folder / "V.zarr", low_rank(40, 15, 3, noise=0.3), ROWS, COLUMNS)
    nmf(place, 3, max_iter=9, store=folder / "run.zarr")
    return folder / "run.zarr"


def shares_of(run: Path, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor of a side with components of sum 1, (lines, k), and the share of each line of W H."""
    W, H = (Run.load_result(run).read(name).astype(float) for name in "WH")
    lines = W if rows else H.T
    overall = (W @ H).sum(axis=1 if rows else 0)
    return lines / lines.sum(axis=0), overall / overall.sum()


def values_of(run: Path, by: str, rows: bool) -> np.ndarray:
    """Return the values by which lines are listed, NaN where a line is not listed."""
    shares, overall = shares_of(run, rows)
    if by == "weight":
        return np.where(shares > 0, shares, np.nan)
    if by == "lift":
        return np.where(shares > 0, shares / overall[:, None], np.nan)
    own = shares.argmax(axis=1)[:, None] == np.arange(3)
    return np.where(own, feature_score(shares.T)[:, None], np.nan)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("by", ["weight", "lift", "score"])
@pytest.mark.parametrize("n", [4, 100])
def test_the_best_are_those_of_argsort(
    n: int, by: str, rows: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "BYTES", 1)  # a piece for each chunk
    values, index = values_of(run, by, rows), ROWS if rows else COLUMNS
    for component, leading in enumerate(top(run, n, by, rows)):
        expected = np.argsort(-values[:, component], kind="stable")[:n]
        expected = expected[~np.isnan(values[expected, component])]
        np.testing.assert_allclose(leading.values, values[expected, component])
        assert leading.numbers.tolist() == expected.tolist()
        assert leading.names is not None
        assert leading.names.tolist() == [index[number] for number in expected]


def test_ties_go_to_the_first_and_zeros_are_not_listed(tmp_path: Path) -> None:
    h = np.array([[0, 2, 1, 2, 0, 2], [3, 0, 0, 0, 0, 0]], np.float32)
    w = np.ones((5, 2), np.float32)
    nmf(w @ h, 2, fixed_H=h, store=tmp_path / "run.zarr")
    first, second = top(tmp_path / "run.zarr", 2)
    assert (first.numbers.tolist(), second.numbers.tolist()) == ([1, 3], [0])
    np.testing.assert_allclose(first.values, [2 / 7, 2 / 7])
    assert first.names is None


def test_the_command_prints_text_csv_and_json(run: Path) -> None:
    def printed(*options: str) -> str:
        result = CliRunner().invoke(app, ["top", str(run), "--n", "2", *options], standalone_mode=False)
        assert result.exception is None
        return result.output

    found = top(run, 2, "lift", rows=True)
    table = list(csv.DictReader(printed("--by", "lift", "--rows", "--format", "csv").splitlines()))
    assert [entry["name"] for entry in table] == [name for one in found for name in one.names]  # type: ignore[union-attr]
    assert [(line["component"], line["rank"]) for line in table[:3]] == [("0", "1"), ("0", "2"), ("1", "1")]
    assert [float(line["lift"]) for line in table] == [value for one in found for value in one.values]
    told = json.loads(printed("--format", "json"))
    best = top(run, 2)[1]
    assert (told["by"], told["of"]) == ("weight", "columns")
    assert told["components"][1][0] == {
        "column": int(best.numbers[0]), "name": best.names[0], "weight": best.values[0]  # type: ignore[index]
    }  # fmt: skip
    line = printed().splitlines()[1]
    assert line.startswith(f"component 1: {best.names[0]} {best.values[0]:.4g}, ")  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n is 0; it must be an integer ≥ 1"),
        ({"by": "size"}, "by is 'size'; it must be one of weight, lift, score"),
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, Any], words: str, run: Path) -> None:
    with pytest.raises(ValueError, match=words):
        top(run, **options)


def test_a_score_of_one_component_is_refused(tmp_path: Path) -> None:
    nmf(low_rank(6, 5, 1), 1, store=tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"the run has one; give by='weight'"):
        top(tmp_path / "run.zarr", by="score")
