"""Tables give tables: those of pandas, polars, pyarrow and Dask, through `nmf` and through `NMF`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from sklearn.decomposition import NMF as SklearnNMF  # noqa: N811
from sklearn.pipeline import make_pipeline
from support.matrices import Array, low_rank

from dask_nmf import NMF, nmf, predict

M, N, K = 24, 7, 3
NAMES = ["nmf0", "nmf1", "nmf2"]
ASKED: dict[str, Any] = {"max_iter": 4, "tol": 0}
V = low_rank(M, N, K)
INDEX = [f"row {number:02}" for number in range(M)]
COLUMNS = [f"column {number}" for number in range(N)]
FRAME = pd.DataFrame(V, INDEX, COLUMNS)
W, H = (np.asarray(factor) for factor in nmf(V, K, **ASKED))


def model(**options: Any) -> NMF:
    return NMF(K, random_state=0, **ASKED, **options)


def lazy(frame: pd.DataFrame = FRAME) -> Any:
    return dd.from_pandas(frame, npartitions=3)


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.set_axis(range(N), axis=1),
        FRAME.set_axis(pd.MultiIndex.from_product([["a"], COLUMNS]), axis=1),
        FRAME.set_axis(pd.MultiIndex.from_product([range(4), range(6)], names=["day", "hour"])),
        FRAME.set_axis(pd.date_range("2020", periods=M, name="day")),
        FRAME.convert_dtypes(),
    ],
    ids=["names", "numbers", "columns of two levels", "index of two levels", "days", "nullable"],
)
def test_pandas_gives_pandas(frame: pd.DataFrame) -> None:
    result = nmf(frame, K, **ASKED)
    pd.testing.assert_frame_equal(result.W, pd.DataFrame(W, frame.index, NAMES))
    pd.testing.assert_frame_equal(result.H, pd.DataFrame(H, NAMES, frame.columns))
    assert repr(result).startswith(f"<Result: V {M} x {N} ≈ W H of rank {K};")
    np.testing.assert_allclose(predict(*result, [0, 1], [2, 3]), (W @ H)[[0, 1], [2, 3]])


@pytest.mark.parametrize(
    "make", [pl.from_pandas, lambda frame: pa.Table.from_pandas(frame, preserve_index=False)]
)
def test_polars_and_pyarrow_give_their_tables(make: Callable[[Any], Any]) -> None:
    table = make(FRAME)
    result = nmf(table, K, **ASKED)
    assert type(result.W) is type(result.H) is type(table)
    for factor, values, names in ((result.W, W, NAMES), (result.H, H, COLUMNS)):
        frame = factor.to_pandas()
        assert list(frame.columns) == names
        np.testing.assert_array_equal(frame, values)


@pytest.mark.parametrize("empty", [False, True])
def test_dask_gives_dask_with_the_same_partitions(empty: bool) -> None:
    frame = lazy(FRAME.assign(first=np.arange(M)))
    frame = frame[frame["first"] >= (10 if empty else 0)].drop(
        columns="first"
    )  # nothing of a partition is left
    result = nmf(frame, K, **ASKED)
    assert isinstance(result.W, dd.DataFrame)
    whole = frame.compute()
    pd.testing.assert_index_equal(result.W.compute().index, whole.index)
    assert list(result.W.columns) == NAMES
    assert repr(result).startswith(f"<Result: V {len(whole)} x {N} ")
    expected = nmf(da.from_array(whole.to_numpy()), K, **ASKED)
    np.testing.assert_allclose(result.W.compute() @ result.H, expected.W @ expected.H, rtol=1e-6)
    if not empty:
        assert result.W.divisions == frame.divisions


def test_a_run_gives_tables_too(tmp_path: Path) -> None:
    for _ in range(2):
        result = nmf(FRAME, K, store=tmp_path / "run.zarr", **ASKED)
        pd.testing.assert_index_equal(result.W.index, FRAME.index)


def test_the_output_is_that_of_scikit_learns_nmf() -> None:
    theirs = SklearnNMF(K, random_state=0, max_iter=5, tol=0.5).set_output(transform="pandas").fit(FRAME)
    ours = model().set_output(transform="pandas").fit(FRAME)
    for method in ("transform", "fit_transform"):
        mine, other = (getattr(one, method)(FRAME) for one in (ours, theirs))
        pd.testing.assert_index_equal(mine.index, other.index)
        pd.testing.assert_index_equal(mine.columns, other.columns)
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
    assert list(ours.feature_names_in_) == list(theirs.feature_names_in_)
    for wrong in (FRAME[COLUMNS[::-1]], FRAME.rename(columns={"column 0": "other"}), FRAME[COLUMNS[1:]]):
        messages = []
        for one in (ours, theirs):
            with pytest.raises(ValueError, match="feature names") as raised:
                one.transform(wrong)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
        with pytest.raises(ValueError, match="feature names should match"):
            ours.transform(lazy(wrong))


@pytest.mark.parametrize(
    ("make", "container"),
    [
        (pd.DataFrame, "pandas"),
        (pd.DataFrame.to_numpy, "pandas"),
        (pl.from_pandas, "polars"),
        (lazy, "pandas"),
        (lazy, "polars"),
        (lambda _: da.from_array(V, chunks=(9, 4)), "pandas"),
    ],
    ids=["pandas", "numpy", "polars", "dask frame", "dask frame to polars", "dask"],
)
def test_the_output_that_is_set_is_kept(make: Callable[[Any], Any], container: str) -> None:
    x = make(FRAME)
    fitted = model().set_output(transform=container)
    lazily = container == "pandas" and type(x).__module__.startswith("dask")
    for out in (fitted.fit_transform(x), fitted.transform(x)):
        assert isinstance(out, dd.DataFrame if lazily else {"pandas": pd, "polars": pl}[container].DataFrame)
        assert list(out.columns) == NAMES
        np.testing.assert_allclose(np.asarray(out), W, rtol=1e-5, atol=1e-9)
    if isinstance(x, dd.DataFrame) and lazily:
        assert fitted.transform(x).divisions == x.divisions


def test_the_output_of_all_estimators_and_of_a_pipeline() -> None:
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(model().fit_transform(lazy()), dd.DataFrame)
        assert isinstance(model().fit_transform(V), pd.DataFrame)
    pipeline = make_pipeline(model()).set_output(transform="pandas")
    assert isinstance(pipeline.fit_transform(lazy()), dd.DataFrame)
    assert isinstance(sklearn.clone(model().set_output(transform="pandas")).fit_transform(V), pd.DataFrame)
    assert isinstance(model().fit_transform(FRAME), np.ndarray)
    assert isinstance(model().fit_transform(lazy()), da.Array)


def test_the_inverse_of_a_table_is_a_table() -> None:
    fitted = model().fit(FRAME)
    expected = pd.DataFrame(W @ fitted.components_, INDEX, COLUMNS)
    frame = pd.DataFrame(W, INDEX, NAMES)
    pd.testing.assert_frame_equal(fitted.inverse_transform(frame), expected)
    of_dask = fitted.inverse_transform(dd.from_pandas(frame, npartitions=3))
    assert isinstance(of_dask, dd.DataFrame)
    pd.testing.assert_frame_equal(of_dask.compute(), expected, check_index_type=False)
    of_polars = fitted.inverse_transform(pl.from_pandas(frame))
    np.testing.assert_allclose(of_polars, expected)
    assert of_polars.columns == COLUMNS
    assert isinstance(fitted.inverse_transform(W), np.ndarray)
    assert list(model().fit(V).inverse_transform(frame).columns) == list(range(N))


def rows_of(frame: Any) -> Array:
    return np.asarray(frame.compute() if isinstance(frame, dd.DataFrame) else frame)


def test_batches_of_tables_are_learned() -> None:
    fitted = model().partial_fit(FRAME[:12]).partial_fit(lazy(FRAME[12:]))
    np.testing.assert_allclose(
        fitted.components_, model().partial_fit(V[:12]).partial_fit(V[12:]).components_, rtol=1e-6
    )
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.partial_fit(FRAME[COLUMNS[::-1]])
