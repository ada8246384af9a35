"""Bad options, ranks and entries of `nmf` are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support.grids import pairwise
from support.matrices import SOURCES, Array, anndata_group, dask_csr, sparse

from dask_nmf import nmf
from dask_nmf.errors import InvalidEntryError

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"init": "custom"}, "neither W nor H"),
        ({"init": "random", "H": np.ones((RANK, 25))}, "H is given .* init is 'random'"),
        ({"init": "custom", "H": np.ones((RANK, 24))}, r"\(3, 24\).*\(3, 25\)"),
        ({"init": "custom", "W": np.ones((RANK, 60))}, r"\(3, 60\).*\(60, 3\)"),
        ({"init": "custom", "H": np.zeros((RANK, 25))}, "H is zero everywhere"),
        ({"init": "custom", "H": -np.ones((RANK, 25))}, "H has -1.0 at row 0, column 0"),
        ({"init": "custom", "H": np.full((RANK, 25), np.nan)}, "H has nan"),
        ({"solver": "cd"}, "solver is 'cd'.*hals, mu"),
        ({"init": "svd"}, "init is 'svd'.*sample, random, nndsvd"),
        ({"tol": -1}, "tol is -1"),
        ({"tol": 10**400}, "tol is 1000.*must be a number"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"random_state": 0.5}, "random_state is 0.5"),
        ({"delta": 1.0}, "belong to solver 'mu'"),
        ({"solver": "mu", "delta": -1.0}, "delta is -1"),
        ({"solver": "mu", "inner_iter": 0}, "inner_iter is 0"),
        ({"dtype": "int32"}, "float32 or float64"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        nmf(np.ones((60, 25)), RANK, **options)


@pytest.mark.parametrize("rank", [0, -1, 2.5, None])
def test_bad_ranks_are_refused(rank: Any) -> None:
    with pytest.raises(ValueError, match="n_components is"):
        nmf(np.ones((60, 25)), rank)


BAD_KINDS: dict[str, Callable[[Array, Path], Any]] = {
    **{kind: SOURCES[kind] for kind in ("numpy", "numpy F", "csr_array", "dask", "zarr v3")},
    "csr in zarr": lambda v, path: anndata_group(v, path, "csr_matrix"),
    "dask csr": lambda v, path: dask_csr(v, scipy.sparse.csr_array),
}


@pairwise({"kind": list(BAD_KINDS), "value": [np.nan, np.inf, -np.inf, -0.25], "shape": SHAPES})
def test_bad_entry_is_named_where_the_user_has_it(
    shape: tuple[int, int], value: float, kind: str, tmp_path: Path
) -> None:
    v = sparse(*shape)
    v[21, 17] = value
    with pytest.raises(InvalidEntryError, match="row 21, column 17") as caught:
        nmf(BAD_KINDS[kind](v, tmp_path / "v"), RANK, store=tmp_path / "run.zarr")
    np.testing.assert_equal((caught.value.row, caught.value.column, caught.value.value), (21, 17, value))
    assert not (tmp_path / "run.zarr").exists()


@shapes
def test_the_first_bad_entry_in_panel_order_is_named(shape: tuple[int, int]) -> None:
    v = np.ones(shape)
    v[20, 20] = v[5, 5] = -1
    with pytest.raises(InvalidEntryError, match="row 5, column 5"):
        nmf(v, RANK)
