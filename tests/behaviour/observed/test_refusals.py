"""Bad entries among missing ones and bad weights are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.observed import HOLDERS, ONES, RANK, SHAPES, entries, factors, how, ratings

from dask_nmf import nmf, transform
from dask_nmf.errors import DataError, InvalidEntryError

pytestmark = pytest.mark.usefixtures("several_panels")


def bad(value: float, at: tuple[int, int] = (21, 17), shape: tuple[int, int] = (60, 25)) -> Array:
    v = ratings(shape)
    v[at] = value
    return v


@pairwise({"kind": ["numpy", "dask", "csr_array", "csc in zarr"], "value": [np.inf, -0.25], "shape": SHAPES})
def test_a_bad_entry_among_missing_ones_is_named(
    shape: tuple[int, int], value: float, kind: str, tmp_path: Path
) -> None:
    held = HOLDERS[kind](bad(value, shape=shape), tmp_path / "v")
    with pytest.raises(InvalidEntryError, match=f"V has {value} at row 21, column 17"):
        nmf(held, RANK, missing=how(kind), store=tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()
    with pytest.raises(InvalidEntryError, match="row 21, column 17"):
        transform(held, factors(shape)["H"], missing=how(kind))


@pairwise({"make": [np.asarray, scipy.sparse.csr_array], "value": [-0.5, np.nan, np.inf], "shape": SHAPES})
def test_a_bad_weight_is_named(shape: tuple[int, int], value: float, make: Any) -> None:
    weights = np.ones(shape)
    weights[21, 17] = value
    with pytest.raises(DataError, match=f"weights has {value} at row 21, column 17.*finite and ≥ 0"):
        nmf(low_rank(*shape, RANK), RANK, weights=make(weights))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "NaN": (bad(np.nan), {}, "V has nan at row"),
    "NaN that is stored": (entries(ONES) * np.nan, {"missing": "unstored"}, "V has nan at row 0, column 0"),
    "dense and unstored": (ONES, {"missing": "unstored"}, "V is dense; give a sparse V, or missing='nan'"),
    "all missing": (ONES * np.nan, {"missing": "nan"}, "no entry that counts"),
    "nothing stored": (scipy.sparse.csr_array((60, 25)), {"missing": "unstored"}, "no entry that counts"),
    "all of weight 0": (ONES, {"weights": 0 * ONES}, "no entry that counts"),
    "weights of another shape": (ONES, {"weights": ONES.T}, r"weights has shape \(25, 60\) and V \(60, 25\)"),
    "another word": (ONES, {"missing": "zero"}, "missing is 'zero'.*nan, unstored"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    v, options, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        nmf(v, RANK, store=tmp_path / "run.zarr", **options)
    assert not list(tmp_path.iterdir())
