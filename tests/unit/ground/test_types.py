"""The orientation in which V is cut."""

import numpy as np
import pytest

from dask_nmf.types import Orientation

V = np.arange(6.0).reshape(2, 3)
W, H = np.array([[1.0], [2.0]]), np.array([[3.0, 4.0, 5.0]])


@pytest.mark.parametrize("orientation", Orientation)
def test_what_is_turned_twice_is_as_it_was(orientation: Orientation) -> None:
    assert orientation.turn(orientation.turn(V.shape)) == (2, 3)
    np.testing.assert_array_equal(orientation.turn_array(orientation.turn_array(V)), V)
    turned = orientation.turn_factors(*orientation.turn_factors(W, H))
    for factor, expected in zip(turned, (W, H), strict=True):
        np.testing.assert_array_equal(factor, expected)


@pytest.mark.parametrize("orientation", Orientation)
def test_turned_factors_have_the_turned_product(orientation: Orientation) -> None:
    left, right = orientation.turn_factors(W, H)
    assert (len(left), right.shape[1]) == orientation.turn((2, 3))
    np.testing.assert_array_equal(left @ right, orientation.turn_array(W @ H))


def test_a_factor_that_is_not_there_is_turned_too() -> None:
    assert Orientation.ROWS.turn_factors(None, H) == (None, H)
    left, right = Orientation.COLUMNS.turn_factors(None, H)
    np.testing.assert_array_equal(left, H.T)
    assert right is None
