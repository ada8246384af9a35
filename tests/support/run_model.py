"""The model of a run, the answers of fits that nobody disturbed; and processes that end when a test says."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import dask
import numpy as np
import pytest
from hypothesis import strategies as st
from support.matrices import low_rank
from zarr.storage import LocalStore

from dask_nmf import nmf, transform
from dask_nmf.iteration import loop
from dask_nmf.storage.arrays import links, places
from dask_nmf.storage.objects.object_store import ObjectStore

V = low_rank(12, 7, 2, noise=1)
PASSES = 4
Bits = tuple[bytes, bytes]


class Killed(BaseException):
    """The process ends here."""


class Asked(NamedTuple):
    """A fit: what tells it from others."""

    rank: int
    seed: int
    solver: str


ASKED = st.builds(
    Asked, st.sampled_from([2, 3]), st.sampled_from([1, 2]), st.sampled_from(["hals", "mu", "sgd"])
)


@cache
def undisturbed(asked: Asked, passes: int = PASSES) -> Bits:
    """The answer of a fit, or of one that a time limit stopped after so many passes."""
    clock = SimpleNamespace(monotonic=time.monotonic)

    def late(step: Any) -> None:
        if step.number == passes - 1:
            clock.monotonic = lambda: time.monotonic() + 1000

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(loop, "time", clock)
        limit = None if passes == PASSES else 0 if passes == 1 else 500
        return begun(f"{folder}/run", asked, callback=late, time_limit=limit)


@cache
def projected(answer: Bits) -> bytes:
    """W of V for the H of an answer."""
    found: bytes = transform(V, np.frombuffer(answer[1]).reshape(-1, 7)).compute().tobytes()
    return found


def begun(store: str, asked: Asked, **options: Any) -> Bits:
    """A fit in a run, to its end."""
    result = nmf(
        V,
        asked.rank,
        random_state=asked.seed,
        solver=asked.solver,
        max_iter=PASSES,
        tol=0,
        store=store,
        **options,
    )
    W, H = dask.compute(result.W, result.H)
    return W.tobytes(), H.tobytes()


def killed_at(number: int) -> Callable[[Any], None]:
    """A callback that ends the process after a pass."""

    def callback(step: Any) -> None:
        if step.number == number:
            raise Killed

    return callback


def dies(patch: pytest.MonkeyPatch, moment: int) -> None:
    """End the process at one of the next writes, deletions or changes of names."""
    left = iter(range(moment, -1, -1))

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any, **named: Any) -> Any:
            if next(left, 0) == 0:
                raise Killed
            return change(*given, **named)

        return changed

    for store in (LocalStore, ObjectStore):
        for name in ("set", "delete", "delete_dir"):
            patch.setattr(store, name, before(getattr(store, name)))
    patch.setattr(ObjectStore, "copy", before(ObjectStore.copy))
    for name in ("_delete_file", "_delete_folder", "link_or_copy"):
        patch.setattr(places, name, before(getattr(places, name)))
    patch.setattr(links, "replace", before(links.replace))
    patch.setattr(Path, "replace", before(Path.replace))
