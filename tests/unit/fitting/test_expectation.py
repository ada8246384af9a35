"""What a run expects of its passes when they begin, beside what came."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.cuts import cut_both_ways
from support.matrices import low_rank

from dask_nmf import Run, nmf
from dask_nmf.fitting.starts import initialize
from dask_nmf.fitting.starts.sampled import trial
from dask_nmf.fitting.starts.sampled.trial import SampledStart
from dask_nmf.report import write
from dask_nmf.report.drawing import svg
from dask_nmf.report.sections.passes import passes_section
from dask_nmf.runs.record.work import EXPECTED

RANK = 3
SHAPE = (60, 40)


def noisy(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A V of low rank and rows of unequal sizes with noise, of which a part is not explained."""
    rng = np.random.default_rng(0)
    sizes = rng.gamma(0.5, size=(shape[0], 1))
    return sizes * low_rank(*shape, RANK) * rng.gamma(4, 1 / 4, size=shape)


def with_holes() -> np.ndarray:
    return np.where(np.random.default_rng(1).random(SHAPE) < 0.2, np.nan, noisy())


@pytest.mark.parametrize(
    ("V", "options"),
    [
        (noisy(), {}),
        (noisy((1500, 50)), {"n_init": 2}),
        (noisy(), {"beta_loss": "kullback-leibler"}),
        (noisy((1500, 50)), {"beta_loss": "kullback-leibler"}),
        (scipy.sparse.csr_array(np.floor(noisy((50, 80)))), {}),
        (with_holes(), {"missing": "nan"}),
        (noisy(), {"validation_fraction": 0.1}),
        (noisy(), {"solver": "mu"}),
    ],
    ids=["dense", "a part of V is the sample", "KL", "KL of a part", "wide CSR", "missing", "held out", "mu"],
)
def test_the_error_is_that_of_the_sample(V: Any, options: dict[str, Any], tmp_path: Path) -> None:
    nmf(V, RANK, max_iter=2, store=tmp_path / "run.zarr", **options)
    record = Run.load(tmp_path / "run.zarr").record
    expected, found = record["result"]["expected"], record["history"]["relative_error"]
    assert set(expected) == {*EXPECTED}
    assert expected["relative_error"] == pytest.approx(found[0], rel=0.01)
    assert (expected["pass_seconds"] is None) == (options.get("solver") == "mu")
    assert Run.load(tmp_path / "run.zarr").summary()["expected"] == expected
    assert expected["worker_bytes"] == record["result"]["work"]["planned_bytes"]


def test_the_error_of_a_small_sample_is_by_its_own_size(tmp_path: Path) -> None:
    """The squares of a sample, scaled to stand for V, add up to a little more or less than those of V."""
    rng = np.random.default_rng(0)
    V = low_rank(20_000, 20, RANK) * rng.gamma(400, 1 / 400, size=(20_000, 20))
    nmf(V, RANK, max_iter=1, store=tmp_path / "run.zarr")
    record = Run.load(tmp_path / "run.zarr").record
    found = record["history"]["relative_error"][0]
    assert found < 0.06  # the error of the sample is far less than what its size and that of V differ by
    assert record["expected"]["relative_error"] == pytest.approx(found, rel=0.03)


def test_seconds_are_by_the_entries_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def tried(sample: Any, *rest: Any) -> SampledStart:
        start = trial.tried_start(sample, *rest)
        counted.append((sample.shape, start.visited))
        return start

    monkeypatch.setattr(initialize, "tried_start", tried)
    V = np.floor(2 * noisy())
    nmf(V, RANK, max_iter=1, beta_loss="kullback-leibler")
    assert counted == [(V.shape, np.count_nonzero(V) + RANK * len(V))]


@pytest.mark.parametrize(
    "options", [{"init": "random"}, {"init": "nndsvd"}, {"beta_loss": 0.5, "solver": "mu"}]
)
def test_without_a_sample_that_was_fitted_with_this_loss_no_error_is_expected(
    options: dict[str, Any], tmp_path: Path
) -> None:
    nmf(noisy(), RANK, max_iter=1, store=tmp_path / "run.zarr", **options)
    expected = Run.load_result(tmp_path / "run.zarr").record["expected"]
    assert expected["relative_error"] is expected["pass_seconds"] is None
    assert expected["client_bytes"] > 0


def test_seconds_are_expected_where_v_is_cut_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_both_ways(monkeypatch, (0, 30, 60), (0, 10, 40), 2)
    nmf(da.from_array(noisy(), chunks=10), RANK, max_iter=1, store=tmp_path / "run.zarr")
    expected = Run.load_result(tmp_path / "run.zarr").record["expected"]
    assert expected["pass_seconds"] > 2 * expected["read_seconds"]


def test_seconds_follow_the_size_of_v_and_the_threads() -> None:
    start = SampledStart(np.zeros((2, 3)), 0.5, task_seconds=1.0, update_seconds=0.25, visited=100.0)
    assert start.pass_seconds(800.0, 4) == 2.25


@pytest.mark.parametrize(
    ("error", "seconds", "said"),
    [
        (0.5, 2.0, "were expected of processors"),
        (0.5, None, "No seconds were expected, because the sample was fitted by passes of another kind"),
        (None, None, "Neither an error nor seconds were expected, because the start was not from a sample"),
    ],
)
def test_a_report_says_why_nothing_was_expected(
    error: float | None, seconds: float | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "svg_text", lambda figure: "<svg/>")
    history = {"relative_error": [0.6, 0.5], "seconds": [1.0, 1.0]}
    expected = {"relative_error": error, "pass_seconds": seconds}
    assert said in " ".join(passes_section(history, expected).paragraphs)
    assert "an earlier pass" not in " ".join(passes_section(history, expected, 0.5).paragraphs)
    assert "an earlier pass, at which" in " ".join(passes_section(history, expected, 0.6).paragraphs)


def test_a_run_that_has_recorded_nothing_is_opened_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "svg_text", lambda figure: "<svg/>")  # figures take seconds to draw
    place = tmp_path / "run.zarr"
    nmf(noisy(), RANK, max_iter=2, store=place)
    write(place, tmp_path / "new.html")
    group = zarr.open_group(place)
    record = group.attrs["dask_nmf"]
    del record["expected"], record["result"]["expected"]
    group.attrs["dask_nmf"] = record
    assert "expected" not in Run.load(place).summary()
    write(place, tmp_path / "old.html")
    new, old = ((tmp_path / name).read_text("utf-8") for name in ("new.html", "old.html"))
    for text in (
        "Expected when the passes began, and found",
        "The error ended at 0.",
        "A level line is at 0.",
    ):
        assert text in new
        assert text not in old
    assert ", and the client" in new
