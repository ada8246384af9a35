"""The exit codes of the command, and which error gives which."""

from __future__ import annotations

from enum import IntEnum

from dask_nmf.errors import ConcurrentCommitError, DataError, RunLocked


class ExitCode(IntEnum):
    """The documented exit codes."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_DATA = 3
    NOT_CONVERGED = 4
    IO_ERROR = 74
    TRY_AGAIN = 75
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


HELP = """
\b
Exit codes:
  0    done
  2    wrong usage: an option, the memory for V or the output does not fit
  3    bad data: V cannot be read or is not a non-negative matrix, or a line of PAIRS is not a cell;
       or verify found damage
  4    not converged (only with --require-convergence)
  74   a file cannot be written (disk full, read-only), or a store refuses access
  75   try again later: no workers, no answer of a store, or another process holds the run
  130, 143  interrupted (Ctrl-C, SIGTERM); what was committed is kept
  141  the reader of the output ended before the output, as in "dask-nmf info RUN | head -1"
"""


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of an error."""
    from dask_nmf.cluster.watch import WORKER_LOSS

    for kinds, code in (
        (DataError, ExitCode.BAD_DATA),
        (
            (TimeoutError, ConnectionError, RunLocked, ConcurrentCommitError, *WORKER_LOSS),
            ExitCode.TRY_AGAIN,
        ),
        ((FileNotFoundError, FileExistsError, NotADirectoryError), ExitCode.USAGE),
        (OSError, ExitCode.IO_ERROR),
        ((ValueError, TypeError, MemoryError), ExitCode.USAGE),
    ):
        if isinstance(error, kinds):
            return code
    return ExitCode.UNEXPECTED
