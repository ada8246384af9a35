"""Copies of finished runs, whose rows are then changed while the run itself stays as it is."""

from __future__ import annotations

from uuid import uuid4

from dask_nmf.errors import ConcurrentCommitError
from dask_nmf.runs.commits import Commits, open_group
from dask_nmf.runs.record.contents import current_folders
from dask_nmf.runs.rows.changed_result import shown_arrays
from dask_nmf.runs.run import Run
from dask_nmf.storage.arrays import copies, links
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location


def copy_run(source: Run, target: Location, check_held: CheckHeld) -> Run:
    """Copy a finished run to a location where there is none, in one commit; return the copy.

    Parameters
    ----------
    source : the run as it was opened, which is not locked.
    check_held : raises `RunLocked` if another process has taken over the target.

    Raises
    ------
    ConcurrentCommitError
        If another process has changed the run since it was opened; nothing is committed then.
    """
    group, record = open_group(source.location)
    empty = links.unwritten_group(target.store())
    try:
        copies.copy_folders(group, empty, current_folders(record))
    except FileNotFoundError:
        _check_current(source)
        raise
    _check_current(source)
    commits = Commits(target, empty, {**record, "writer": uuid4().hex}, check_held, True)
    commits.publish(commits.record, shown_arrays(record["result"]), lasting=True)
    commits.write_metadata()
    return Run.load(target, check_held)


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
