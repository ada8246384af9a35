"""Hypothesis strategies: cuts of a length, chunkings, seeds."""

from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**63 - 1)
few = settings(max_examples=settings().max_examples // 2 + 1)  # for examples that make a fit or two
many = settings(max_examples=4 * settings().max_examples)  # for examples that make a plan


@st.composite
def cuts(draw: Any, size: int) -> tuple[int, ...]:
    """Draw edges of a cut: 0 = edges[0] < ... < edges[-1] = size."""
    inner = draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=6))
    return (0, *sorted(cut for cut in inner if cut < size), size)


@st.composite
def chunkings(draw: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Draw the chunk sizes of an array, as Dask takes them."""
    return tuple(tuple(b - a for a, b in pairwise(draw(cuts(size)))) for size in shape)
