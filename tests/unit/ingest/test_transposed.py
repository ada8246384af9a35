"""Columns of sources become rows of V, with their names, whatever the kind and the size of pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.matrices import matrix_rows, transposed

V = np.random.default_rng(0).poisson(0.7, (23, 17)).astype(np.float32)
GENES = [f"gene {number}" for number in range(23)]
CELLS = [f"cell {number}" for number in range(17)]
TABLE = pd.DataFrame(V, GENES, CELLS)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of some rows, and chunks of some columns."""
    monkeypatch.setattr(matrix_rows, "BATCH", 5 * V[0].nbytes)
    monkeypatch.setattr(transposed, "BATCH", 5 * V[:, 0].nbytes)
    monkeypatch.setattr(transposed, "CHUNK", 16)
    monkeypatch.setattr(transposed, "PARTS", 6)


def written(folder: Path, kind: str) -> tuple[object, dict[str, str]]:
    """Return a source of genes by cells, and how it is read."""
    path = folder / f"v.{kind}"
    if kind == "csv":
        TABLE.to_csv(path, index_label="gene")
        return path, {"row": "gene"}
    if kind == "mtx":
        scipy.io.mmwrite(path, scipy.sparse.coo_array(V))
        return path, {}
    if kind == "entries.csv":
        entries = TABLE.rename_axis("gene").reset_index().melt("gene", var_name="cell")
        entries.to_csv(path, index=False)
        return path, {"row": "gene", "column": "cell", "value": "value"}
    return (TABLE if kind == "pandas" else scipy.sparse.csc_array(V)), {}


@pytest.mark.parametrize("kind", ["csv", "mtx", "entries.csv", "pandas", "csc"])
def test_v_is_the_transpose(tmp_path: Path, kind: str) -> None:
    source, options = written(tmp_path, kind)
    convert(source, tmp_path / "v.zarr", transpose=True, **options)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V.T)
    if options or kind == "pandas":
        assert names_of(tmp_path / "v.zarr", "obs") == CELLS
        assert names_of(tmp_path / "v.zarr", "var") == GENES


def test_steps_act_on_v_and_like_turns_new_files(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "v.csv", index_label="gene")
    TABLE[CELLS[:4]].iloc[::-1].to_csv(tmp_path / "new.csv", index_label="gene")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", row="gene", transpose=True, top_columns=6, top_by="sum")
    kept = names_of(tmp_path / "v.zarr", "var")
    assert sorted(kept) == sorted(TABLE.sum(axis=1).sort_values(ascending=False, kind="stable").index[:6])
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), TABLE.loc[kept].T)
    convert(tmp_path / "new.csv", tmp_path / "new.zarr", row="gene", like=tmp_path / "v.zarr")
    assert names_of(tmp_path / "new.zarr", "obs") == CELLS[:4]
    np.testing.assert_array_equal(matrix_of(tmp_path / "new.zarr"), TABLE.loc[kept, CELLS[:4]].T)


def test_a_v_that_was_turned_is_known_as_such(tmp_path: Path) -> None:
    convert(TABLE, tmp_path / "v.zarr", transpose=True)
    convert(tmp_path / "v.zarr", tmp_path / "copy.zarr", chunks=5)
    for like in ("v.zarr", "copy.zarr"):
        for source in (TABLE, tmp_path / "copy.zarr"):
            convert(source, tmp_path / "w.zarr", like=tmp_path / like, overwrite=True)
            np.testing.assert_array_equal(matrix_of(tmp_path / "w.zarr"), V.T)
    convert(tmp_path / "v.zarr", tmp_path / "back.zarr", transpose=True)
    convert(TABLE, tmp_path / "w.zarr", like=tmp_path / "back.zarr", overwrite=True)
    for place in ("back.zarr", "w.zarr"):
        np.testing.assert_array_equal(matrix_of(tmp_path / place), V)


def test_what_cannot_be_turned(tmp_path: Path) -> None:
    convert(TABLE, tmp_path / "v.zarr", log1p=True)
    with pytest.raises(ValueError, match="converted with steps, which belong to its columns"):
        convert(tmp_path / "v.zarr", tmp_path / "w.zarr", transpose=True)
    with pytest.raises(ValueError, match="like is given, whose steps are taken, and transpose too"):
        convert(TABLE, tmp_path / "w.zarr", transpose=True, like=tmp_path / "v.zarr")
    (tmp_path / "text.txt").write_text("one two")
    with pytest.raises(ValueError, match="leave transpose out"):
        convert(tmp_path / "text.txt", tmp_path / "w.zarr", transpose=True)
    (tmp_path / "names.csv").write_text("gene\na\nb\n")
    with pytest.raises(DataError, match="V is empty"):
        convert(tmp_path / "names.csv", tmp_path / "w.zarr", row="gene", transpose=True)
    assert not (tmp_path / "w.zarr").exists()
