"""Whatever may be done to a run, as the rules of a state machine of Hypothesis, on a disk.

The machine checks after each step that the run tells what it is, that its answer stays, and that its fits end
as the undisturbed ones of `run_model`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest
import zarr
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.run_model import (
    ASKED,
    PASSES,
    Asked,
    Bits,
    Killed,
    V,
    begun,
    dies,
    killed_at,
    projected,
    undisturbed,
)

from dask_nmf import Run
from dask_nmf.errors import InvalidRunError, RunLocked
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.planning import row_panels
from dask_nmf.runs.commits import KEY
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.locations import locate

ROOT = "zarr.json"


class Runs(RuleBasedStateMachine):
    """What is done to one run, by any process, on a disk."""

    shown: ClassVar[bool] = True  # nobody who lost the run changes what zarr shows

    def __init__(self) -> None:
        super().__init__()
        with ExitStack() as stack:  # undoes the patches if one of them fails
            self.patch = stack.enter_context(pytest.MonkeyPatch.context())
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(dask.config.set({"scheduler": "synchronous", "dask_nmf.fsync": False}))
            self.patch.setattr(row_panels, "SMALLEST", 1)
            self.patch.setattr(row_panels, "PANELS", 3)
            self.patch_stores()
            self.stack = stack.pop_all()
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

    def patch_stores(self) -> None:
        """Replace the stores of runs; a disk is used as it is."""

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
        transform_to(
            locate(self.run), str(self.folder / "v"), locate(out), True, lambda matrix: nullcontext()
        )
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
