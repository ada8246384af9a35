"""Values of W H at some cells, and the best cells that V does not have: against W H itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.command import Forks, assert_refused
from support.matrices import LIBRARIES, SOURCES, Array, dask_csr, low_rank, sparse
from support.reads import EDGES, READS, counted_matrix, no_scheduler
from support.strategies import chunkings, cuts, seeds

from dask_nmf import NMF, nmf, predict, recommend
from dask_nmf.errors import DataError
from dask_nmf.execution.graphs import reduction
from dask_nmf.execution.graphs.reduction import PassInputs
from dask_nmf.inference import csv_files
from dask_nmf.inference import predict as predict_module
from dask_nmf.inference.topk import kernel, passes, search, sides
from dask_nmf.inference.topk.kernel import TopK, TopKSpec
from dask_nmf.iteration.loop import Step
from dask_nmf.planning import row_panels

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def in_zarr(factor: Array, chunks: tuple[int, ...]) -> zarr.Array[Any]:
    return zarr.create_array({}, data=factor, chunks=chunks)


def first_of_each(chunks: Any) -> tuple[int, ...]:
    return tuple(sizes[0] for sizes in chunks)


HOLDERS: dict[str, Callable[[Array, Any], Any]] = {
    "numpy": lambda factor, chunks: factor,
    "dask": lambda factor, chunks: da.from_array(factor, chunks=chunks),
    "zarr": lambda factor, chunks: in_zarr(factor, first_of_each(chunks)),
}


def factors(shape: tuple[int, int], seed: int = 0, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Small integers: products are exact, and many are equal."""
    random = np.random.default_rng(seed)
    w, h = random.integers(0, 3, (shape[0], RANK)), random.integers(0, 3, (RANK, shape[1]))
    return w.astype(dtype), h.astype(dtype)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few rows, columns, cells and lines."""
    monkeypatch.setattr(row_panels, "IN_FLIGHT", 4 * RANK * 8)
    monkeypatch.setattr(predict_module, "ENTRIES", 7 * RANK)
    monkeypatch.setattr(search, "CELLS", 1)
    monkeypatch.setattr(kernel, "STRIP", 4)
    monkeypatch.setattr(kernel, "TILE", 7)
    monkeypatch.setattr(csv_files, "BATCH", 5)
    monkeypatch.setattr(csv_files, "LINES", 3)


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
    """A factor that tells which slices of it were read."""

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


def assert_best(found: TopK, w: Array, h: Array, seen: Array, count: int, zero_rows: bool = False) -> None:
    """As a sort of all values says, ties and ends too; rows whose values are all 0 are there or not."""
    values = np.where(seen, -1, w @ h)
    if not zero_rows:
        values[values.max(axis=1) == 0] = -1
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    expected = np.take_along_axis(values, order, axis=1)
    np.testing.assert_array_equal(found.columns, np.where(expected < 0, -1, order))
    np.testing.assert_array_equal(found.values, np.where(expected < 0, np.nan, expected))
    assert found.columns.dtype == np.int64


MISSING = {
    None: ("numpy", "csr_array", "dask", "dask csr_array", "zarr v3", "csr in zarr", "csc in zarr", "npy"),
    "nan": ("numpy", "numpy F", "dask", "zarr v3", "csr_array"),
    "unstored": ("csr_array", "dask csr_array", "csr in zarr", "csc in zarr"),
}


@shapes
@pytest.mark.parametrize(
    ("missing", "kind", "holder"),
    [
        *((missing, kind, "numpy") for missing, kinds in MISSING.items() for kind in kinds),
        *(("nan", kind, holder) for kind in ("numpy", "csr_array") for holder in ("dask", "zarr")),
    ],
)
@pytest.mark.usefixtures("several_panels", "small_steps")
def test_the_best_are_those_of_a_sort(
    shape: tuple[int, int], missing: str | None, kind: str, holder: str, tmp_path: Path
) -> None:
    v = sparse(*shape, density=0.6)
    v[3], v[:, 4] = 1, 0
    seen = v > 0
    if missing == "nan":
        v[~seen] = np.nan
        v[0, :5] = 0
        seen = ~np.isnan(v)
    w, h = factors(shape, dtype=np.float32)
    held = [HOLDERS[holder](factor, ((factor.shape[0],), (factor.shape[1],))) for factor in (w, h)]
    found = recommend(SOURCES[kind](v, tmp_path / "v"), *held, 12, missing)
    assert found.values.dtype == np.float32
    assert (found.columns[3] < 0).sum() >= 11
    assert_best(found, w, h, seen, 12)


def test_a_zero_that_is_stored_is_observed() -> None:
    v = scipy.sparse.csr_array(np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 4.0]]))
    v.data[:2] = 0
    w, h = np.ones((3, 1)), np.array([[3.0, 2.0, 1.0]])
    assert recommend(v, w, h, 3, "unstored").columns.tolist() == [[2, -1, -1], [1, 2, -1], [0, 1, -1]]
    assert recommend(v, w, h, 3).columns.tolist() == [[0, 1, 2], [1, 2, -1], [0, 1, -1]]


@shapes
@pytest.mark.parametrize(
    "make", [np.asarray, lambda v: dask_csr(v, scipy.sparse.csr_array)], ids=["dense", "csr"]
)
@pytest.mark.usefixtures("several_panels")
def test_the_best_on_a_cluster(client: Client, shape: tuple[int, int], make: Callable[[Array], Any]) -> None:
    v = sparse(*shape)
    w, h = factors(shape)
    held = client.persist(da.from_array(w, chunks=(7, 2))), in_zarr(h, (RANK, 11))
    assert_best(recommend(make(v), *held, 5), w, h, v > 0, 5)


@given(edges=cuts(60), seed=seeds)
def test_the_best_of_columns_merge(edges: tuple[int, ...], seed: int) -> None:
    w, h = factors((20, 60), seed)
    v = sparse(20, 60, density=0.9, seed=seed)
    parts = [kernel.top_k(v[:, a:b], w, h[:, a:b], TopKSpec(4)).shifted(a) for a, b in pairwise(edges)]
    assert_best(kernel.merge(parts), w, h, v > 0, 4, zero_rows=True)


def test_looking_for_the_best_is_one_read_and_one_task_a_panel() -> None:
    w, h = factors((60, 12))
    opened = counted_matrix()
    with dask.config.set(scheduler=no_scheduler):
        beside = sides.in_panels(in_zarr(w, (10, RANK)), reduction.heights(EDGES), w.dtype)
        given = dask.delayed(PassInputs(h, EDGES), traverse=False)
        parts = passes.top_k_graph(opened.panels(EDGES), beside, given, TopKSpec(3))
        across = passes.top_k_graph_by_columns(opened.panels(EDGES), beside, given, TopKSpec(3))
        assert not READS
    panels = len(EDGES) - 1
    for built, more in ((parts, panels), ([across], 1)):  # what takes each panel's out, or merges them
        READS.clear()
        assert len(dict(dask.optimize(*built)[0].dask)) <= 2 * panels + more
        dask.compute(*built)
        assert dict.fromkeys(pairwise(EDGES), 1) == READS


FORMS: dict[str, Callable[[Array, Path], Any]] = {
    name: {**SOURCES, **LIBRARIES, "list": lambda factor, path: factor.tolist()}[name]
    for name in (
        "list", "csr_array", "dask csr_array", "zarr v3", "csr in zarr", "csc in zarr", "npy", "polars",
        "hdf5 contiguous", "masked", "pandas nullable", "pyarrow", "dask frame", "xarray", "xarray lazy",
        "pydata",
    )
}  # fmt: skip


@shapes
@pytest.mark.parametrize("form", FORMS)
def test_factors_come_in_any_form_that_v_has(shape: tuple[int, int], form: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    w, h = random.random((shape[0], RANK)), random.random((RANK, shape[1]))
    v, rows, columns = sparse(*shape), random.integers(0, shape[0], 30), random.integers(0, shape[1], 30)
    held = [FORMS[form](factor, tmp_path / name) for name, factor in (("w", w), ("h", h))]
    np.testing.assert_allclose(predict(*held, rows, columns), (w @ h)[rows, columns], rtol=1e-12)
    if form in ("list", "dask frame", "csc in zarr", "hdf5 contiguous"):
        found, expected = (recommend(v, *given, 4) for given in (held, (w, h)))
        np.testing.assert_array_equal(found.columns, expected.columns)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
    model = NMF(RANK)
    model.components_, model.n_components_ = h, RANK
    np.testing.assert_allclose(model.inverse_transform(held[0]), w @ h, rtol=1e-12)


def test_a_packed_factor_is_decoded(tmp_path: Path) -> None:
    w = in_zarr(np.full((40, 1), 1000, "u2"), (7, 1))
    w.attrs["scale_factor"] = 0.001
    h = h5py.File(tmp_path / "h.h5", "w").create_dataset("h", data=np.full((1, 30), 50, "u2"))
    h.attrs["scale_factor"] = 0.1
    assert predict(w, h, [0, 39], [0, 29]) == pytest.approx([5, 5])
    assert predict(w, np.ones((1, 90)), [0], [0]) == pytest.approx([1])
    assert recommend(np.zeros((40, 30)), w, h, 1).values == pytest.approx(np.full((40, 1), 5))


NO_FACTORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({"W": None}, TypeError, "W is NoneType; give an array"),
    "a path of nothing": ({"H": "no.npy"}, FileNotFoundError, "there is nothing at .*no.npy"),
    "one dimension": ({"W": [1.0, 2.0]}, ValueError, "W has 1 dimension"),
    "a gap": ({"W": [[1.0], [None]]}, ValueError, "W has nan at row 1, column 0; a factor must be finite"),
    "text": ({"H": [["a", "b"]]}, ValueError, "H has entries of type"),
    "unknown size": (
        {"W": da.ones((4, 1), chunks=(2, 1))[da.ones(4, chunks=2) > 0]}, ValueError, "W has unknown chunk"
    ),
    "means of another kind": ({"means": (1, 2, 3)}, TypeError, "means is tuple; give the means of a fit"),
    "one bound": ({"clip": 5}, ValueError, "clip is 5; give two numbers"),
    "masked rows": ({"rows": np.ma.array([0, 1], mask=[0, 1])}, ValueError, "rows has 1 masked of 2 entries"),
    "masked columns": (
        {"columns": np.ma.array([0, 1], mask=[1, 1])}, ValueError, "columns has 2 masked .*compressed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_FACTORS)
def test_what_is_no_factor_or_option_is_refused(case: str) -> None:
    given, kind, words = NO_FACTORS[case]
    asked = {"W": np.ones((2, 1)), "H": np.ones((1, 2)), "rows": [0, 1], "columns": [0, 1], **given}
    with pytest.raises(kind, match=words):
        predict(**asked)
    if "columns" not in given:
        with pytest.raises(kind, match=words):
            recommend(np.ones((2, 2)), count=2, **{name: asked[name] for name in asked if name != "columns"})


UNFIT: dict[str, tuple[Any, int, str | None, str]] = {
    "shape": (np.ones((25, 60)), 5, None, r"\(25, 60\) and W H is \(60, 25\)"),
    "count": (np.ones((60, 25)), 0, None, "count is 0"),
    "negative count": (np.ones((60, 25)), -1, None, "count is -1; it must be an integer ≥ 1"),
    "half a count": (np.ones((60, 25)), 2.5, None, "count is 2.5"),  # type: ignore[dict-item]
    "another missing": (np.ones((60, 25)), 5, "zero", "'zero'"),
    "unstored, dense": (np.ones((60, 25)), 5, "unstored", "V is dense"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_v_that_does_not_fit_is_refused(case: str) -> None:
    v, count, missing, words = UNFIT[case]
    with pytest.raises(ValueError, match=words):
        recommend(v, *factors((60, 25)), count, missing)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with v.zarr, the run of a fit, and pairs.csv of the last 1000 cells."""
    filled = tmp_path_factory.mktemp("filled")
    v = low_rank(300, 40, RANK, dtype=np.float32) * (sparse(300, 40) > 0)
    stored = zarr.create_array(filled / "v.zarr", data=v, chunks=(100, 40))
    nmf(stored, RANK, max_iter=1, store=str(filled / "run.zarr"))
    (filled / "run.zarr.lock").unlink(missing_ok=True)
    cells = [f"{275 + at // 40},{at % 40}\n" for at in range(1000)]
    (filled / "pairs.csv").write_text("row,column\n" + "".join(cells))
    return filled


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(filled, tmp_path / "folder"))


