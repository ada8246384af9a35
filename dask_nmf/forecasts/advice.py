"""The changes that would make a fit faster, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from dask_nmf.execution.partition import KEPT
from dask_nmf.forecasts.costs import Costs
from dask_nmf.planning.grid import GridPlan
from dask_nmf.planning.worker_memory import MIB, USABLE
from dask_nmf.wording import counted

SMALL_CHUNK = 256 * 1024  # bytes: below, opening and decoding of chunks take longer than their entries
GOOD_CHUNK = 8 * MIB  # bytes of a chunk that is quick to read and small beside a panel
MANY_CHUNKS = 8  # chunks of a panel from which on small ones are worth a mention
WORTH = 0.05  # share of the time of a pass that a change must save


def sentences(costs: Costs) -> tuple[str, ...]:
    """Return what would make the fit faster, the cheapest change first."""
    parts = (_chunks, _groups, _cache, _dtype, _workers)
    return tuple(sentence for part in parts for sentence in part(costs))


def _chunks(costs: Costs) -> Iterator[str]:
    """Yield the command that stores V in better chunks, if those that it has are small or force a grid."""
    layout, matrix = costs.subject.matrix.layout, costs.subject.matrix
    if layout.indptr is not None or not layout.chunk_bytes or matrix.location is None:
        return
    row = layout.columns * layout.itemsize
    panel = layout.panel_bytes(0, layout.rows) / costs.shape[0]
    small = layout.chunk_bytes < SMALL_CHUNK and panel / layout.chunk_bytes > MANY_CHUNKS
    blocks = isinstance(costs.subject.plan, GridPlan) and layout.chunk_rows > 1
    if not small and not blocks:
        return
    rows = max(1, min(layout.rows, GOOD_CHUNK // row))
    across = min(layout.columns, max(1, GOOD_CHUNK // layout.itemsize // rows))
    shape = matrix.orientation.turn((rows, across))
    why = (
        f"chunks of {layout.chunk_bytes / 1024:.0f} KiB take longer to open than to read"
        if small
        else "chunks of fewer rows let panels of whole rows fit, so that V is read once a pass"
    )
    yield (f"{why}: dask-nmf convert {matrix.source} {_beside(matrix.source)} --chunks {shape[0]},{shape[1]}")


def _beside(source: str) -> str:
    stem, dot, ending = source.rstrip("/").rpartition(".")
    return f"{stem}-rechunked.zarr" if dot and "/" not in ending else f"{source}-rechunked.zarr"


def _groups(costs: Costs) -> Iterator[str]:
    """Yield the memory with which all models share each read, if they do not."""
    subject = costs.subject
    if len(subject.groups.groups) == 1 or subject.batches > 1:
        return
    needed = subject.plan.memory.worker_bytes(subject.ranks) / USABLE
    yield (
        f"with --memory-limit {ceil(needed / MIB)}MiB all "
        f"{counted(len(subject.ranks), 'model')} share each read: "
        f"{subject.plan.reads} in place of {subject.groups.reads} a pass"
    )


def _cache(costs: Costs) -> Iterator[str]:
    """Yield the memory with which all of V stays in the cache, if reading takes time."""
    subject, resources = costs.subject, costs.subject.resources
    missing = 1 - costs.cached_share
    if resources.memory_limit is None or not subject.matrix.worth_caching or missing == 0:
        return
    read, whole = costs.read_seconds, costs.first_pass_seconds
    saved = None if read is None else subject.groups.reads * read * missing
    if saved is not None and whole is not None and saved < WORTH * whole:
        return
    needed = (subject.groups.worker_bytes + costs.total_bytes / resources.workers / KEPT) / USABLE
    gain = "" if saved is None else f", which saves about {saved:.2g} s a pass"
    yield f"with --memory-limit {ceil(needed / MIB)}MiB all of V stays in memory between passes{gain}"


def _dtype(costs: Costs) -> Iterator[str]:
    if costs.subject.matrix.dtype == np.float64:
        yield "with --dtype float32 panels and products take half as many bytes"


def _workers(costs: Costs) -> Iterator[str]:
    """Yield the number of workers that have a panel each, if there are fewer."""
    below, across = costs.shape
    resources = costs.subject.resources
    most = -(-below * across // resources.threads)
    if most > resources.workers:
        yield (
            f"{counted(below * across, 'panel')} keep up to {counted(most, 'worker')} busy, "
            f"and there are {resources.workers}; "
            f"this machine has {costs.cores} cores"
        )
