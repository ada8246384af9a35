"""The run that an update reads, and the one that it changes: the same one, or a copy."""

from __future__ import annotations

from dataclasses import dataclass

from dask_nmf.runs.commits import is_free
from dask_nmf.runs.rows.copies import check_copy, copy_run
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

    def begin(self, opened: Run) -> Run:
        """Return the run to be changed, which is a new copy of the one that was opened, unless it is that."""
        if opened.location.address == self.target.address:
            return opened
        return copy_run(opened, self.target, self.check_held)

    def _recovered(self) -> Run:
        run = Run.load(self.target, self.check_held)
        run.recover()
        if run.record["result"] is not None:
            run.change_rows(run.record["result"]["matrix"]["shape"][0]).clean()
        return run