def product(folder: Path) -> Array:
    run = zarr.open_group(folder / "run.zarr", mode="r")
    return np.asarray(run["W"][:] @ run["H"][:])


def table(path: Path) -> Array:
    assert path.read_text().startswith("row,column,value\n")
    return np.loadtxt(path, delimiter=",", skiprows=1)


LEFT = {"v.zarr", "run.zarr", "pairs.csv"}


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


def test_the_command_recommends(folder: Path, forks: Forks) -> None:
    words = ["recommend", "run.zarr", "v.zarr", "--top", 4, "--output", "out.csv"]
    done = forks.call((*words, "--workers", 1), folder)
    assert (done.returncode, done.stdout) == (0, "out.csv: 1200 values\n"), done.stderr
    assert {path.name for path in folder.iterdir()} == {*LEFT, "out.csv"}
    run = zarr.open_group(folder / "run.zarr", mode="r")
    v = zarr.open_array(folder / "v.zarr", mode="r")[:]
    best = recommend(v, run["W"], run["H"], 4)
    rows, columns, values = table(folder / "out.csv").T
    np.testing.assert_array_equal(rows, np.repeat(np.arange(300), 4))
    np.testing.assert_array_equal(columns, best.columns.ravel())
    np.testing.assert_array_equal(values.astype(np.float32), best.values.ravel())
    zarr.create_array(folder / "v2.zarr", data=v[:50], chunks=(50, 40))
    words[2] = "v2.zarr"
    refused = forks.call((*words, "--overwrite"), folder)
    assert_refused(refused, 2, "(50, 40)", "(300, 40)", folder=folder, left={*LEFT, "out.csv", "v2.zarr"})


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


