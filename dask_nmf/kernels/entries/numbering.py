"""Numbers for texts, from a hash table with open addressing.

A known text is a record of words of 8 bytes: its number and its length in the first, then its bytes, ended by
zeros. A slot of the table holds the hash of a text and the place of its record. Texts are looked up in tiles,
by loops over slots and over records, so that a processor waits for many of each at the same time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

FREE = np.uint64(0xFFFFFFFF)  # the place in a slot without a text, and of a text that is not known
LOWER, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio: Knuth's multiplicative hashing
SHIFT = np.uint64(29)
TILE = 256  # texts
ZERO, ONE, FOUR, EIGHT = np.uint64(0), np.uint64(1), np.uint64(4), np.uint64(8)


def empty_table(slots: int) -> Words:
    """Return a table of free slots, whose number is a power of 2."""
    return np.full(slots, FREE)


@compiled(inlined=True)
def _half(data: Bytes, first: Any) -> Any:
    """Return 4 bytes as a number."""
    low = np.uint64(data[first]) | (np.uint64(data[first + ONE]) << np.uint64(8))
    high = np.uint64(data[first + np.uint64(2)]) | (np.uint64(data[first + np.uint64(3)]) << np.uint64(8))
    return low | (high << np.uint64(16))


@compiled(inlined=True)
def _word(data: Bytes, first: Any) -> Any:
    """Return 8 bytes as a number, which compiles to one load."""
    return _half(data, first) | (_half(data, first + FOUR) << HALF)


@compiled(inlined=True)
def _last_word(data: Bytes, first: Any, last: Any) -> Any:
    """Return as a number the bytes of a text that do not fill a word, at its end; it has no loop."""
    length = last - first
    rest = length % EIGHT
    if rest == ZERO:
        return ZERO
    if length >= EIGHT:
        return _word(data, last - EIGHT) >> (EIGHT * (EIGHT - rest))
    if length >= FOUR:
        return _half(data, first) | (_half(data, last - FOUR) << (EIGHT * (length - FOUR)))
    middle = length // np.uint64(2)
    word = np.uint64(data[first]) | (np.uint64(data[first + middle]) << (EIGHT * middle))
    return word | (np.uint64(data[last - ONE]) << (EIGHT * (length - ONE)))


@compiled(inlined=True)
def _mixed(hashed: Any, word: Any) -> Any:
    hashed = (hashed ^ word) * FACTOR
    return hashed ^ (hashed >> SHIFT)


@compiled(inlined=True)
def _is_same(data: Bytes, first: Any, length: Any, records: Words, place: Any) -> Any:
    """Return whether the record at a place has a text."""
    if (records[place] & LOWER) != length:
        return False
    begin, last = first, first + length
    while begin + EIGHT <= last:
        place += ONE
        if records[place] != _word(data, begin):
            return False
        begin += EIGHT
    return records[place + ONE] == _last_word(data, first, last)


@compiled()
def hash_texts(data: Bytes, edges: Array, hashes: Words) -> Any:
    """Fill in the hash of each text, which lies between two edges; return the length of the shortest."""
    shortest = LOWER
    for i in range(len(hashes)):
        first, last = np.uint64(edges[i]), np.uint64(edges[i + 1])
        shortest = min(shortest, last - first)
        hashed = (last - first) * FACTOR
        begin = first
        while begin + EIGHT <= last:
            hashed = _mixed(hashed, _word(data, begin))
            begin += EIGHT
        hashes[i] = (_mixed(hashed, _last_word(data, first, last)) * FACTOR) >> HALF
    return shortest


@compiled()
def find_texts(data: Bytes, edges: Array, hashes: Words, table: Words, records: Words, codes: Array) -> Any:
    """Fill in the numbers of texts; -1 for one that is not known, or whose hash another one has.

    Returns how many of them are -1.
    """
    mask = np.uint64(len(table) - 1)
    places, heads = np.empty(TILE, np.uint64), np.empty(TILE, np.uint64)
    unknown = 0
    for start in range(0, len(codes), TILE):
        count = min(TILE, len(codes) - start)
        for i in range(count):
            hashed = hashes[start + i]
            slot = hashed & mask
            entry = table[slot]
            while (entry >> HALF) != hashed and (entry & LOWER) != FREE:
                slot = (slot + ONE) & mask
                entry = table[slot]
            places[i] = entry & LOWER
        for i in range(count):
            heads[i] = records[places[i] if places[i] != FREE else ZERO]
        for i in range(count):
            first, last = np.uint64(edges[start + i]), np.uint64(edges[start + i + 1])
            if places[i] != FREE and _is_same(data, first, last - first, records, places[i]):
                codes[start + i] = np.int32(heads[i] >> HALF)
            else:
                codes[start + i] = np.int32(-1)
                unknown += 1
    return unknown


@compiled()
def add_texts(
    data: Bytes, edges: Array, hashes: Words, table: Words, records: Words, places: Words, end: int,
    size: int, codes: Array,
) -> tuple[int, int]:  # fmt: skip
    """Number the texts whose number is -1, and add those that are new to the ``size`` known ones.

    The table, the records, which end at word ``end``, and the places of the records, one for each number,
    have room for all of them. Returns the end of the records, and how many texts are known.
    """
    mask = np.uint64(len(table) - 1)
    for i in range(len(codes)):
        if codes[i] >= 0:
            continue
        first, length = np.uint64(edges[i]), np.uint64(edges[i + 1] - edges[i])
        slot = hashes[i] & mask
        place = table[slot] & LOWER
        while place != FREE and not _is_same(data, first, length, records, place):
            slot = (slot + ONE) & mask
            place = table[slot] & LOWER
        if place == FREE:
            place = np.uint64(end)
            table[slot] = (hashes[i] << HALF) | place
            places[size] = place
            records[place] = (np.uint64(size) << HALF) | length
            words = length // EIGHT
            for w in range(words):
                records[place + ONE + w] = _word(data, first + EIGHT * w)
            records[place + ONE + words] = _last_word(data, first, first + length)
            end += 2 + np.int64(words)
            size += 1
        codes[i] = np.int32(records[place] >> HALF)
    return end, size


@compiled()
def move_slots(table: Words, larger: Words) -> None:
    """Enter the texts of a table into a larger one."""
    mask = np.uint64(len(larger) - 1)
    for entry in table:
        if (entry & LOWER) != FREE:
            slot = (entry >> HALF) & mask
            while (larger[slot] & LOWER) != FREE:
                slot = (slot + ONE) & mask
            larger[slot] = entry


@compiled()
def copy_texts(records: Words, places: Words, edges: Array, data: Bytes) -> None:
    """Copy the texts at some places, one after the other; fill in the edges between them, from 0 on."""
    for i in range(len(places)):
        place, first = places[i], np.uint64(edges[i])
        length = records[place] & LOWER
        for j in range(length):
            data[first + j] = np.uint8(records[place + ONE + j // EIGHT] >> (EIGHT * (j % EIGHT)))
        edges[i + 1] = np.int64(first + length)
