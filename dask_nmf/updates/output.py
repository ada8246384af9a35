"""The run that an update reads, and the one that it changes: the same one, or a copy."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from dask_nmf.runs.commits import is_free
from dask_nmf.runs.rows.copies import check_copy, copied_run
from dask_nmf.runs.run import Run
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location


@dataclass(frozen=True)
class Output:
    """Where an updated run goes.

    Attributes
    ----------
    source : the run to which rows are added
    target : where the updated run goes; the source if it is changed in place
    check_held : raises `RunLocked` if another process has taken over the target
    """

    source: Location
    target: Location
    check_held: CheckHeld

    def open(self) -> Run:
        """Return the run to be read: the one at the target, if an earlier command has made it.

        Raises
        ------
        FileExistsError, InvalidRunError
            If there is another run, or anything else, at the target.
        """
        if self.target is self.source:
            return self._recovered()
        source = Run.load(self.source)
        if is_free(self.target):
            return source
        check_copy(Run.load(self.target), source)
        return self._recovered()

    def begin(self, opened: Run) -> AbstractContextManager[Run]:
        """Return a context of the run to be changed: the one that was opened, or a new copy of it.

        A copy becomes a run by the first commit to it. Nothing is left of one to which none was made.
        """
        if opened.location.address == self.target.address:
            return nullcontext(opened)
        return copied_run(opened, self.target, self.check_held)

    def keep(self, opened: Run) -> None:
        """Commit a copy of the run that was opened, as it is, unless it is at the target already."""
        with self.begin(opened) as run:
            if run is not opened:
                run.change_rows(run.record["result"]["matrix"]["shape"][0]).keep()

    def _recovered(self) -> Run:
        run = Run.load(self.target, self.check_held)
        run.recover()
        if run.record["result"] is not None:
            run.change_rows(run.record["result"]["matrix"]["shape"][0]).clean()
        return run
