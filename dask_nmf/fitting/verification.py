"""Checks that V and its weights are those with which a run began."""

from __future__ import annotations

import logging

from dask_nmf.errors import RunMismatch
from dask_nmf.execution import partition
from dask_nmf.execution.engine import Engine
from dask_nmf.execution.engines.grid import GridEngine
from dask_nmf.execution.partition import CutOptions
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary.digests import Digest, differing_rows
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.options.settings import Settings
from dask_nmf.progress import report_stage
from dask_nmf.runs.record.contents import SOURCES, panel_shape
from dask_nmf.runs.record.layouts import DIMENSIONS
from dask_nmf.runs.resume import source_listing
from dask_nmf.runs.run import Run
from dask_nmf.sources.labels.names import Labels, describe_difference
from dask_nmf.sources.matrix import Matrix

logger = logging.getLogger(__name__)

OTHER_OUTPUT = "give another output, or ask to overwrite it (--overwrite)"  # where a fit is to begin
SHOWN = 3  # the most ranges of rows that a message names


def is_unwritten(matrix: Matrix, weights: Matrix | None, run: Run) -> bool:
    """Return whether file listings prove, without a read, that V and its weights are unchanged."""
    now = source_listing(matrix, weights)
    return None not in now.values() and now == run.record["listing"]


def check_names(labels: Labels, of_run: Labels, name: str, cure: str = OTHER_OUTPUT) -> None:
    """Compare the names of the rows and columns of V with those of a run, where both have some.

    Raises
    ------
    RunMismatch
        If a name differs: the run would answer with names that are not those of V.
    """
    mine, theirs = (labels.rows, labels.columns), (of_run.rows, of_run.columns)
    for dimension, ours, others in zip(DIMENSIONS, mine, theirs, strict=True):
        difference = describe_difference(dimension, ours, others)
        if difference is not None:
            raise RunMismatch(f"{name} holds a fit of V with other names: {difference}; {cure}")


def check_content(matrix: Matrix, weights: Matrix | None, rule: EntryMask, run: Run) -> None:
    """Read V and its weights once, compare them with those of the run, and update its file listing.

    Raises
    ------
    RunMismatch
        If an entry differs; the message names the rows.
    """
    now = source_listing(matrix, weights)
    report_stage("comparing V")
    logger.info(
        "%s: reading V once, to compare it with the V of %s",
        "it is not known whether V was written since" if None in now.values() else "V was written since",
        run.location.name,
    )
    rows = panel_shape(run.record)[0]
    for name, digest in zip(SOURCES, _content(matrix, weights, rule, run.settings), strict=False):
        ranges = differing_rows(digest, run.digest(name), rows)
        if ranges:
            raise RunMismatch(
                f"{run.location.name} holds another fit: {name} is not the same in "
                f"{ranges_in_words(matrix.orientation.turn(('row', 'column'))[0], ranges)}; {OTHER_OUTPUT}"
            )
    logger.info("every entry is the same")
    if None not in now.values():
        run.update_listing(now)


def _content(
    matrix: Matrix, weights: Matrix | None, rule: EntryMask, settings: Settings
) -> tuple[Digest, ...]:
    """Return the digests of the present V and weights, in one read."""
    engine: Engine
    try:
        engine, _ = partition.cut_into_panels(
            matrix, settings.n_components, weights, rule, CutOptions(own_grams=False)
        )
    except MemoryError:
        if not rule.uses_whole_blocks:
            raise
        engine = GridEngine(matrix, partition.plan_blocks(matrix, settings.n_components))
    try:
        return engine.summarize(SampleSpec(matrix.layout.rows, 0, settings.random_state)).digests
    finally:
        engine.close()


def ranges_in_words(unit: str, ranges: list[tuple[int, int]]) -> str:
    """Return ranges of rows, or of another unit, as a message names them."""
    shown = [str(first) if last == first + 1 else f"{first} to {last - 1}" for first, last in ranges[:SHOWN]]
    more = f" and {len(ranges) - SHOWN} more ranges" if len(ranges) > SHOWN else ""
    several = "s" if len(ranges) > 1 or "to" in shown[0] else ""
    return f"{unit}{several} {', '.join(shown)}{more}"
