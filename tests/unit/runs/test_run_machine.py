"""Whatever is done to a run, in any order: it tells what it is, its answer stays, and its fits end as ever.

Runs are on a disk, and in an object store that is in memory and has conditional writes, obstore's
``MemoryStore``, one for each URL.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import obstore
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from obstore.store import MemoryStore
from support.run_machine import Runs
from support.run_model import PASSES, Asked, Killed, begun, killed_at, undisturbed

from dask_nmf.errors import ConcurrentCommitError, RunLocked
from dask_nmf.storage.objects import object_lock, object_store, requests


class StoredRuns(Runs):
    """The same in an object store, where a process may lose its lease."""

    shown = False

    def patch_stores(self) -> None:
        self.stores: dict[str, MemoryStore] = {}
        for module in (object_store, object_lock, requests):
            self.patch.setattr(module, "connect", lambda url: self.stores.setdefault(url, MemoryStore()))

    def place(self, number: int) -> str:
        return f"s3://bucket/run-{number}"

    def keys(self) -> dict[str, bytes]:
        store = self.stores[self.run]
        found = [told["path"] for some in obstore.list(store) for told in some]
        return {key: bytes(obstore.get(store, key).bytes()) for key in found}

    def put(self, key: str, content: bytes | None) -> None:
        store = self.stores[self.run]
        obstore.delete(store, key) if content is None else obstore.put(store, key, content)

    def copy(self, target: str) -> None:
        for key, content in self.keys().items():
            obstore.put(self.stores.setdefault(target, MemoryStore()), key, content)

    @precondition(lambda self: self.passes < PASSES)
    @rule(passes=st.integers(1, PASSES))
    def is_taken_over(self, passes: int) -> None:
        """A process stands still until its lease is over; another one goes on; the first one comes back."""
        name = self.run.rpartition("/")[2]

        def stand_still(step: Any) -> None:
            obstore.delete(self.stores["s3://bucket"], f"{name}.lock")
            with suppress(Killed):
                begun(self.run, self.asked, callback=killed_at(step.number + passes))

        self.answers.add(undisturbed(self.asked))
        first = self.passes + 1
        with pytest.raises((RunLocked, ConcurrentCommitError)):
            begun(self.run, self.asked, callback=lambda step: step.number == first and stand_still(step))
        self.learn()


EXAMPLES = max(3, settings().max_examples // 3)  # an example takes a second
STEPS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=8,
    phases=[Phase.explicit, Phase.generate],  # to find fewer steps that fail takes minutes
)


@pytest.mark.hypothesis
@pytest.mark.parametrize("runs", [Runs, StoredRuns], ids=["disk", "object store"])
def test_anything_in_any_order(runs: type[Runs]) -> None:
    run_state_machine_as_test(runs, settings=STEPS)


def test_a_machine_that_fails_to_start_leaves_no_patches() -> None:
    class Broken(StoredRuns):
        def patch_stores(self) -> None:
            super().patch_stores()
            raise AttributeError

    connect = requests.connect
    with pytest.raises(AttributeError):
        Broken()
    assert requests.connect is object_store.connect is connect


@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
def test_a_process_whose_run_was_taken_over_and_finished_is_told_so(solver: str) -> None:
    """Also where the W that it is about to read was deleted by the other one, which is no damage."""
    runs = StoredRuns()
    try:
        runs.begin(Asked(2, 1, solver), 1)
        runs.is_taken_over(PASSES)
        runs.tells_what_it_is()
    finally:
        runs.teardown()
