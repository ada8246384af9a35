"""The entry point: run a command, and exit with a documented code and at most one line about an error."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

import click

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode, exit_code
from dask_nmf.cli.process.signals import Terminated, handle_signals, interrupted, terminated
from dask_nmf.cli.process.streams import (
    discard_unread_output,
    open_missing_streams,
    pipes_without_reader,
    print_line,
)
from dask_nmf.display.text import escape_control


def main() -> None:
    """Run the command and exit with a documented code; an error gives one line and no traceback."""
    handle_signals()
    open_missing_streams()
    status = run()
    discard_unread_output()
    with suppress(OSError):
        sys.stdout.flush()
    # The process ends before what Dask does at exit, which prints how closing fails. Semaphores of processes
    # that failed to start are released first, or Python warns of them.
    atexit.register(os._exit, status)
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.util"]._run_finalizers(0)
    sys.exit(status)


def run() -> int:
    """Run the command, and return its exit code."""
    try:
        status = app(standalone_mode=False) or 0
        sys.stdout.flush()
        return int(status)
    except click.ClickException as error:
        if not all(word.isprintable() for word in sys.argv):
            vars(error)["message"] = escape_control(error.message)
        with suppress(BrokenPipeError):
            error.show()
        return error.exit_code
    except SystemExit:  # click ends so, with 1 and without a word, where any pipe or connection is broken
        return _failed(
            BrokenPipeError("the other end of a connection was closed; run the same command again")
        )
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _failed(error)


def _failed(error: BaseException) -> int:
    """Print what ended the command, and return its exit code."""
    if interrupted() or isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        status = ExitCode.TERMINATED if terminated() else ExitCode.INTERRUPTED
        line = "interrupted; run the same command again, what was committed is kept"
    elif isinstance(error, BrokenPipeError) and pipes_without_reader():
        return ExitCode.PIPE_CLOSED
    elif "--debug" in sys.argv:
        raise error
    else:
        status = exit_code(error)
        line = _one_line(error, status)
    with suppress(BrokenPipeError):
        print_line(f"dask-nmf: {line}", error=True)
    return status


def _one_line(error: BaseException, status: int) -> str:
    """Return an error as one line, with what to do about it where that is known."""
    if isinstance(error, OSError) and status == ExitCode.IO_ERROR and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return (
            f"{error.strerror}{place}; mend that and run the same command again, what was committed is kept"
        )
    text = " ".join(str(error).split()) or type(error).__name__
    if status == ExitCode.UNEXPECTED:
        return f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    return text
