"""Exceptions for V, the files that hold it, runs, stores and clusters; each message is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from math import inf, isnan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # with it comes NumPy, and --help is to be quick
    from dask_nmf.types import Orientation


class DataError(ValueError):
    """Raised when V, or the file that holds it, is not valid input for NMF."""


class NothingObserved(DataError):
    """Raised when no entry of V counts: all are missing, held out or of weight 0."""


class RunLocked(RuntimeError):
    """Raised when another process holds the lock of the run or of an output."""


class ClusterLost(RuntimeError):
    """Raised when results of a cluster are lost with its workers, or with its client."""


def came_meanwhile(place: object) -> FileExistsError:
    """Return the error for an output place that another process has made or changed meanwhile."""
    return FileExistsError(
        f"{place} was made or changed by another process meanwhile, and is left as it is; give another output"
    )


def is_folder(place: object) -> FileExistsError:
    """Return the error for the output place of a file at which there is a folder, even an empty one."""
    return FileExistsError(f"{place} is a folder, and the output is a file; give the path of a file")


@contextmanager
def readable(place: Any, cure: str) -> Iterator[None]:
    """Turn any error of a parser or codec into a `DataError` that names the place and the cure.

    Raises
    ------
    DataError
        For every other error. Errors of the operating system, of stores and of a lost cluster pass unchanged.
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
    """Return whether gzip or bz2 raised the error because of the content of a file."""
    return isinstance(error, BadGzipFile) or (type(error) is OSError and error.errno is None)


class InvalidEntryError(DataError):
    """Raised for an entry of V outside the domain of the loss: negative, not finite, or 0 where β ≤ 0."""

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
        found = "Negative values in data: V" if -inf < self.value < 0 else "V"  # the wording of scikit-learn
        return f"{found} has {self.value} at row {self.row}, column {self.column}; {need}"

    def at(self, first_row: int) -> InvalidEntryError:
        """Return the error with indices in panel orientation, for a block that begins at ``first_row``."""
        return InvalidEntryError(self.row + first_row, self.column, self.value)

    def turned(self, orientation: Orientation) -> InvalidEntryError:
        """Return the error with indices in V, for an entry with indices in panel orientation."""
        return InvalidEntryError(*orientation.turn((self.row, self.column)), self.value)


class InvalidRunError(ValueError):
    """Raised when the path holds no run that this version can read."""


class StoreUnavailableError(ConnectionError):
    """Raised when a store gave no usable answer after all retries."""


class StoreAccessError(PermissionError):
    """Raised when a store refuses a request because the credentials do not suffice."""


class ConcurrentCommitError(RuntimeError):
    """Raised when another process has replaced an object at a URL that was to be replaced."""

    def __str__(self) -> str:
        return f"{self.args[0]} was changed by another process meanwhile; it goes on there"


class RunMismatch(ValueError):
    """Raised when the run at the path belongs to another fit."""


class NoWorkers(TimeoutError):
    """Raised when the cluster has no worker and none joins in time."""


class WorkersLost(ClusterLost):
    """Raised when workers died repeatedly, or while data were sent to them."""
