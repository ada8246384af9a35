"""Signals that come while the command is still being imported."""

import signal
import subprocess
import sys

import pytest
from support.command import COMMAND
from support.signals import handles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals are handled")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_the_command_with_one_line(number: int, code: int) -> None:
    command = subprocess.Popen([*COMMAND, "fit", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not handles(command.pid) and command.poll() is None:
        pass  # without a sleep: the imports take a tenth of a second
    command.send_signal(number)
    output, errors = command.communicate(timeout=60)
    assert (command.returncode, output) == (code, b""), errors
    assert errors.startswith(b"dask-nmf: interrupted")
    assert errors.count(b"\n") == 1
