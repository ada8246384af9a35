"""The words of some texts, as a vectorizer of scikit-learn finds and counts them, in any process.

Little is imported here, so that processes that count words start soon.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def text_frequencies(vectorizer: Any, texts: Sequence[str]) -> Counter[str]:
    """Return in how many of some texts each word is."""
    analyze = vectorizer.build_analyzer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(analyze(text)))
    return counts


def word_counts(vectorizer: Any, texts: Sequence[str]) -> Any:
    """Return how often each word that the vectorizer knows is in each text, as a sparse matrix."""
    return vectorizer.transform(texts)


def serve() -> None:
    """Read functions and items from standard input, and write the values of the items, until it ends.

    Standard input ends with the process that started this one, perhaps within an item.
    """
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    function: Any = None
    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        while True:
            is_function, content = pickle.load(sys.stdin.buffer)  # from the process that started this one
            if is_function:
                function = content
                continue
            answer: tuple[Any, Exception | None]
            try:
                answer = function(content), None
            except Exception as error:
                answer = None, error
            send(output, answer)


def send(pipe: Any, value: Any) -> None:
    """Write a value to a pipe."""
    pickle.dump(value, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
