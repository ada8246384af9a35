"""Real servers: what a test needs of the machine, and processes that end with the test."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Skip a test where a program (or the rights of root) is missing; in CI it fails then (skips.py)."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if root and os.geteuid():
        missing.append("root")
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Return when something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody does at a port of loopback."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(*command: Any, log: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process, its output in a file, that is ended and waited for, and what it has started."""
    with log.open("w") as output:
        started = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, text=True, **more
        )
    try:
        yield started
    finally:
        family = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
