"""The steps of a conversion are those of scikit-learn and of scanpy, and are applied to new rows."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import MaxAbsScaler, StandardScaler, normalize
from support.converted import matrix_of, names_of

from dask_nmf import nmf
from dask_nmf.errors import DataError
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.matrices import matrix_rows
from dask_nmf.ingest.recipe import recipe
from dask_nmf.ingest.recipe.arithmetic import statistics
from dask_nmf.storage.locations import locate
from dask_nmf.updates.update import update

COUNTS = np.random.default_rng(3).poisson(np.geomspace(0.02, 9, 40), (70, 40)).astype(float)
COUNTS[5] = 0
NAMES = [f"g{j}" for j in range(40)]
FORMS = pytest.mark.parametrize("form", ["dense", "sparse"])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few rows."""
    monkeypatch.setattr(matrix_rows, "BATCH", 9000)
    monkeypatch.setattr(statistics, "SLAB", 400)
    monkeypatch.setattr(recipe, "PIECE", 300)


def written(folder: Path, v: np.ndarray, form: str, names: list[str] = NAMES, file: str = "v") -> Path:
    """Write V to a file: to a table, or to AnnData's layout if it is to be sparse."""
    if form == "dense":
        path = folder / f"{file}.parquet"
        pd.DataFrame(v, columns=names).to_parquet(path)
        return path
    path = folder / f"{file}.zarr.in"
    root = zarr.create_group(path, attributes={"encoding-type": "anndata"})
    kind = "csc" if form == "csc" else "csr"
    matrix = scipy.sparse.csr_array(v).asformat(kind)
    x = root.create_group("X", attributes={"encoding-type": f"{kind}_matrix", "shape": list(v.shape)})
    for part in ("data", "indices", "indptr"):
        x.create_array(part, data=getattr(matrix, part))
    var = root.create_group("var", attributes={"encoding-type": "dataframe", "_index": "_index"})
    var.create_array("_index", data=np.array(names, np.dtypes.StringDType()))
    return path


def expected_of(v: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    """Return what scikit-learn makes of V by one step."""
    kinds: dict[str, Any] = {
        "tfidf": lambda: TfidfTransformer().fit_transform(v).toarray(),
        "log1p": lambda: np.log1p(v),
        "std": lambda: StandardScaler(with_mean=False).fit_transform(v),
        "max": lambda: MaxAbsScaler().fit_transform(v),
        10.0: lambda: 10 * normalize(v, "l1"),
        "median": lambda: np.median(v.sum(1)[v.sum(1) > 0]) * normalize(v, "l1"),
    }
    ((name, given),) = step.items()
    return kinds[name if given is True else given]()


@pytest.mark.parametrize(
    ("step", "form"),
    [
        ({"tfidf": True}, "sparse"),
        ({"tfidf": True}, "dense"),
        ({"tfidf": True}, "csc"),
        ({"log1p": True}, "dense"),
        ({"scale_columns": "std"}, "sparse"),
        ({"scale_columns": "max"}, "sparse"),
        ({"scale_columns": "max"}, "dense"),
        ({"normalize_rows": 10.0}, "sparse"),
        ({"normalize_rows": "median"}, "dense"),
    ],
    ids=str,
)
def test_each_step_is_that_of_scikit_learn(tmp_path: Path, form: str, step: dict[str, Any]) -> None:
    v = COUNTS.copy()
    v[:, 7] = 3  # a column without variance
    convert(written(tmp_path, v, form), tmp_path / "v.zarr", **step)
    np.testing.assert_allclose(matrix_of(tmp_path / "v.zarr"), expected_of(v, step), rtol=1e-12)


@FORMS
def test_columns_are_dropped_by_their_numbers_of_rows(tmp_path: Path, form: str) -> None:
    convert(written(tmp_path, COUNTS, form), tmp_path / "v.zarr", min_count=5, max_frequency=0.8)
    rows = (COUNTS > 0).sum(0)
    kept = np.flatnonzero((rows >= 5) & (rows <= 0.8 * 70))
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), COUNTS[:, kept])
    assert names_of(tmp_path / "v.zarr", "var") == [NAMES[j] for j in kept]
    assert 0 < len(kept) < 40


def seurat_of(v: np.ndarray) -> np.ndarray:
    """Return normalised dispersions as pandas computes them from the published formula."""
    mean, variance = v.mean(0), v.var(0, ddof=1)
    with np.errstate(divide="ignore"):
        frame = pd.DataFrame({"level": np.log1p(mean), "d": np.log(variance / mean)})
    frame["d"] = frame["d"].replace(-np.inf, np.nan)
    groups = frame.groupby(pd.cut(frame["level"], 20), observed=True)["d"]
    average, deviation = groups.transform("mean"), groups.transform("std")
    alone = frame["d"].notna() & deviation.isna()
    return np.where(alone, 1.0, (frame["d"] - average) / deviation)


