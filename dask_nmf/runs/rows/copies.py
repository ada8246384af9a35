"""Copies of finished runs, whose rows are then changed while the run itself stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from dask_nmf.errors import ConcurrentCommitError
from dask_nmf.runs.commits import open_group
from dask_nmf.runs.record.contents import current_folders
from dask_nmf.runs.run import Run
from dask_nmf.storage.arrays import copies, links
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location


@contextmanager
def copied_run(source: Run, target: Location, check_held: CheckHeld) -> Iterator[Run]:
    """Yield a copy of a finished run at a location where there is none, which its first commit makes a run.

    If no commit is made in the context, nothing is left of the copy.

    Parameters
    ----------
    source : the run as it was opened, which is not locked.
    check_held : raises `RunLocked` if another process has taken over the target.

    Raises
    ------
    ConcurrentCommitError
        If another process has changed the run since it was opened; nothing is copied then.
    """
    group, record = open_group(source.location)
    makes_folder = target.path is not None and not target.path.exists()
    empty = links.unwritten_group(target.store())
    try:
        try:
            copies.copy_folders(group, empty, current_folders(record))
        except FileNotFoundError:
            _check_current(source)
            raise
        _check_current(source)
        yield Run(target, empty, {**record, "writer": uuid4().hex}, check_held)
    finally:
        copies.delete_unfinished(empty, makes_folder, check_held)


def _check_current(run: Run) -> None:
    """Refuse a run whose result is not the one that was opened."""
    if open_group(run.location)[1]["result"] != run.record["result"]:
        raise ConcurrentCommitError(run.location.name)


def check_copy(copy: Run, source: Run) -> None:
    """Refuse a run that does not begin as a copy of another one does.

    Raises
    ------
    FileExistsError
        If it is another fit, or rows of one of the two were changed since that the other one has.
    """
    mine, theirs = (run.record["result"] or {} for run in (copy, source))
    before = theirs.get("lineage", [])
    if copy.record["layout"] != source.record["layout"] or mine.get("lineage", [])[: len(before)] != before:
        raise FileExistsError(
            f"{copy.location.name} exists and is not {source.location.name} with more rows; "
            "give another output, or remove it"
        )
