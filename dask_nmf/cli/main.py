"""The entry point: handle signals, then import and run the command, and exit with its code."""

from __future__ import annotations

import atexit
import os
import sys
from importlib import import_module

from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cli.process.signals import Terminated, end_at_signals, handle_signals, terminated


def main() -> None:
    """Run the command and exit with a documented code; an error gives one line and no traceback."""
    handle_signals()
    try:
        status = import_module("dask_nmf.cli.run").run()  # imported here, which takes a tenth of a second
    except (KeyboardInterrupt, Terminated):  # during the imports; `run` handles its own
        print("dask-nmf: interrupted before it began", file=sys.stderr)
        status = ExitCode.TERMINATED if terminated() else ExitCode.INTERRUPTED
    end_at_signals(status)
    # The process ends before what Dask does at exit, which prints how closing fails. Semaphores of processes
    # that failed to start are released first, or Python warns of them.
    atexit.register(os._exit, status)
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.util"]._run_finalizers(0)
    sys.exit(status)
