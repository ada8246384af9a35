"""Commits of passes: write the state of a solver, read it, go back to the commit before a damaged one."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import numpy as np

from dask_nmf.errors import InvalidRunError
from dask_nmf.iteration.loop import Step
from dask_nmf.runs.commits import Commits
from dask_nmf.runs.labels import visible_names
from dask_nmf.runs.record import contents, states
from dask_nmf.runs.record.environment import with_environment
from dask_nmf.runs.record.layouts import commit_layout
from dask_nmf.solvers.parts.state import State
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA

logger = logging.getLogger(__name__)


def commit_step(commits: Commits, step: Step) -> None:
    """Commit a pass: its state, its relative error and time, and the outcome if it is the last."""
    history = commits.record["history"]
    parts = {
        "history": {
            "relative_error": [*history["relative_error"], states.or_none(step.relative_error)],
            "seconds": [*history["seconds"], step.seconds],
        },
        "outcome": step.outcome,
        "message": step.message,
        "final": step.final,
    }
    commit_state(commits, step.number, step.state, parts)


def commit_state(commits: Commits, number: int, state: State[Any], parts: dict[str, Any]) -> None:
    """Commit the state after a pass, with other parts of the record that have changed."""
    if number > 0:
        commits.check_exists()
    folder, last = commits.new_folder(f"pass-{number}"), commits.record
    scalars, arrays = states.to_record(state)
    for name, array in arrays.items():
        stored = contents.orientation_of(last).turn_array(array) if name == "h" else array
        commits.array(folder, _stored_name(last, name))[...] = stored
    slots = states.slots_of(scalars)
    paths = {**last["carried"], **{str(slot): path for slot, path in commits.carried.items()}}
    record = {
        **last,
        "pass": number,
        "state": scalars,
        "factors": list(arrays),
        "commit": folder,
        "carried": {slot: path for slot, path in paths.items() if slot in slots},
        "previous": {name: last[name] for name in contents.COMMIT} if number > 0 else None,
        "environments": with_environment(last.get("environments", ()), number, commits.environment),
        **parts,
    }
    visible = None
    if record["result"] is None and commits.shows:
        commits.write_histories(folder, record)
        visible = _visible(record)
    if number > 0:
        commits.check_exists()  # again: the run may have been deleted while the arrays were written
    commits.publish(record, visible)


def read_state(commits: Commits) -> State[Any]:
    """Return the state of the last commit."""
    record, arrays = commits.record, {}
    for name in record["factors"]:
        array = commits.read(record["commit"], _stored_name(record, name))
        turned = contents.orientation_of(record).turn_array(array) if name == "h" else array
        arrays[name] = np.ascontiguousarray(turned)
    return states.from_record(states.first_state(record), record["state"], arrays)


def recover(commits: Commits) -> None:
    """Take a run over from its last writer, and mend what killed commands have left.

    The fit goes back to the commit before the last one if a part of the last one is damaged.

    Raises
    ------
    InvalidRunError
        If neither commit is whole.
    RunLocked, ConcurrentCommitError
        If another process has taken the run over meanwhile.
    """
    if commits.group.read_only:
        return
    left = commits.left_behind()
    if left or not commits.record["finished"]:  # first, so that no late writer commits what is deleted then
        commits.publish({**commits.record, "writer": uuid4().hex})
    commits.sweep(left)
    if commits.record["result"] is not None:
        commits.write_metadata()
    if commits.record["finished"] or commits.record["pass"] is None:
        return
    try:
        _check_whole(commits)
    except InvalidRunError as damage:
        _go_back(commits, damage)


def _go_back(commits: Commits, damage: InvalidRunError) -> None:
    """Return to the commit before the last one, or raise the damage of the last one."""
    last = commits.record
    if last["previous"] is None:
        raise damage
    commits.record = contents.before_last(last)
    try:
        _check_whole(commits)
    except InvalidRunError:
        commits.record = last
        raise damage from None
    done = commits.record["pass"]
    logger.warning(
        "pass %d of %s is damaged; going on after pass %d", last["pass"], commits.location.name, done
    )
    commits.publish(commits.record)


def _check_whole(commits: Commits) -> None:
    """Raise `InvalidRunError` if a part of the commit is lost."""
    for name in commits.record["factors"]:
        commits.read(commits.record["commit"], _stored_name(commits.record, name))
    commits.check_carried()


def _visible(record: dict[str, Any]) -> VisibleArrays:
    """Return the arrays of a commit that are shown: histories, and the factor that panels are given.

    With that factor go the names along its dimension of V. It is not shown if a factor is fixed, or if it
    comes from a part of the columns so far.
    """
    folder, name = record["commit"], _stored_name(record, "h")
    visible = {key: (f"{DATA}/{folder}/{key}", commit_layout(record, key)) for key in contents.HISTORIES}
    names = visible_names(record, {"W": ("row",), "H": ("column",)}[name])
    slot = str(record["state"]["w_slot"])
    if any(record["settings"].get(fixed) is not None for fixed in ("fixed_W", "fixed_H")):
        return visible
    if "h" in record["factors"]:
        return {name: (f"{DATA}/{folder}/{name}", commit_layout(record, name)), **visible, **names}
    if record["layout"]["pieces"] and slot in record["carried"]:
        return {name: (record["carried"][slot], commit_layout(record, "pieces")), **visible, **names}
    return visible


def _stored_name(record: dict[str, Any], factor: str) -> str:
    """Return the name of the array that a factor of a state is in."""
    return factor if factor != "h" else contents.orientation_of(record).turn(("W", "H"))[1]
