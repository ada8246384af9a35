"""Run the command: a documented exit code, and at most one line about an error."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

import click

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode, exit_code
from dask_nmf.cli.process.signals import Terminated, interrupted, terminated
from dask_nmf.cli.process.streams import (
    discard_unread_output,
    open_missing_streams,
    pipes_without_reader,
    print_line,
)
from dask_nmf.display.text import escape_control


def run() -> int:
    """Run the command, write out what it printed, and return its exit code."""
    open_missing_streams()
    # Python logs the traceback of a callback of a future that a signal has cut short.
    logging.getLogger("concurrent.futures").addFilter(lambda record: not interrupted())
    status = _run()
    discard_unread_output()
    with suppress(OSError):
        sys.stdout.flush()
    return status


def _run() -> int:
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
