"""Real servers: requirements of a test, free ports, and processes that end with the test."""

import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 240  # seconds that a test waits for what comes at once on an idle machine


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Skip a test if a program or the rights of root are missing; in CI it then fails (skips.py)."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if root and os.geteuid():
        missing.append("root")
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


reads_peaks = pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="peaks of memory are read from /proc, which only Linux has; CI runs on Linux",
)


def until(holds: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; fail after so many seconds, of which a busy machine may need many."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def is_whole_json(file: Path) -> bool:
    """Return whether a file is there and its writer has come to the end of its JSON."""
    try:
        json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return False
    return True


def free_port() -> int:
    """Return a port of the loopback interface that is free, and stays free for the test that asks.

    The system gives no process a port below 32768 unasked. Tests in other processes are not given this one
    while this process runs, because it keeps the UDP port of that number.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with suppress(OSError), ExitStack() as stack:
            kept = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            kept.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
            kept.detach()  # open until this process ends
            return port


def listens(port: int) -> bool:
    """Return whether a process listens at a port of the loopback interface."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(*command: Any, log: Path, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process with its output in a file; end it and its children at the end of the body."""
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
