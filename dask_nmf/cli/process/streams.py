"""The standard streams of the command: missing ones, and pipes whose reader has ended."""

from __future__ import annotations

import os
import select
import sys

import click

from dask_nmf.display.text import escape_control


def open_missing_streams() -> None:
    """Open the standard streams that are missing; the next file that is opened would get their numbers."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115


def pipes_without_reader() -> list[int]:
    """Return the file descriptors of standard output and error that are pipes whose reader has ended."""
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            poll.register(stream.fileno(), 0)
    return [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]


def discard_unread_output() -> None:
    """Discard buffered output for pipes whose reader has ended, for which Python would exit with 120."""
    for number in pipes_without_reader():
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def print_record(record: str) -> None:
    """Print a record of a table on standard output: escaped on a terminal, and else as programs read it."""
    click.echo(escape_control(record) if sys.stdout.isatty() else record)


def print_line(line: str, error: bool = False) -> None:
    """Print a line on standard output or standard error; for all but records and the log."""
    click.echo(escape_control(line), err=error)
