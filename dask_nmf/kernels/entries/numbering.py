"""Numbers for texts, from a hash table with open addressing.

A known text is a record of words of 8 bytes: its number and its length in the first, then its bytes, ended by
zeros. A slot of the table holds the hash of a text and the place of its record. Texts are looked up in tiles,
by loops over slots and over records, so that a processor waits for many of each at the same time: a loop
that only loads has no branch for which it would wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.entries.words import (
    EIGHT,
    HALF,
    ONE,
    ZERO,
    Bytes,
    Words,
    finished,
    last_word,
    mixed,
    word_at,
)
from dask_nmf.types import Array

FREE = np.uint64(0xFFFFFFFF)  # the place in a slot without a text, and of a text that is not known
LOWER = np.uint64(0xFFFFFFFF)
TILE = 256  # texts


def empty_table(slots: int) -> Words:
    """Return a table of free slots, whose number is a power of 2."""
    return np.full(slots, FREE)


@compiled(inlined=True)
def _has_words(data: Bytes, first: Any, last: Any, records: Words, place: Any) -> Any:
    """Return whether the record at a place has the whole words of a text."""
    while first + EIGHT <= last:
        place += ONE
        if records[place] != word_at(data, first):
            return False
        first += EIGHT
    return True


@compiled(inlined=True)
def _is_same(data: Bytes, first: Any, length: Any, records: Words, place: Any) -> Any:
    """Return whether the record at a place has a text."""
    last = first + length
    return (
        (records[place] & LOWER) == length
        and records[place + ONE + length // EIGHT] == last_word(data, first, last)
        and _has_words(data, first, last, records, place)
    )


@compiled()
def hash_texts(data: Bytes, starts: Array, ends: Array, hashes: Words) -> Any:
    """Fill in the hash of each text, which lies between two bytes; return the length of the shortest."""
    shortest = LOWER
    for i in range(len(hashes)):
        first, last = np.uint64(starts[i]), np.uint64(ends[i])
        shortest = min(shortest, last - first)
        hashed, begin = ZERO, first
        while begin + EIGHT <= last:
            hashed = mixed(hashed, word_at(data, begin))
            begin += EIGHT
        hashes[i] = finished(hashed, last_word(data, first, last), last - first)
    return shortest


@compiled()
def find_texts(
    data: Bytes, starts: Array, ends: Array, hashes: Words, table: Words, records: Words, codes: Array
) -> Any:
    """Fill in the numbers of texts; -1 for one that is not known, or whose hash another one has.

    Returns how many of them are -1.
    """
    mask, end = np.uint64(len(table) - 1), np.uint64(len(records) - 1)
    places, heads, rests = np.empty(TILE, np.uint64), np.empty(TILE, np.uint64), np.empty(TILE, np.uint64)
    unknown = 0
    for start in range(0, len(codes), TILE):
        count = min(TILE, len(codes) - start)
        for i in range(count):
            places[i] = table[hashes[start + i] & mask]
        for i in range(count):
            hashed = hashes[start + i]
            slot = hashed & mask
            entry = places[i]
            while (entry >> HALF) != hashed and (entry & LOWER) != FREE:
                slot = (slot + ONE) & mask
                entry = table[slot]
            places[i] = entry & LOWER
        for i in range(count):
            words = np.uint64(ends[start + i] - starts[start + i]) // EIGHT
            heads[i] = records[min(places[i], end)]
            rests[i] = records[min(places[i] + ONE + words, end)]
        for i in range(count):
            first, last = np.uint64(starts[start + i]), np.uint64(ends[start + i])
            if (
                places[i] != FREE
                and (heads[i] & LOWER) == last - first
                and rests[i] == last_word(data, first, last)
                and _has_words(data, first, last, records, places[i])
            ):
                codes[start + i] = np.int32(heads[i] >> HALF)
            else:
                codes[start + i] = np.int32(-1)
                unknown += 1
    return unknown


@compiled()
def add_texts(
    data: Bytes, starts: Array, ends: Array, hashes: Words, table: Words, records: Words, places: Words,
    end: int, size: int, codes: Array,
) -> tuple[int, int]:  # fmt: skip
    """Number the texts whose number is -1, and add those that are new to the ``size`` known ones.

    The table, the records, which end at word ``end``, and the places of the records, one for each number,
    have room for all of them. Returns the end of the records, and how many texts are known.
    """
    mask = np.uint64(len(table) - 1)
    for i in range(len(codes)):
        if codes[i] >= 0:
            continue
        first, length = np.uint64(starts[i]), np.uint64(ends[i] - starts[i])
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
                records[place + ONE + w] = word_at(data, first + EIGHT * w)
            records[place + ONE + words] = last_word(data, first, first + length)
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
