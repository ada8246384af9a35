"""What a person sees of a fit: on a terminal, in a notebook, in a log, and nothing where nothing is asked."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tqdm.notebook
import zarr
from support.command import Forks
from support.runs import Crash, crash_after
from support.servers import until
from tqdm.notebook import tqdm_notebook

from dask_nmf import NMF, nmf, progress, recommend, transform
from dask_nmf.display import lines

RANK = 3


@pytest.fixture(scope="module")
def v() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.gamma(0.5, size=(60, RANK)) @ rng.gamma(0.5, size=(RANK, 20)) + 0.2 * rng.random((60, 20))


class Terminal:
    """A terminal of some size: what commands print on it, and what stays on it."""

    def __init__(self, rows: int, columns: int) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def run(self, forks: Forks, folder: Path, *words: object) -> str:
        """Run a command on it, and return all that it printed."""
        end = "that is all"
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(forks.call, words, folder, os.ttyname(self.slave))
            done.add_done_callback(lambda _: os.write(self.slave, end.encode()))
            printed = ""
            while not printed.endswith(end):
                printed += os.read(self.master, 65536).decode(errors="replace")
            assert done.result().returncode == 0, printed
        return printed.removesuffix(end)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture(params=[(24, 80), (0, 0), (24, 0), (1, 40)], ids="{0[0]} x {0[1]}".format)
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(*request.param)
    yield terminal
    terminal.close()


def lines_left(printed: str) -> list[str]:
    """The lines that stay on a terminal."""
    return [line.rpartition("\r")[2] for line in printed.split("\r\n")]


def test_a_terminal_keeps_a_line_a_pass_and_follows_each_read(
    terminal: Terminal, forks: Forks, v: np.ndarray, tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=v, chunks=(20, 20))
    fit = ("fit", "v.zarr", "-k", RANK, "-o", "run.zarr", "--tol", 0, "--init", "random")
    printed = terminal.run(forks, tmp_path, *fit, "--max-iter", 3)
    kept = [line for line in lines_left(printed) if line]
    assert [line.split(":")[0] for line in kept if line.startswith("pass")] == ["pass 1", "pass 2", "pass 3"]
    assert sum("stopped after max_iter = 3" in line for line in kept) == 1
    for title in ("opening V", "first read |", "pass 1 |", "pass 3 |", "last read |"):
        assert f"\r{title}" in printed
    assert "/?" not in printed


def test_a_resumed_fit_is_followed_from_the_pass_it_goes_on_with(
    forks: Forks, v: np.ndarray, tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=v, chunks=(20, 20))
    asked: dict[str, Any] = {"tol": 0.0, "init": "random", "max_iter": 4}
    with pytest.raises(Crash):
        nmf(tmp_path / "v.zarr", RANK, store=tmp_path / "run.zarr", callback=crash_after(2), **asked)
    words = ("fit", "v.zarr", "-k", RANK, "-o", "run.zarr", "--tol", 0, "--init", "random", "--max-iter", 4)
    terminal = Terminal(24, 80)
    printed = terminal.run(forks, tmp_path, *words)
    terminal.close()
    assert "first read" not in printed
    assert re.findall(r"\r([a-z]+ \w+) +\|", printed)[0] == "pass 3"
    assert "/?" not in printed
    passes = [line for line in lines_left(printed) if line.startswith("pass")]
    assert [line.split(":")[0] for line in passes] == ["pass 3", "pass 4"]


def test_of_200_passes_a_terminal_keeps_as_many_lines_as_can_be_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    above = lines.LogAboveBar()
    for number in range(1, 200):
        numbers = {"event": "pass", "pass": number, "outcome": "converged" if number == 199 else None}
        above.handle(logging.makeLogRecord({"msg": str(number), "nmf": numbers}))
    assert [int(line) for line in capsys.readouterr().err.split()] == [
        *range(1, 11),
        *range(20, 200, 10),
        199,
    ]
    above.shown -= lines.SECONDS  # of passes that take long each one is shown
    above.handle(logging.makeLogRecord({"msg": "11", "nmf": {"event": "pass", "pass": 11, "outcome": None}}))
    assert capsys.readouterr().err == "11\n"


def test_a_bar_shows_error_change_time_speed_workers_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    bar = lines.ProgressBar(lines.plain_bar, stays=False)
    monkeypatch.setattr(bar.bar, "set_postfix_str", lambda text, refresh: shown.append(text))
    for number, error in ((1, 0.5), (2, 0.375), (3, None)):
        event = {"event": "pass", "pass": number, "relative_error": error, "mb_per_s": 81.5}
        bar.handle(logging.makeLogRecord({"nmf": {**event, "seconds_left_at_most": 90}}))
    shared = {"event": "shared pass", "running": 2, "models": 5, "seconds_left_at_most": 90}
    bar.handle(logging.makeLogRecord({"nmf": shared}))
    bar.close()
    load = r"1 worker, \d+\.\d GiB"
    for text, wanted in zip(
        shown,
        (
            rf"relative error 0\.500000, at most 01:30 left, 82 MB/s, {load}",
            rf"relative error 0\.375000 \(-1\.2e-01\), at most 01:30 left, 82 MB/s, {load}",
            rf"relative error not known, at most 01:30 left, 82 MB/s, {load}",
            rf"2 of 5 models, at most 01:30 left, {load}",
        ),
        strict=True,
    ):
        assert re.fullmatch(wanted, text), text


def test_a_bar_of_bytes_shows_their_speed_and_the_time_left() -> None:
    bar = lines.ProgressBar(lines.plain_bar, stays=False)
    for event in {"event": "read", "panels": 8, "unit": "MB"}, {"event": "panel"}, {"event": "panel"}:
        bar.handle(logging.makeLogRecord({"nmf": event}))
    shown = bar.bar.format_meter(n=2, total=8, elapsed=1, ncols=80, unit="MB", bar_format=bar.bar.bar_format)
    bar.close()
    assert shown.endswith("| 2/8 MB,  2.00MB/s, 00:03 left")


@contextmanager
def events() -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    """What `progress` tells meanwhile."""
    told: list[tuple[str, str, dict[str, Any]]] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(  # type: ignore[method-assign]
        (record.nmf["event"], record.getMessage(), record.nmf)  # type: ignore[attr-defined]
    )
    with lines.with_handler(progress.LOGGER, handler):
        yield told


H = np.random.default_rng(1).random((RANK, 20))
CALLS: dict[str, Callable[[np.ndarray], Any]] = {
    "hals": lambda v: nmf(v, RANK, max_iter=2, tol=0),
    "kl": lambda v: nmf(v, RANK, max_iter=2, tol=0, beta_loss="kullback-leibler"),
    "mu": lambda v: nmf(v, RANK, max_iter=2, tol=0, solver="mu", init="nndsvda"),
    "sgd": lambda v: nmf(v, RANK, max_iter=2, tol=0, solver="sgd", init="random"),
    "wide": lambda v: nmf(v.T, RANK, max_iter=2, tol=0),
    "held out": lambda v: nmf(v, RANK, max_iter=2, tol=0, validation_fraction=0.2),
    "dask": lambda v: nmf(da.from_array(v, chunks=(7, 11)), RANK, max_iter=2, tol=0),
    "fixed": lambda v: nmf(v, RANK, fixed_H=H),
    "transform": lambda v: transform(v, H),
    "recommend": lambda v: recommend(v, np.ones((60, RANK)), H, 2),
}


@pytest.mark.usefixtures("several_panels")
@pytest.mark.parametrize("call", CALLS)
def test_each_read_tells_its_panels_and_no_more(call: str, v: np.ndarray) -> None:
    with events() as told:
        CALLS[call](v)
    reads: list[list[int]] = []
    for event, _, numbers in told:
        if event == "read":
            reads.append([numbers["panels"], 0])
        elif event == "panel":
            reads[-1][1] += 1
    assert reads
    assert all(panels == done > 1 for panels, done in reads)
    if call not in ("fixed", "transform", "recommend"):
        stages = [text for event, text, _ in told if event == "stage"]
        assert stages == ["first read", "start", "pass 1", "pass 2", "last read"]


def test_nothing_is_shown_that_was_not_asked_for(v: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    nmf(v, RANK, max_iter=2, tol=0)
    NMF(RANK, max_iter=2, tol=0).fit(v)
    assert capfd.readouterr() == ("", "")


def test_where_no_bar_can_be_each_pass_is_a_line(v: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(progress.LOGGER.handlers)
    for fit in (
        lambda: nmf(v, RANK, max_iter=3, tol=0, verbose=1),
        lambda: NMF(RANK, max_iter=3, tol=0, verbose=1).fit(v),
    ):
        fit()
        out, err = capsys.readouterr()
        assert [line.split(":")[0] for line in out.splitlines()] == ["pass 1", "pass 2", "pass 3"]
        assert err == ""
    assert progress.LOGGER.handlers == before


class Widget:
    """A stand-in for a widget of ipywidgets."""

    def __init__(self, children: Any = (), **values: Any) -> None:
        self.children, self.value, self.bar_style = children, "", ""
        self.layout = self.style = self
        vars(self).update(values)

    def close(self) -> None:
        self.value = "closed"


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Widget]:
    """The widgets that a notebook with ipywidgets displays, each with its text, its bar and its numbers."""
    displayed: list[Widget] = []
    for name in ("IProgress", "HTML", "TqdmHBox"):
        monkeypatch.setattr(tqdm.notebook, name, Widget, raising=False)
    monkeypatch.setattr(tqdm.notebook, "display", displayed.append, raising=False)
    monkeypatch.setattr(lines, "any_bar", tqdm_notebook)
    return displayed


@pytest.mark.parametrize("face", ["nmf", "NMF"])
def test_a_notebook_has_a_widget(
    face: str, v: np.ndarray, notebook: list[Widget], capfd: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"max_iter": 3, "tol": 0, "verbose": 1}
    fitted = nmf(v, RANK, **asked) if face == "nmf" else NMF(RANK, **asked).fit(v)
    (box,) = notebook
    text, bar, _ = box.children
    shown = f"{box.children[0].value} {box.children[2].value}".replace("\u2007", " ")
    error = fitted.relative_error if face == "nmf" else float(re.findall(r"error (\S+);", shown)[0])
    assert f"relative error {error:.6f}; stopped after max_iter = 3 passes" in shown
    assert (bar.bar_style, bar.value) == ("success", bar.max)
    assert text.value != "closed"
    assert capfd.readouterr() == ("", "")


def test_a_fit_that_fails_ends_its_bar(v: np.ndarray, notebook: list[Widget]) -> None:
    before = list(progress.LOGGER.handlers)
    bad = v.copy()
    bad[3, 2] = -1
    with pytest.raises(ValueError, match="row 3, column 2"):
        nmf(bad, RANK, verbose=1)
    assert len(notebook) == 1
    assert progress.LOGGER.handlers == before


def test_a_cluster_tells_the_bar_its_panels(
    v: np.ndarray, notebook: list[Widget], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(lines.ProgressBar, "panel_done", lambda live, event: counted.append(event[1]))
    nmf(v, RANK, max_iter=2, tol=0, verbose=1)
    until(lambda: len(counted) == 4)  # the first read, two passes and the last read of one panel
    assert notebook[0].children[1].bar_style == "success"
