"""Values of W H at some cells, compared with W H itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import Forks, assert_refused
from support.factors import (
    HOLDERS,
    LEFT,
    RANK,
    factors,
    product,
    shapes,
    table,
)
from support.matrices import Array, low_rank
from support.strategies import chunkings, seeds

from dask_nmf import nmf, predict
from dask_nmf.iteration.loop import Step


@shapes
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.usefixtures("small_steps")
@given(data=st.data(), seed=seeds, pairs=st.integers(0, 80))
def test_values_are_those_of_w_h(
    shape: tuple[int, int], holder: str, data: Any, seed: int, pairs: int
) -> None:
    random = np.random.default_rng(seed)
    w, h = random.random((shape[0], RANK)), random.random((RANK, shape[1]))
    rows, columns = random.integers(0, shape[0], pairs), random.integers(0, shape[1], pairs)
    held = [HOLDERS[holder](factor, data.draw(chunkings(factor.shape))) for factor in (w, h)]
    values = predict(*held, rows, columns)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, (w @ h)[rows, columns], rtol=1e-12)


def test_what_a_fit_gives_can_be_looked_up() -> None:
    result = nmf(low_rank(50, 20, RANK, dtype=np.float32), RANK, max_iter=2)
    rows, columns = np.array([49, 0, 7], np.uint16), [19, 0, 7]
    values = predict(result.W, result.H, rows, columns)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, (result.W @ result.H).compute()[rows, columns], rtol=1e-5)


class Counting:
    """A factor that records the slices that were read."""

    def __init__(self, factor: Array) -> None:
        self.factor, self.read = factor, []
        self.shape, self.dtype = factor.shape, factor.dtype

    def __getitem__(self, index: Any) -> Array:
        self.read.append(index)
        return self.factor[index]


@pytest.mark.usefixtures("small_steps")
def test_only_the_rows_that_are_needed_are_read_a_few_at_a_time() -> None:
    w, h = factors((60, 10))
    counting = Counting(w)
    predict(counting, h, [41, 6, 40, 5, 59, 5], [0, 9, 1, 2, 3, 4])
    assert counting.read == [slice(5, 7), slice(40, 42), slice(59, 60)]  # of blocks of four rows


NO_CELLS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "row too large": ([0, 1, 60], [0, 1, 2], IndexError, "cell 2: row 60, column 2 .* 60 x 25"),
    "column too large": ([0, 1], [25, 30], IndexError, "cell 0: row 0, column 25"),
    "negative": ([0, -1], [0, 1], IndexError, "cell 1: row -1, column 1"),
    "beyond int64": (np.array([2**64 - 1], np.uint64), [0], IndexError, "row 18446744073709551615"),
    "floats": ([0.0], [1], ValueError, "float64"),
    "other length": ([0, 1], [0], ValueError, "one of each"),
    "two dimensions": ([[0]], [[0]], ValueError, r"\(1, 1\)"),
}


@pytest.mark.parametrize("case", NO_CELLS)
def test_what_is_no_cell_is_refused(case: str) -> None:
    rows, columns, kind, words = NO_CELLS[case]
    with pytest.raises(kind, match=words):
        predict(*factors((60, 25)), rows, columns)


def test_factors_must_fit() -> None:
    w, h = factors((60, 25))
    with pytest.raises(ValueError, match=r"\(60, 3\) and H \(2, 25\)"):
        predict(w, h[:2], [0], [0])


def test_the_command_predicts(folder: Path, forks: Forks) -> None:
    words = ["predict", "run.zarr", "pairs.csv", "--output", "out.csv"]
    done = forks.call(words, folder)
    assert (done.returncode, done.stdout) == (0, "out.csv: 1000 values\n"), done.stderr
    assert {path.name for path in folder.iterdir()} == {*LEFT, "out.csv"}
    rows, columns, values = table(folder / "out.csv").T
    np.testing.assert_array_equal(rows * 40 + columns, np.arange(11000, 12000))
    np.testing.assert_allclose(values, product(folder)[275:].ravel(), rtol=1e-5)

    (folder / "pairs.csv").write_text("3,4\n5,40\n")
    before = (folder / "out.csv").read_text()
    assert_refused(forks.call(words, folder), 2, "out.csv exists", folder=folder, left={*LEFT, "out.csv"})
    bad = forks.call((*words, "--overwrite"), folder)
    assert_refused(
        bad, 3, "pairs.csv, line 2: row 5, column 40", "300 x 40", folder=folder, left={*LEFT, "out.csv"}
    )
    assert (folder / "out.csv").read_text() == before
    (folder / "pairs.csv").write_text("3,4\n")
    assert forks.call((*words, "--overwrite"), folder).returncode == 0
    assert len((folder / "out.csv").read_text().splitlines()) == 2


def test_a_run_without_its_answer_is_refused(folder: Path, forks: Forks) -> None:
    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(folder / "run.zarr")
    with pytest.raises(KeyboardInterrupt):
        nmf(str(folder / "v.zarr"), RANK, store=str(folder / "run.zarr"), callback=stop)
    (folder / "run.zarr.lock").unlink(missing_ok=True)
    for words in (["predict", "run.zarr", "pairs.csv"], ["recommend", "run.zarr", "v.zarr"]):
        told = forks.call((*words, "--output", "out.csv"), folder)
        assert_refused(told, 2, "finish it with dask-nmf fit", folder=folder, left=LEFT)
