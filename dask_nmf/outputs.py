"""Files and folders that appear when they are whole, and take the place of nothing that they should not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def check(place: Path, overwrite: bool, ours: Callable[[Path], bool], maker: str) -> None:
    """Refuse a place where an output may not go.

    Parameters
    ----------
    ours : tells whether what is there was made by ``maker``, and so may be overwritten. May raise anything.

    Raises
    ------
    NotADirectoryError, FileExistsError
        If there is no folder for it; if there is something, and it may not be overwritten or is not ours.
    """
    if not place.parent.is_dir():
        raise NotADirectoryError(f"there is no folder {place.parent} for the output; make it first")
    if not place.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{place} exists; give another output, or ask to overwrite it")
    try:
        known = ours(place)
    except Exception:  # whatever it is, it is not ours
        known = False
    if not known:
        raise FileExistsError(f"{place} is not an output of {maker}; give another output or remove it")


@contextmanager
def appearing(place: Path) -> Iterator[Path]:
    """A hidden path beside a place, to be written: moved there at the end, removed if that fails."""
    partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    try:
        yield partial
        if place.is_dir():
            with replacing(place):
                partial.rename(place)
        else:
            partial.replace(place)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def replacing(place: Path) -> Iterator[None]:
    """Move a folder at a path out of the way, and delete it when the new one is there."""
    old = place.with_name(f".{place.name}.{uuid4().hex}.old")
    if place.exists():
        place.rename(old)
    yield
    shutil.rmtree(old, ignore_errors=True)