@pytest.mark.parametrize(
    ("ranking", "form"), [("variance", "dense"), ("seurat", "sparse"), ("sum", "sparse")]
)
def test_the_columns_that_are_kept_rank_first(tmp_path: Path, form: str, ranking: str) -> None:
    steps = {"normalize_rows": 100.0, "log1p": True, "top_columns": 12, "top_by": ranking}
    convert(written(tmp_path, COUNTS, form), tmp_path / "v.zarr", **steps)
    scaled = 100 * normalize(COUNTS, "l1")
    logged = np.log1p(scaled)
    scores = {"variance": logged.var(0), "sum": logged.sum(0), "seurat": seurat_of(scaled)}[ranking]
    kept = np.sort(np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:12])
    assert names_of(tmp_path / "v.zarr", "var") == [NAMES[j] for j in kept]
    np.testing.assert_allclose(matrix_of(tmp_path / "v.zarr"), logged[:, kept], rtol=1e-12)


ALL: dict[str, Any] = {
    "min_count": 4, "max_frequency": 0.95, "normalize_rows": "median", "log1p": True, "top_columns": 15,
    "tfidf": True, "scale_columns": "std",
}  # fmt: skip


@FORMS
def test_a_recipe_is_applied_to_new_rows(tmp_path: Path, form: str) -> None:
    """The rows of V, given anew with columns in another order and one more, become what they are in V."""
    convert(written(tmp_path, COUNTS, form), tmp_path / "v.zarr", **ALL)
    order = np.random.default_rng(0).permutation(40)
    new = np.column_stack([np.ones(9), COUNTS[20:29][:, order]])
    names = ["unknown", *(NAMES[j] for j in order)]
    convert(written(tmp_path, new, form, names, "new"), tmp_path / "new.zarr", like=tmp_path / "v.zarr")
    np.testing.assert_allclose(
        matrix_of(tmp_path / "new.zarr"), matrix_of(tmp_path / "v.zarr")[20:29], rtol=1e-13
    )
    assert names_of(tmp_path / "new.zarr", "var") == names_of(tmp_path / "v.zarr", "var")
    digests = {
        zarr.open_group(tmp_path / name)["X"].attrs["dask_nmf_recipe"] for name in ("v.zarr", "new.zarr")
    }
    assert len(digests) == 1
    pytest.importorskip("anndata").read_zarr(tmp_path / "v.zarr")


def test_new_rows_without_names_are_taken_by_place(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", COUNTS)
    np.save(tmp_path / "new.npy", COUNTS[:5])
    convert(tmp_path / "v.npy", tmp_path / "v.zarr", **ALL)
    convert(tmp_path / "new.npy", tmp_path / "new.zarr", like=tmp_path / "v.zarr")
    np.testing.assert_allclose(
        matrix_of(tmp_path / "new.zarr"), matrix_of(tmp_path / "v.zarr")[:5], rtol=1e-13
    )
    np.save(tmp_path / "other.npy", COUNTS[:, 1:])
    with pytest.raises(DataError, match=r"has 39 columns, and that of .*v.zarr had 40"):
        convert(tmp_path / "other.npy", tmp_path / "other.zarr", like=tmp_path / "v.zarr")


def test_a_sparse_source_may_lack_columns_and_a_dense_one_may_not(tmp_path: Path) -> None:
    v = written(tmp_path, COUNTS, "dense")
    convert(v, tmp_path / "v.zarr")
    for form in ("sparse", "dense"):
        written(tmp_path, COUNTS[:, 1:], form, NAMES[1:], "new")
    convert(tmp_path / "new.zarr.in", tmp_path / "new.zarr", like=tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "new.zarr")[:, 1:], COUNTS[:, 1:])
    assert not matrix_of(tmp_path / "new.zarr")[:, 0].any()
    with pytest.raises(DataError, match=r"lacks 1 of the 40 columns of .*: 'g0'"):
        convert(tmp_path / "new.parquet", tmp_path / "new2.zarr", like=tmp_path / "v.zarr")


