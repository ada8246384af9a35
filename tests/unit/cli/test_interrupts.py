"""Signals that come while the command is still being imported, and after its work is done."""

import signal
import subprocess
import sys

import pytest
from support.command import START
from support.servers import PATIENCE, until
from support.signals import handles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals are handled")


SLOW_IMPORT = """
import sys, time

class Slow:
    def find_spec(self, name, *_):
        if name == "dask_nmf.cli.run":
            time.sleep(600)

sys.meta_path.insert(0, Slow())
"""
SLOW_END = """
import sys, time
from multiprocessing.util import Finalize

Finalize(None, lambda: (print("over", flush=True), time.sleep(600)), exitpriority=0)
"""


def command(before: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", before + START, "--version"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_the_command_with_one_line(number: int, code: int) -> None:
    process = command(SLOW_IMPORT)
    until(lambda: handles(process.pid) or process.poll() is not None)
    process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (code, b""), errors
    assert errors.startswith(b"dask-nmf: interrupted")
    assert errors.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_is_done_changes_nothing(number: int) -> None:
    process = command(SLOW_END)
    assert process.stdout is not None
    assert b"version" in process.stdout.readline()
    assert process.stdout.readline() == b"over\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")


CUT_SHORT = """
import os, signal
from concurrent.futures import Future
from dask_nmf.cli import run
from dask_nmf.cli.process.signals import Terminated

def callback(done):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)
    finally:
        raise RuntimeError("release unlocked lock")

def app(**_):
    future = Future()
    future.add_done_callback(callback)
    future.set_result(None)
    raise Terminated

run.app = app
"""


def test_a_callback_that_a_signal_cuts_short_prints_no_traceback() -> None:
    process = command(CUT_SHORT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (143, b""), errors
    assert errors.startswith(b"dask-nmf: interrupted")
    assert errors.count(b"\n") == 1