LINES = {
    "names": ("row,column\n3,4\n", [3], [4]),
    "names in another order": ("column,row\n4,3\n", [3], [4]),
    "quoted names in capitals": ('"Column","ROW"\n"4","3"\n', [3], [4]),
    "names among others": ('name,column,value,row\n"a, b\n c",4,1.5,3\n,5,nan,2\n', [3, 2], [4, 5]),
    "a name of an index that is empty": (",row,col\n0,3,4\n", [3], [4]),
    "tabs": ("\n\ncolumn\trow\n4\t3\n", [3], [4]),
    "tabs, no names": ("3\t4\n", [3], [4]),
    "tabs, and a name with a comma": ('"a, b"\tcolumn\trow\nx\t4\t3\n', [3], [4]),
    "names in another order, of Windows": ('\ufeff"column" , "row"\r\n4,3\r\n', [3], [4]),
    "an output of predict": ("row,column,value\n3,4,1.5\n", [3], [4]),
    "none": ("3,4", [3], [4]),
    "of Windows": ("\ufeffrow,column\r\n3,4\r\n\r\n", [3], [4]),
    "spaces": (" 3 ,\t4 \n", [3], [4]),
    "many": ("".join(f"{i},{i + 1}\n" for i in range(23)), list(range(23)), list(range(1, 24))),
    "nothing": ("row,column\n", [], []),
    "empty": ("", [], []),
}