def test_missing_values_do_not_count(tmp_path: Path) -> None:
    v = COUNTS[:30].copy()
    v[3, 30:] = np.nan
    convert(written(tmp_path, v, "dense"), tmp_path / "v.zarr", missing="nan", scale_columns="std")
    expected = StandardScaler(with_mean=False).fit_transform(v)
    np.testing.assert_allclose(matrix_of(tmp_path / "v.zarr"), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_count": 0}, "min_count is 0; give a whole number >= 1"),
        ({"max_frequency": 1.5}, "max_frequency is 1.5; give a share"),
        ({"normalize_rows": "mean"}, "normalize_rows is 'mean'; give 'median' or a number > 0"),
        ({"normalize_rows": -1.0}, "normalize_rows is -1.0; give 'median'"),
        ({"min_count": 71}, "no column of V is left of 40; give a lower --min-count"),
        ({"tfidf": True, "missing": "nan"}, "tfidf needs every value"),
        ({"like": "v.npy", "log1p": True}, "log1p too; leave that out"),
    ],
)
def test_steps_that_cannot_be_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "v.npy", COUNTS)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", **given)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_only_a_v_of_convert_is_taken_as_example(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr")
    np.save(tmp_path / "v.npy", COUNTS)
    with pytest.raises(DataError, match="was not written by convert"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", like=tmp_path / "other.zarr")
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr", like=tmp_path / "none.zarr")


def test_transform_and_update_take_rows_of_the_same_recipe_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "v.npy", COUNTS)
    run, output = (locate(tmp_path / name) for name in ("run.zarr", "w.zarr"))
    convert(tmp_path / "v.npy", tmp_path / "v.zarr", log1p=True)
    convert(tmp_path / "v.npy", tmp_path / "plain.zarr")
    convert(tmp_path / "v.npy", tmp_path / "alike.zarr", like=tmp_path / "v.zarr")
    nmf(tmp_path / "v.zarr", 2, max_iter=2, store=tmp_path / "run.zarr")
    transformed = partial(transform_to, run, output=output, overwrite=True, connect=nullcontext)
    assert transformed(tmp_path / "alike.zarr") == (70, 2)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    with pytest.raises(ValueError, match=r"plain.zarr was converted with other steps than .*v.zarr.* --like"):
        transformed(tmp_path / "plain.zarr")
    with pytest.raises(ValueError, match=r"plain.zarr was converted with other steps"):
        update(tmp_path / "run.zarr", tmp_path / "plain.zarr")
    transformed(tmp_path / "v.npy")
    assert "did not make" in caplog.text


def test_a_recipe_is_passed_on_when_v_is_converted_again(tmp_path: Path) -> None:
    """V is stored anew, with its recipe; and again with more steps, which new rows then go through too."""
    v, new = written(tmp_path, COUNTS, "dense"), written(tmp_path, COUNTS[:9], "dense", file="new")
    convert(v, tmp_path / "v.zarr", normalize_rows=9.0, log1p=True)
    convert(tmp_path / "v.zarr", tmp_path / "again.zarr", chunks=10)
    convert(tmp_path / "again.zarr", tmp_path / "more.zarr", min_count=3, top_columns=12, scale_columns="std")
    groups = [zarr.open_group(tmp_path / name) for name in ("v.zarr", "again.zarr", "more.zarr")]
    digests = [group["X"].attrs["dask_nmf_recipe"] for group in groups]
    assert digests[0] == digests[1] != digests[2]
    convert(new, tmp_path / "new.zarr", like=tmp_path / "more.zarr")
    expected = matrix_of(tmp_path / "more.zarr")[:9]
    np.testing.assert_allclose(matrix_of(tmp_path / "new.zarr"), expected, rtol=1e-13)
    with pytest.raises(ValueError, match=r"v.zarr was converted with steps already, and like is given"):
        convert(tmp_path / "v.zarr", tmp_path / "w.zarr", like=tmp_path / "more.zarr")
    with pytest.raises(ValueError, match="were converted with different steps"):
        convert([tmp_path / "v.zarr", tmp_path / "more.zarr"], tmp_path / "w.zarr")


def test_the_x_of_a_converted_v_is_that_v(tmp_path: Path) -> None:
    v = written(tmp_path, COUNTS, "dense")
    convert(v, tmp_path / "v.zarr", log1p=True)
    convert(tmp_path / "v.zarr" / "X", tmp_path / "again.zarr")
    convert(v, tmp_path / "like.zarr", like=tmp_path / "v.zarr" / "X")
    groups = [zarr.open_group(tmp_path / name) for name in ("v.zarr", "again.zarr", "like.zarr")]
    assert len({group["X"].attrs["dask_nmf_recipe"] for group in groups}) == 1
    assert list(groups[1]["var/_index"][:]) == NAMES
    with pytest.raises(ValueError, match=r"give the path of its V.zarr"):
        convert(groups[0]["X"], tmp_path / "array.zarr")


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_factors_beyond_float32(tmp_path: Path, kind: Any) -> None:
    v = kind(np.array([[1e-42, 1e-43], [0, 2]], np.float32))
    convert(v, tmp_path / "rows.zarr", normalize_rows=1)
    expected = v.astype(np.float64) / v.astype(np.float64).sum(axis=1)[:, None]
    np.testing.assert_allclose(
        matrix_of(tmp_path / "rows.zarr"),
        kind(expected) if kind is np.asarray else expected.toarray(),
        rtol=1e-6,
    )
    with pytest.raises(DataError, match="cannot hold"):
        convert(v, tmp_path / "large.zarr", normalize_rows=1e39)
