"""The vocabulary of many texts: words that enough of them have, counted outside of memory and sorted."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

WORDS = 2**19  # that are counted in memory at once

Counted = tuple[str, int]


class VocabularyBuilder:
    """Words, and in how many texts each is.

    Words are counted in memory until there are many of them. These are then sorted and written to a file,
    and at the end the files are merged.

    Parameters
    ----------
    folder : an empty folder for the files
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._counts: Counter[str] = Counter()
        self.texts = 0
        self.found = 0  # words, of which `words` returns some

    def add(self, counts: Counter[str], texts: int) -> None:
        """Add words, and in how many of some texts each is."""
        self.texts += texts
        self._counts.update(counts)
        if len(self._counts) >= WORDS:
            self._write()

    def words(self, least: int, most: float) -> list[str]:
        """Return the words that at least, and at most, some numbers of texts have, sorted by code points."""
        parts = [_read(path) for path in self._files]
        merged = heapq.merge(*parts, iter(sorted(self._counts.items())))
        counted = ((word, sum(count for _, count in same)) for word, same in groupby(merged, itemgetter(0)))
        kept = []
        for word, count in counted:
            self.found += 1
            if least <= count <= most:
                kept.append(word)
        return kept

    def _write(self) -> None:
        path = self._folder / f"words{len(self._files)}"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{count} {word}\n" for word, count in sorted(self._counts.items()))
        self._files.append(path)
        self._counts = Counter()


def _read(path: Path) -> Iterator[Counted]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            count, _, word = line.rstrip("\n").partition(" ")
            yield word, int(count)
