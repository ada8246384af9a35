"""What V and the files that hold it may do wrong, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from typing import Any


class DataError(ValueError):
    """V, or what holds it, is not what NMF can take."""


class NothingObserved(DataError):
    """No entry of V counts."""


class RunLocked(RuntimeError):
    """Another process works on the run, or on an output."""


class ClusterLost(RuntimeError):
    """What a cluster held or computed is gone with its workers, or with its client."""


def came_meanwhile(place: object) -> FileExistsError:
    """Return what to say where an output may no longer go to a place."""
    return FileExistsError(
        f"{place} was made or changed by another process meanwhile, and is left as it is; give another output"
    )


@contextmanager
def readable(place: Any, cure: str) -> Iterator[None]:
    """Name the place of what cannot be read: parsers and codecs raise whatever they like.

    Raises
    ------
    DataError
        For every error but those of the operating system, of stores and of a cluster that is gone, which stay
        what they are.
    """
    try:
        yield
    except (DataError, ClusterLost):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not _of_content(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{place} cannot be read ({reason}); {cure}") from error


def _of_content(error: OSError) -> bool:
    """Whether it is how gzip and bz2 speak of what they were given."""
    return isinstance(error, BadGzipFile) or (type(error) is OSError and error.errno is None)
