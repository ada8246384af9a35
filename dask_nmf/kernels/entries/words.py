"""Texts as words of 8 bytes: how they are loaded from bytes, and the hash that is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

HALF = np.uint64(32)
ZERO, ONE, FOUR, EIGHT = np.uint64(0), np.uint64(1), np.uint64(4), np.uint64(8)
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: Knuth's multiplicative hashing
SHIFT = np.uint64(29)


@compiled(inlined=True)
def half_at(data: Bytes, first: Any) -> Any:
    """Return 4 bytes as a number."""
    low = np.uint64(data[first]) | (np.uint64(data[first + ONE]) << np.uint64(8))
    high = np.uint64(data[first + np.uint64(2)]) | (np.uint64(data[first + np.uint64(3)]) << np.uint64(8))
    return low | (high << np.uint64(16))


@compiled(inlined=True)
def word_at(data: Bytes, first: Any) -> Any:
    """Return 8 bytes as a number, which compiles to one load."""
    return half_at(data, first) | (half_at(data, first + FOUR) << HALF)


@compiled(inlined=True)
def last_word(data: Bytes, first: Any, last: Any) -> Any:
    """Return as a number the bytes of a text that do not fill a word, at its end; it has no loop."""
    length = last - first
    rest = length % EIGHT
    if rest == ZERO:
        return ZERO
    if length >= EIGHT:
        return word_at(data, last - EIGHT) >> (EIGHT * (EIGHT - rest))
    if length >= FOUR:
        return half_at(data, first) | (half_at(data, last - FOUR) << (EIGHT * (length - FOUR)))
    middle = length // np.uint64(2)
    word = np.uint64(data[first]) | (np.uint64(data[first + middle]) << (EIGHT * middle))
    return word | (np.uint64(data[last - ONE]) << (EIGHT * (length - ONE)))


@compiled(inlined=True)
def mixed(hashed: Any, word: Any) -> Any:
    """Return the hash of some words, the first of which is 0, and of one more."""
    hashed = (hashed ^ word) * FACTOR
    return hashed ^ (hashed >> SHIFT)


@compiled(inlined=True)
def finished(hashed: Any, rest: Any, length: Any) -> Any:
    """Return the hash of a text, of 32 bits, from that of its whole words, the rest of it, and its length."""
    return (mixed(mixed(hashed, rest), length) * FACTOR) >> HALF
