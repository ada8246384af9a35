"""Labels of a V in memory are the names that its run keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray
from support.matrices import low_rank
from support.named import names, write_anndata

from dask_nmf import NMF, Run, nmf, select_rank

V = low_rank(12, 7, 2, noise=1)
ROWS, COLUMNS = names("r", 12), names("c", 7)
TABLE = pd.DataFrame(V, ROWS, COLUMNS)
TIMES = pd.date_range("2026-01-01", periods=12)
LEVELS = pd.MultiIndex.from_product([["a", "b"], range(6)])
HOLDERS: dict[str, tuple[Any, list[str] | None, list[str] | None]] = {
    "pandas": (TABLE, ROWS, COLUMNS),
    "pandas, no index": (pd.DataFrame(V, columns=COLUMNS), None, COLUMNS),
    "pandas, times": (TABLE.set_index(TIMES), TIMES.strftime("%Y-%m-%d").tolist(), COLUMNS),
    "pandas, levels": (TABLE.set_index(LEVELS), [f"{a}, {b}" for a, b in LEVELS], COLUMNS),
    "polars": (pl.DataFrame(V, schema=COLUMNS), None, COLUMNS),
    "dask": (dd.from_pandas(TABLE, npartitions=2, sort=False), ROWS, COLUMNS),
    "dask, no index": (dd.from_pandas(TABLE.reset_index(drop=True), npartitions=2), None, COLUMNS),
    "xarray": (xarray.DataArray(V, {"a": ROWS, "b": COLUMNS}, ("a", "b")), ROWS, COLUMNS),
    "AnnData": (
        anndata.AnnData(V, pd.DataFrame(index=ROWS), pd.DataFrame(index=COLUMNS)),
        ROWS,
        COLUMNS,
    ),
    "NumPy": (V, None, None),
}


def stored(run: Path) -> tuple[list[str] | None, list[str] | None]:
    result = Run.load_result(run)
    rows, columns = result.row_names, result.column_names
    return None if rows is None else rows[:].tolist(), None if columns is None else columns[:].tolist()


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_run_has_the_names_of_a_labelled_v(holder: str, tmp_path: Path) -> None:
    source, rows, columns = HOLDERS[holder]
    result = nmf(source, 2, max_iter=2, store=tmp_path / "run.zarr")
    assert stored(tmp_path / "run.zarr") == (rows, columns)
    W = Run.load_result(tmp_path / "run.zarr").read("W")
    np.testing.assert_array_equal(np.asarray(result.W), W)
    model = NMF.load(tmp_path / "run.zarr")
    assert getattr(model, "feature_names_in_", np.array([])).tolist() == (columns or [])
    assert model.transform(source).shape == (12, 2)  # without a warning about names
    if columns is not None:
        with pytest.raises(ValueError, match="feature names should match"):
            model.transform(TABLE[columns[::-1]])


def test_years_are_names_that_a_loaded_estimator_knows(tmp_path: Path) -> None:
    table = pd.DataFrame(V, columns=[*range(1990, 1997)])
    nmf(table, 2, max_iter=2, store=tmp_path / "run.zarr")
    model = NMF.load(tmp_path / "run.zarr")
    assert model.feature_names_in_.tolist() == [str(year) for year in range(1990, 1997)]
    assert model.transform(table).shape == (12, 2)


def test_names_beside_a_stored_v_are_those_of_an_estimator(tmp_path: Path) -> None:
    write_anndata(tmp_path / "v.zarr", V, ROWS, COLUMNS)
    model = NMF(2, max_iter=2, tol=1).fit(tmp_path / "v.zarr")
    assert model.feature_names_in_.tolist() == COLUMNS
    assert model.transform(tmp_path / "v.zarr").shape == (12, 2)


def test_the_fit_of_a_selection_has_them(tmp_path: Path) -> None:
    select_rank(TABLE, [1, 2], n_init=2, max_iter=3, store=tmp_path / "selection.zarr")
    assert stored(tmp_path / "selection.zarr") == (ROWS, COLUMNS)
