"""Numbers of things as people say them."""

import pytest

from dask_nmf.wording import counted


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1, "panel"), "1 panel"),
        ((0, "panel"), "0 panels"),
        ((2, "pass"), "2 passes"),
        ((1, "pass"), "1 pass"),
        ((1200, "entry", ","), "1,200 entries"),
        ((1, "entry", ","), "1 entry"),
        (("?", "worker"), "? workers"),
    ],
)
def test_one_thing_and_several(given: tuple[int, str], text: str) -> None:
    assert counted(*given) == text
