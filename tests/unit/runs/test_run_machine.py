"""Whatever is done to a run, in any order: it tells what it is, its answer stays, and its fits end as ever.

The model is a dict: the answers of fits that nobody disturbed. Runs are on a disk, and in an object store
that is in memory and has conditional writes, obstore's ``MemoryStore``, one for each URL.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import dask
import numpy as np
import obstore
import pytest
import zarr
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from obstore.store import MemoryStore
from support.matrices import low_rank
from zarr.storage import LocalStore

from dask_nmf import Run, nmf, transform
from dask_nmf.errors import ConcurrentCommitError, InvalidRunError, RunLocked
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.iteration import loop
from dask_nmf.planning import row_panels
from dask_nmf.runs.commits import KEY
from dask_nmf.storage.arrays import links
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import locate
from dask_nmf.storage.objects import object_lock, object_store, requests
from dask_nmf.storage.objects.object_store import ObjectStore

V = low_rank(12, 7, 2, noise=1)
PASSES = 4
ROOT = "zarr.json"
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
    for name in ("replace", "link_or_copy"):
        patch.setattr(links, name, before(getattr(links, name)))


class Runs(RuleBasedStateMachine):
    """What is done to one run, by any process, on a disk."""

    shown: ClassVar[bool] = True  # nobody who lost the run changes what zarr shows

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack.enter_context(dask.config.set({"scheduler": "synchronous", "dask_nmf.fsync": False}))
        self.patch.setattr(row_panels, "SMALLEST", 1)
        self.patch.setattr(row_panels, "PANELS", 3)
        zarr.create_array(self.folder / "v", data=V)
        self.copies = 0
        self.run = self.place(0)
        self.asked = Asked(2, 1, "hals")
        self.answers: set[Bits | None] = {None}  # which may be found
        self.passes = 0  # that are known to be committed
        self.redundant = False  # whether a pass may be lost
        self.late: list[Callable[[], None]] = []  # writes that were held back

    def teardown(self) -> None:
        self.stack.close()

    def place(self, number: int) -> str:
        return str(self.folder / f"run-{number}")

    def keys(self) -> dict[str, bytes]:
        """All that is stored, but for locks."""
        root = Path(self.run)
        return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*") if one.is_file()}

    def put(self, key: str, content: bytes | None) -> None:
        """Write or delete an object behind the back of everybody."""
        place = Path(self.run) / key
        place.unlink() if content is None else place.write_bytes(content)

    def copy(self, target: str) -> None:
        shutil.copytree(self.run, target)

    def record(self) -> dict[str, Any]:
        told: dict[str, Any] = Run.load(self.run).record
        return told

    def fit(self, asked: Asked | None = None, **options: Any) -> None:
        """Call a fit, in a process that may be killed."""
        try:
            found = begun(self.run, asked or self.asked, **options)
        except Killed:
            return
        assert found in self.answers

    def learn(self) -> None:
        """Look how far the run is, after a process that may have been killed anywhere."""
        told = self.record()
        assert (told["pass"] or 0) >= self.passes
        self.passes = told["pass"] or 0
        self.redundant = told["previous"] is not None
        answer = Run.load(self.run).result
        self.answers = {None if answer is None else (answer.read("W").tobytes(), answer.read("H").tobytes())}

    @initialize(asked=ASKED, moment=st.integers(1, 40))
    def begin(self, asked: Asked, moment: int) -> None:
        """The first process is killed at a moment in which there may be no run yet; another comes."""
        self.asked, self.answers = asked, {None, undisturbed(asked)}
        with pytest.MonkeyPatch.context() as patch:
            dies(patch, moment)
            self.fit()
        self.fit(callback=killed_at(1))
        self.learn()

    @invariant()
    def tells_what_it_is(self) -> None:
        if not locate(self.run).exists():
            return
        run = Run.load(self.run)
        told = run.summary()
        settings = told["settings"]
        assert Asked(settings["n_components"], settings["random_state"], settings["solver"]) == self.asked
        assert (told["passes"] or 0) >= self.passes
        found = None
        if run.result is not None:
            found = run.result.read("W").tobytes(), run.result.read("H").tobytes()
        assert found in self.answers
        if told["state"] == "finished":
            assert found == undisturbed(self.asked)
        if found is not None and self.shown:
            group = zarr.open_consolidated(self.run, mode="r")
            assert tuple(group[name][:].tobytes() for name in "WH") == found  # type: ignore[index]

    @rule(passes=st.integers(1, 2))
    def is_interrupted_after_some_passes(self, passes: int) -> None:
        self.answers.add(undisturbed(self.asked))
        self.fit(callback=killed_at(self.passes + passes))
        self.learn()

    @rule(moment=st.integers(0, 60))
    def is_killed_at_any_write(self, moment: int) -> None:
        self.answers.add(undisturbed(self.asked))
        with pytest.MonkeyPatch.context() as patch:
            dies(patch, moment)
            self.fit()
        self.learn()

    @rule()
    def ends(self) -> None:
        self.answers = {undisturbed(self.asked)}
        self.fit()
        self.learn()
        assert self.record()["finished"]

    @rule()
    def is_stopped_by_a_time_limit(self) -> None:
        if not self.record()["finished"]:
            self.answers = {undisturbed(self.asked, min(self.passes + 1, PASSES))}
        self.fit(time_limit=0)
        self.learn()

    @rule(asked=ASKED, passes=st.integers(1, PASSES))
    def is_overwritten(self, asked: Asked, passes: int) -> None:
        """By a fit that may be interrupted: the answer that was there stays."""
        told = self.record()
        anew = told["finished"] or not told["overwrites"] or asked != self.asked
        self.asked, self.passes = asked, 0 if anew else self.passes
        self.answers.add(undisturbed(asked))
        self.fit(callback=killed_at(passes), overwrite=True)
        self.learn()

    @rule(block=st.integers(0, 6))
    def hangs_in_a_write(self, block: int) -> None:
        """A worker stands still before it writes a W; its process is killed."""
        write, left = ZarrFactor.write, iter(range(block, -1, -1))

        def hang(place: ZarrFactor, first: int, w: Any) -> None:
            if next(left, 0) == 0:
                self.late.append(lambda: write(place, first, np.full_like(w, 7)))
                raise Killed
            write(place, first, w)

        self.answers.add(undisturbed(self.asked))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ZarrFactor, "write", hang)
            self.fit()
        self.learn()

    @precondition(lambda self: self.late)
    @rule()
    def goes_on_with_a_write_that_hung(self) -> None:
        self.late.pop()()

    @precondition(lambda self: self.redundant and not self.record()["finished"])
    @rule(number=st.integers(0, 1))
    def loses_a_part_of_the_last_commit(self, number: int) -> None:
        lost = f"data/{self.record()['commit']}/"
        keys = sorted(key for key in self.keys() if key.startswith(lost) and "history" not in key)
        self.put(keys[number % len(keys)], None)
        self.passes, self.redundant = self.passes - 1, False
        self.answers.add(undisturbed(self.asked))
        self.fit(callback=killed_at(self.passes + 1))
        self.learn()

    @rule()
    def is_copied_and_goes_on_there(self) -> None:
        self.copies += 1
        target = self.place(self.copies)
        self.copy(target)
        self.run = target

    @rule()
    def is_of_another_format_and_left_as_it_is(self) -> None:
        root = self.keys()[ROOT]
        told = json.loads(root)
        told["attributes"][KEY]["format"] = 2
        self.put(ROOT, json.dumps(told).encode())
        before = self.keys()
        for overwrite in (False, True):
            with pytest.raises(InvalidRunError, match="is a run of format 2"):
                begun(self.run, self.asked, overwrite=overwrite)
        assert self.keys() == before
        self.put(ROOT, root)

    @precondition(lambda self: self.answers != {None})
    @rule()
    def is_used_to_transform(self) -> None:
        (answer,) = self.answers
        assert answer is not None
        out = self.folder / "out"
        transform_to(self.run, str(self.folder / "v"), str(out), True, lambda matrix: nullcontext())
        assert zarr.open_group(out, mode="r")["W"][:].tobytes() == projected(answer)  # type: ignore[index]

    @precondition(lambda self: self.passes < PASSES)
    @rule()
    def another_process_comes(self) -> None:
        """While one is at work: it is refused."""

        def come(step: Any) -> None:
            with pytest.raises(RunLocked, match="another process works on"):
                begun(self.run, self.asked)
            raise Killed

        self.fit(callback=come)
        self.learn()


class StoredRuns(Runs):
    """The same in an object store, where a process may lose its lease."""

    shown = False

    def __init__(self) -> None:
        super().__init__()
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
