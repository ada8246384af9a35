"""The top-k columns of each row among the cells that V does not have, compared with a sort of W H."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client
from hypothesis import given
from support.command import Forks, assert_refused
from support.factors import (
    HOLDERS,
    LEFT,
    RANK,
    factors,
    in_zarr,
    shapes,
    table,
)
from support.matrices import SOURCES, Array, dask_csr, sparse
from support.reads import EDGES, READS, counted_matrix, no_scheduler
from support.strategies import cuts, seeds

from dask_nmf import recommend
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import reduction
from dask_nmf.execution.graphs.reduction import PassInputs
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.inference.topk import kernel, passes, sides
from dask_nmf.inference.topk.kernel import TopK, TopKSpec


def assert_best(found: TopK, w: Array, h: Array, seen: Array, count: int, zero_rows: bool = False) -> None:
    """Assert that a result is that of a sort of all values, with the same ties and ends.

    With ``zero_rows`` a row whose values are all 0 has columns, else none.
    """
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
        parts = passes.top_k_graph(open_panels(opened, EDGES), beside, given, TopKSpec(3))
        assert not READS
    assert len(dict(dask.optimize(*parts)[0].dask)) <= 2 * (len(EDGES) - 1)
    dask.compute(*parts)
    assert dict.fromkeys(pairwise(EDGES), 1) == READS


def test_looking_for_the_best_of_columns_is_one_read() -> None:
    w, h = factors((60, 12))
    panels = PanelEngine(counted_matrix(), EDGES)
    beside = sides.in_panels(in_zarr(w, (10, RANK)), reduction.heights(EDGES), w.dtype)
    passes.top_k_by_columns(panels, beside, h, TopKSpec(3), None)
    assert dict.fromkeys(pairwise(EDGES), 1) == READS


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


def test_the_command_recommends(folder: Path, forks: Forks, scheduler: str) -> None:
    words = ["recommend", "run.zarr", "v.zarr", "--top", 4, "--output", "out.csv"]
    done = forks.call(words, folder, DASK_SCHEDULER_ADDRESS=scheduler)
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
    refused = forks.call((*words, "--overwrite"), folder, DASK_SCHEDULER_ADDRESS=scheduler)
    assert_refused(refused, 2, "(50, 40)", "(300, 40)", folder=folder, left={*LEFT, "out.csv", "v2.zarr"})
