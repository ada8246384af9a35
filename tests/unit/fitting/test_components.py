"""Components of unit norm, in order."""

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from support.grids import pairwise
from support.matrices import low_rank

from dask_nmf import nmf
from dask_nmf.fitting.components import arrange
from dask_nmf.types import Orientation

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
ORDERS = {"l1": 1, "l2": 2}

pytestmark = pytest.mark.usefixtures("several_panels")


@pairwise({"how": list(ORDERS), "stored": {"in memory": False, "in a run": True}, "shape": SHAPES})
def test_components_have_norm_1_and_w_h_stays(
    shape: tuple[int, int], stored: bool, how: str, tmp_path: Path
) -> None:
    v = low_rank(*shape, 4)
    options: dict[str, Any] = {"max_iter": 3, "tol": 0}
    plain = dask.compute(*nmf(v, 4, **options))
    where = {"store": tmp_path / "run.zarr"} if stored else {}
    result = nmf(v, 4, normalize=how, **options, **where)
    w, h = dask.compute(result.W, result.H)
    np.testing.assert_allclose(w @ h, plain[0] @ plain[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(h, ORDERS[how], axis=1), 1)
    assert (np.diff(np.linalg.norm(w, ORDERS[how], axis=0)) <= 1e-12).all()
    assert result.reconstruction_err == pytest.approx(np.linalg.norm(v - w @ h))


def test_a_component_of_zeros_comes_last_and_stays() -> None:
    found = arrange(np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.0, 5.0]), Orientation.ROWS)
    assert found.order.tolist() == [2, 0, 1]
    assert found.of_right(np.array([[2.0], [0.0], [5.0]])).tolist() == [[1.0], [1.0], [0.0]]
    assert found.of_left(np.array([[1.0, 0.0, 1.0]])).tolist() == [[5.0, 2.0, 0.0]]