@pytest.mark.parametrize("case", LINES)
@pytest.mark.usefixtures("small_steps")
def test_pairs_of_a_file(folder: Path, case: str) -> None:
    text, rows, columns = LINES[case]
    (folder / "pairs.csv").write_text(text, encoding="utf-8", newline="")
    run, pairs, output = (str(folder / name) for name in ("run.zarr", "pairs.csv", "out.csv"))
    assert predict_module.predict_to(run, pairs, output, False) == len(rows)
    expected = predict(*(zarr.open_group(run, mode="r")[name] for name in "WH"), rows, columns)
    lines = [f"{i},{j},{value!s}" for i, j, value in zip(rows, columns, expected, strict=True)]
    assert (folder / "out.csv").read_text().splitlines() == ["row,column,value", *lines]


BAD_LINES = {
    "text": (b"1,2\n" * 6 + b"x,3\n", "line 7: 'x,3' is no pair of integers; write row,column"),
    "no names": (b"x,3\n", "line 1: 'x,3'"),
    "other names": (b"user,item\n1,2\n", "line 1: 'user,item' does not name row and column once each"),
    "one name": (b"\n\nrow,item\n1,2\n", "line 3: 'row,item' does not name row and column"),
    "a name twice": (b"row,column,Row\n1,2,3\n", "line 1: 'row,column,Row' does not name"),
    "fewer fields than names": (b"a,column,row\n4,3\n", "line 2: '4,3' has no pair of integers where the"),
    "more fields than names": (b"a,column,row\nb,c,4,3\n", "line 2: 'b,c,4,3' has no pair of integers"),
    "no number under a name": (b"a,column,row\n3,4,x\n", "line 2: '3,4,x' has no pair"),
    "outside by the names": (b"column,row\n45,3\n", "line 2: row 3, column 45 is outside of W H, 300 x 40"),
    "three, no names": (b"1,2,3\n", "line 1: '1,2,3' is no pair of integers; write row,column, counted from"),
    "names later": (b"1,2\nrow,column\n", "line 2: 'row,column'"),
    "one number": (b"1\n", "line 1: '1'"),
    "three": (b"row,column\n1,2,3\n", "line 2: '1,2,3'"),
    "floats": (b"1.0,2\n", "line 1: '1.0,2'"),
    "semicolons": (b"1;2\n", "line 1: '1;2'"),
    "underscores": (b"1_0,2\n", "line 1: '1_0,2'"),
    "a huge number": (b"1," + b"9" * 5000 + b"\n", "line 1: '1,999"),
    "a negative one": (b"0,0\n-1,2\n", "line 2: row -1, column 2 is outside of W H, 300 x 40"),
    "no text": (bytes(range(256)), "line 1"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.usefixtures("small_steps")
def test_a_bad_line_is_named_and_nothing_is_written(folder: Path, case: str) -> None:
    text, words = BAD_LINES[case]
    (folder / "pairs.csv").write_bytes(text)
    with pytest.raises(DataError) as told:
        predict_module.predict_to(
            *(str(folder / name) for name in ("run.zarr", "pairs.csv", "out.csv")), False
        )
    assert f"pairs.csv, {words}" in str(told.value)
    assert len(str(told.value)) < 200 + len(str(folder))
    assert {path.name for path in folder.iterdir()} == LEFT


OUTPUTS = {
    "no folder": ("no/out.csv", False, NotADirectoryError, "make it first"),
    "a file of the user": ("pairs.csv", True, FileExistsError, "not an output of predict"),
    "a folder": ("v.zarr", True, FileExistsError, "not an output of predict"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_takes_the_place_of_none_but_its_like(folder: Path, case: str) -> None:
    output, overwrite, kind, words = OUTPUTS[case]
    run, pairs, place = (str(folder / name) for name in ("run.zarr", "pairs.csv", output))
    with pytest.raises(kind, match=words):
        predict_module.predict_to(run, pairs, place, overwrite)
    assert {path.name for path in folder.iterdir()} == LEFT


@pytest.mark.parametrize(("pairs", "kind"), [("none.csv", FileNotFoundError), ("v.zarr", DataError)])
def test_pairs_must_be_a_file(folder: Path, pairs: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="give a CSV file"):
        predict_module.predict_to(*(str(folder / name) for name in ("run.zarr", pairs, "out.csv")), False)
    assert {path.name for path in folder.iterdir()} == LEFT
