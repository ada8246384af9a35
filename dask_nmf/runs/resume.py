"""Find the run that a fit goes on with, or begin one."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dask_nmf.cluster import sharing
from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.options.settings import Settings
from dask_nmf.runs.commits import is_free
from dask_nmf.runs.rows.conditions import check_unchanged
from dask_nmf.runs.run import Run
from dask_nmf.sources.matrix import Matrix, digest
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location, location_of_file
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

HELD_OUT_BY = "groups"  # the rule that chooses held-out entries: a run of another rule is of another fit


class Identity(NamedTuple):
    """The settings and the matrix of a fit. Two fits are the same if these and the content of V are equal."""

    settings: dict[str, Any]
    matrix: dict[str, Any]


def identity_of(matrix: Matrix, settings: Settings, given: Mapping[str, Array | Matrix | None]) -> Identity:
    """Return the identity of a fit of ``matrix`` with ``settings``, given factors and weights, if any."""
    hashes = {
        name: "given" if isinstance(part, Matrix) else None if part is None else digest(part)
        for name, part in given.items()
    }
    chosen = {"held_out_by": HELD_OUT_BY} if settings.validation_fraction else {}
    return Identity(
        {**settings.record(), **hashes, **chosen},
        {
            "source": matrix.source,
            "shape": list(matrix.shape),
            "dtype": matrix.dtype.name,
            "transposed": matrix.orientation.by_columns,
            **({} if matrix.recipe is None else {"recipe": matrix.recipe}),
            **({} if matrix.image_shape is None else {"image_shape": list(matrix.image_shape)}),
        },
    )


@dataclass(frozen=True)
class NewRun:
    """A run that is to begin once V is known to be valid.

    Attributes
    ----------
    location : where the run is
    old : the run that is there and will be replaced, if any
    overwrite : whether the fit was asked to overwrite a run
    check_held : raises `RunLocked` if another process has taken over the location
    """

    location: Location
    old: Run | None
    overwrite: bool
    check_held: CheckHeld

    def create(self, mine: Identity) -> Run:
        """Begin the run; raise `ConcurrentCommitError` if another process has begun one there meanwhile."""
        if self.old is None:
            return Run.create(self.location, *mine, overwrite=self.overwrite, check_held=self.check_held)
        self.old.replace_fit(*mine)
        return self.old


def find_resumable(
    location: Location, mine: Identity, overwrite: bool, check_held: CheckHeld
) -> Run | NewRun:
    """Return the run to go on with, mended, or one that is to begin.

    The same call goes on with a fit that was begun to overwrite another one and is not finished.

    Raises
    ------
    RunMismatch
        If there is a run of another fit, and it may not be overwritten.
    InvalidRunError
        If there is something else, which is never overwritten, or a damaged run that may not be overwritten.
    """
    if is_free(location):
        return NewRun(location, None, overwrite, check_held)
    run = Run.load(location, check_held)
    settings = run.record["settings"] | run.settings.record()  # an option that is not stored has its default
    differing = [
        f"{name} is {ours!r}, the run has {stored.get(name)!r}"
        for wanted, stored in zip(mine, (settings, run.record["matrix"]), strict=True)
        for name, ours in wanted.items()
        if name != "source" and stored.get(name) != ours
    ]
    goes_on = not differing and run.record["overwrites"] and not run.record["finished"]
    if overwrite and not goes_on:
        return NewRun(location, run, overwrite, check_held)
    if differing:
        raise RunMismatch(
            f"{location.name} holds another fit: {'; '.join(differing)}; "
            "give another output, or ask to overwrite it (--overwrite)"
        )
    check_unchanged(location.name, run.record)
    try:
        run.recover()
    except InvalidRunError as damage:
        if not overwrite:
            raise
        logger.warning("%s; it is begun anew", damage)
        return NewRun(location, run, overwrite, check_held)
    return run


def source_listing(matrix: Matrix, weights: Matrix | None) -> dict[str, str | None]:
    """Return digests of the listings of the files of V and its weights: see `Matrix.listing`."""
    return {"V": matrix.listing} | ({} if weights is None else {"weights": weights.listing})


@contextmanager
def temporary_run(mine: Identity, why: str) -> Iterator[Run]:
    """Yield a run in a temporary folder.

    Parameters
    ----------
    why : the reason why it is needed, for the text of the error

    Raises
    ------
    ValueError
        If workers are on other machines.
    """
    if not sharing.shares_this_disk():
        raise ValueError(
            f"{why}, and the workers are on other machines; give store= a path that all of them reach"
        )
    with tempfile.TemporaryDirectory(prefix="dask-nmf-") as folder:
        yield Run.create(location_of_file(Path(folder, "run.zarr")), *mine, synced=False)
