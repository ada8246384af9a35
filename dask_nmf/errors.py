"""What V and the files that hold it may do wrong, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from math import inf, isnan
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


class InvalidEntryError(DataError):
    """An entry that no NMF can take: negative or not finite."""

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(row, column, value)
        self.row, self.column, self.value = row, column, value

    def __str__(self) -> str:
        if self.value == 0:
            need = "a beta_loss of β ≤ 0 takes entries > 0: add a little to V, or take another loss"
        elif -inf < self.value < 0:
            need = "NMF takes entries >= 0: shift or clip V"
        else:
            need = "NMF takes finite entries: replace or drop them"
            if isnan(self.value):
                need += ', or let NaN, and what is masked, be missing: missing="nan", --missing nan'
        found = "Negative values in data: V" if -inf < self.value < 0 else "V"  # as scikit-learn has it
        return f"{found} has {self.value} at row {self.row}, column {self.column}; {need}"

    def at(self, first_row: int, transposed: bool = False) -> InvalidEntryError:
        """The same entry where the block begins at ``first_row``, and may be columns of V."""
        row = self.row + first_row
        if transposed:
            return InvalidEntryError(self.column, row, self.value)
        return InvalidEntryError(row, self.column, self.value)


class InvalidRunError(ValueError):
    """What is at the path is not a run that this version can read."""


class StoreUnavailableError(ConnectionError):
    """A store did not answer, or not well, however often it was asked."""


class StoreAccessError(PermissionError):
    """A store refuses what was asked, for want of the right credentials."""


class ConcurrentCommitError(RuntimeError):
    """What was to be replaced, at a URL, has been replaced by another process."""

    def __str__(self) -> str:
        return f"{self.args[0]} was changed by another process meanwhile; it goes on there"


class RunMismatch(ValueError):
    """The run at the path is of another fit."""


class NoWorkers(TimeoutError):
    """The cluster has no worker, and none came in time."""


class WorkersLost(ClusterLost):
    """Workers died, again and again or while they were sent something."""
