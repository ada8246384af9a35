"""`CountedTexts`: how often each word is in each text, as scikit-learn's vectorizers count them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import tee
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError
from dask_nmf.ingest.files import size_of
from dask_nmf.ingest.formats.documents.processes import MOST, Processes
from dask_nmf.ingest.formats.documents.texts import Text, Texts
from dask_nmf.ingest.formats.documents.vocabulary import VocabularyBuilder
from dask_nmf.ingest.formats.documents.words import text_frequencies, word_counts
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.ingest.reading import ReadProgress, optional_library
from dask_nmf.ingest.rows import Batch, Columns, check_wanted
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.storage.local.filesystem import replace
from dask_nmf.types import T

logger = logging.getLogger(__name__)
CHARACTERS = 2**22  # of the texts that are counted at once, about
TEXTS = 2**13  # that are counted at once, at most
WORDS = "words.json"  # the file of words that are kept, for a conversion that goes on
MUCH = 2**26  # bytes of texts from which on several processes count words
SECONDS = 10  # that finding words took at least, if they are kept


class Part(NamedTuple):
    """Texts that are counted at once, and the position after them."""

    texts: list[Text]
    position: tuple[int, int]


class CountedTexts:
    """Counts of words in texts: a row for each text, and a column for each word, sorted, or for each hash.

    The words are found in a pass of their own, unless they are known or hashed.
    """

    sparse = True

    def __init__(self, sources: Sequence[Texts], options: ConvertOptions, scratch: Path) -> None:
        self._sources = sources
        self._counting, self._steps = options.counting, options.steps
        self._words = options.vocabulary
        self._scratch = scratch
        self._rules = options.rules()
        self.dtype = self._rules.dtype

    @property
    def found(self) -> bool:
        """Return whether words are found in the texts, so that only frequent ones become columns."""
        return self._counting.hash_columns is None

    def columns(self) -> Columns:
        """Return the words, or the number of hashes."""
        if self._counting.hash_columns is not None:
            return Columns(self._counting.hash_columns)
        return Columns(len(self._words or ()), self._words)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the counts of texts in order; a position is a number of sources and of texts of the next one.

        Raises
        ------
        DataError
            If no text has a word that counts; whatever the texts raise.
        """
        much = sum(size_of(path) for source in self._sources for path in source.paths) >= MUCH
        with closing(Processes(min(MOST, CPU_COUNT) if much else 0)) as processes:
            if self.found and self._words is None:
                self._words = self._known_words() or self._vocabulary(processes)
            for matrix, (texts, position) in self._computed(processes, word_counts, *begin or (0, 0)):
                counts = scipy.sparse.csr_array(matrix, dtype=self.dtype)
                counts.indices = counts.indices.astype(np.int32, copy=False)
                names = [name for _, name in texts if name is not None]
                yield Batch(counts, names if len(names) == len(texts) else None, position)

    def _computed(
        self, processes: Processes, function: Callable[[Any, list[str]], T], *begin: int
    ) -> Iterator[tuple[T, Part]]:
        """Yield a function of the vectorizer and the texts of each part, with the part."""
        parts, waiting = tee(self._parts(*begin))
        texts = ([text for text, _ in part.texts] for part in parts)
        values = processes.map(partial(function, self._vectorizer()), texts, lambda part: sum(map(len, part)))
        yield from zip(values, waiting, strict=True)

    def _vectorizer(self) -> Any:
        library = optional_library("sklearn.feature_extraction.text")
        settings: dict[str, Any] = {
            "stop_words": self._counting.stop_words,
            "ngram_range": self._counting.ngrams,
        }
        if self._counting.hash_columns is not None:
            columns = self._counting.hash_columns
            return library.HashingVectorizer(n_features=columns, norm=None, alternate_sign=False, **settings)
        return library.CountVectorizer(vocabulary=self._words, **settings)

    def _vocabulary(self, processes: Processes) -> list[str]:
        """Return the words of all texts that are in enough of them, and not in too many."""
        began = time.monotonic()
        builder = VocabularyBuilder(self._scratch)
        for counts, (texts, _) in self._computed(processes, text_frequencies):
            builder.add(counts, len(texts))
        share = self._steps.max_frequency
        words = builder.words(self._steps.min_count or 1, inf if share is None else share * builder.texts)
        if not words:
            raise DataError(
                f"no word of {builder.texts} texts counts; give a lower --min-count or a higher "
                "--max-frequency, or texts with words of at least two letters"
            )
        if len(words) < builder.found:
            logger.info("words that are kept: %d of %d", len(words), builder.found)
        if time.monotonic() - began >= SECONDS:
            replace({self._scratch / WORDS: json.dumps(words).encode()})
        return words

    def _known_words(self) -> list[str] | None:
        """Return the words that a conversion that was stopped has stored; None if it has not."""
        file = self._scratch / WORDS
        if not file.exists():
            return None
        with files_left():
            words: list[str] = json.loads(file.read_bytes())
        return words

    def _parts(self, done: int = 0, first: int = 0) -> Iterator[Part]:
        """Yield the texts from one of a source on, some at a time."""
        progress = ReadProgress([path for source in self._sources for path in source.paths])
        part: list[Text] = []
        characters = 0
        for number, source in enumerate(self._sources):
            if number < done:
                for path in source.paths:
                    progress.file_done(path)
                continue
            begin = first if number == done else 0
            for index, text in enumerate(source.read(progress, begin), begin):
                part.append(text)
                characters += len(text.text)
                if characters >= CHARACTERS or len(part) >= TEXTS:
                    check_wanted()
                    yield Part(part, (number, index + 1))
                    part, characters = [], 0
        if part:
            yield Part(part, (len(self._sources), 0))
