"""`Damaged`: files that a stopped conversion left, of which a power cut took a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Damaged(Exception):
    """Raised where a file that a stopped conversion left cannot be read, so that it must begin anew."""


@contextmanager
def files_left() -> Iterator[None]:
    """Turn any error of reading files that a stopped conversion left into `Damaged`."""
    try:
        yield
    except Exception as error:
        raise Damaged(" ".join(f"{type(error).__name__}: {error}".split())) from error
