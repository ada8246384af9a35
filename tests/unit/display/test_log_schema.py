"""The lines of the JSON log, against their schema in the docs."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from jsonschema import Draft202012Validator
from support.cuts import cut_both_ways
from support.matrices import low_rank
from support.runs import Crash, crash_after
from support.wings import FILES, tree

from dask_nmf import nmf, select_rank
from dask_nmf.display import dashboard, lines
from dask_nmf.errors import WorkersLost
from dask_nmf.execution import executor
from dask_nmf.ingest import convert

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "log-schema.json").read_text())
VALID = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
V = low_rank(60, 12, 3, noise=1)
EVENTS = {part["properties"]["event"]["const"] for part in SCHEMA["$defs"].values()}


@contextmanager
def json_log() -> Iterator[list[dict[str, Any]]]:
    """The lines of the log meanwhile, as the command prints them."""
    logged: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.setFormatter(lines.JsonFormatter())
    handler.emit = lambda record: logged.append(json.loads(handler.format(record)))  # type: ignore[method-assign]
    logger = logging.getLogger("dask_nmf")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with lines.with_handler(logger, handler):
            yield logged
    finally:
        logger.setLevel(before)


def resumed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Resume a fit that crashed."""
    with pytest.raises(Crash):
        nmf(V, 3, tol=0, max_iter=3, store=folder / "run.zarr", callback=crash_after(1))
    nmf(V, 3, tol=0, max_iter=3, store=folder / "run.zarr")


def finished(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Call a finished fit again."""
    for _ in range(2):
        nmf(V, 3, max_iter=1, store=folder / "run.zarr")


def in_blocks(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Fit V cut both ways."""
    cut_both_ways(patch, (0, 20, 60), (0, 5, 12), 2)
    nmf(da.from_array(V, chunks=(20, 4)), 3, max_iter=1)


def with_losses(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a pass whose first attempt is lost."""
    answers: Iterator[Any] = iter([WorkersLost("lost"), None])

    def compute(nodes: Any) -> Any:
        error = next(answers)
        if error is not None:
            raise error
        return [0]

    patch.setattr(executor, "compute_watched", compute)
    executor.compute_with_retries(list)


def shown_dashboard(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Say where the dashboard of a client is."""
    patch.setattr(dashboard, "find_spec", lambda name: name)
    patch.setattr(dashboard, "active_client", lambda: type("C", (), {"dashboard_link": "http://x:1/status"}))
    dashboard.log_dashboard()


def converted(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Convert an array."""
    np.save(folder / "v.npy", V)
    convert(folder / "v.npy", folder / "v.zarr")


CALLS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], Any], set[str]]] = {
    "fit": (lambda *_: nmf(V, 3, max_iter=2), {"plan", "first read", "message", "pass", "done"}),
    "held out": (lambda *_: nmf(V, 3, max_iter=2, validation_fraction=0.1), {"plan", "pass", "done"}),
    "zero": (lambda *_: nmf(np.zeros((6, 4)), 2), {"plan", "pass", "done"}),
    "starts": (lambda *_: nmf(V, 3, max_iter=2, n_init=2), {"shared pass", "starts"}),
    "selection": (
        lambda *_: select_rank(V, "2:3", n_init=1, holdout=0.1, max_iter=2, error_bars=2),
        {"shared pass", "rank", "error bars", "done"},
    ),
    "resumed": (resumed, {"resume", "pass"}),
    "finished": (finished, {"done", "finished"}),
    "blocks": (in_blocks, {"plan", "pass"}),
    "losses": (with_losses, {"retry"}),
    "dashboard": (shown_dashboard, {"dashboard"}),
    "converted": (converted, {"done"}),
}


@pytest.mark.parametrize(("call", "events"), CALLS.values(), ids=CALLS)
def test_each_line_is_as_the_schema_says(
    call: Callable[[Path, pytest.MonkeyPatch], Any],
    events: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with json_log() as logged:
        call(tmp_path, monkeypatch)
    for line in logged:
        VALID.validate(line)
    assert events <= {line["event"] for line in logged}


def test_the_schema_has_each_event_of_the_package() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    inner = {"stage", "read", "panel"}  # of progress, which are not in the log
    named = {
        value.value
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "event" and isinstance(value, ast.Constant)
    }
    assert named - inner == EVENTS == {event for _, events in CALLS.values() for event in events}


def test_a_dashboard_that_is_not_there_is_not_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with json_log() as logged:
        monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
        dashboard.log_dashboard()
        monkeypatch.setattr(dashboard, "active_client", lambda: None)
        dashboard.log_dashboard()
    assert logged == []
