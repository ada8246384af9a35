"""The command: parses, calls, prints. Everything heavy is imported when a command runs."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from math import isnan
from types import FrameType
from typing import Any

import click

from dask_nmf._version import __version__
from dask_nmf.cli.options import Commands, cluster_options, grouped, settings_options
from dask_nmf.display.text import aligned, visible
from dask_nmf.errors import DataError, RunLocked

USAGE, BAD_DATA, NOT_CONVERGED, IO_ERROR, TRY_AGAIN = 2, 3, 4, 74, 75
INTERRUPTED, TERMINATED, PIPE_CLOSED = 130, 143, 141
SHORT = (
    "stopped after",
    "stopped by",
    "diverged",
    "not converged",
)  # how outcomes begin that are no convergence

EXIT_CODES = """
\b
Exit codes:
  0    done
  2    the call, the plan or the output does not fit
  3    bad data: V cannot be read, or is no non-negative matrix; a line of PAIRS is no cell
  4    not converged (with --require-convergence)
  74   a file cannot be written (disk full, read-only), or a store refuses access
  75   try again later: no workers, no answer of a store, or another process holds the run
  130, 143  interrupted (Ctrl-C, SIGTERM); what was committed is kept
  141  what reads the output ended before it was written, as in "dask-nmf info RUN | head -1"
"""


_came: list[int] = []  # signals, to stop
_dropped: list[int] = []  # those of them that are on their way again


class Terminated(BaseException):
    """SIGTERM came."""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def app() -> None:
    """Factorise non-negative matrices that do not fit in memory: V ≈ W H.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf info run.zarr
    """


@app.command(epilog=EXIT_CODES, short_help="Factorise V into W and H, pass by pass into a run.")
@click.argument("matrix", metavar="V")
@click.option("--output", "-o", required=True, type=click.Path(), help="Path of the run, a Zarr group.")
@settings_options
@grouped(
    "Input", "--weights", metavar="PATH", help="Weights of the entries of V: a matrix of the shape of V."
)
@grouped("Start", "--w", "W", metavar="PATH", help="Initial W: an array.")
@grouped("Start", "--h", "H", metavar="PATH", help="Initial H: an array, such as RUN/H of an earlier run.")
@grouped("Model", "--fixed-w", "fixed_W", metavar="PATH", help="Known W: only H is fitted.")
@grouped(
    "Model", "--fixed-h", "fixed_H", metavar="PATH", help="Known H, such as signatures: only W is fitted."
)
@grouped(
    "Input",
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating-point type used for the computation.  [default: that of V]",
)
@grouped(
    "Stopping",
    "--time-limit",
    type=float,
    metavar="SECONDS",
    help="Stop after the pass that is running when this time is over; the same command resumes the fit.",
)
@grouped(
    "Input",
    "--cache",
    default="auto",
    show_default=True,
    metavar="auto|off|SIZE",
    help="Memory of each worker for the parts of V that it keeps between passes.",
)
@grouped("Output", "--no-fsync", is_flag=True, help="Do not wait for the disk at each commit.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
@grouped("Stopping", "--require-convergence", is_flag=True, help="Exit with 4 if the fit has not converged.")
@cluster_options
def fit(
    matrix: str,
    output: str,
    weights: Any,
    dtype: str | None,
    time_limit: float | None,
    cache: str,
    no_fsync: bool,
    overwrite: bool,
    require_convergence: bool,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
    **settings: Any,
) -> int:
    """Factorise V, a path to a Zarr array, a CSR matrix in a Zarr group, an .npy or an .npz file.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf fit counts.npz --rank 20 --beta-loss kullback-leibler --output run.zarr

    Each pass over V is committed to the output. Called again, an unfinished fit goes on from there, and a
    finished one is left as it is.
    """
    from dask_nmf.cluster.config import without_fsync
    from dask_nmf.display import lines
    from dask_nmf.fitting.factorise import cache_bytes, factorise
    from dask_nmf.fitting.fit import Job
    from dask_nmf.settings import Settings

    factors = {name: settings.pop(name) for name in ("W", "H", "fixed_W", "fixed_H")}
    job = Job(
        Settings(**settings),
        **factors,
        weights=weights,
        dtype=dtype,
        store=output,
        overwrite=overwrite,
        time_limit=time_limit,
        cache=cache_bytes(cache),
    )
    synced = without_fsync() if no_fsync else nullcontext()
    with synced, lines.shown(log_format, sys.stderr.isatty()) as follow:
        result = factorise(matrix, job, lambda matrix: _cluster(follow, matrix, where))
    held = "" if isnan(result.validation_error) else f", held out {result.validation_error:.6g},"
    _say(
        f"{output}: relative error {result.relative_error:.6f}{held} after {result.n_iter} passes; "
        f"{result.outcome}"
    )
    return NOT_CONVERGED if require_convergence and result.outcome.startswith(SHORT) else 0


@app.command(epilog=EXIT_CODES)
@click.argument("run")
@click.argument("matrix", metavar="V2")
@click.option("--output", "-o", required=True, type=click.Path(), help="A Zarr group, for its W.")
@click.option("--overwrite", is_flag=True, help="Replace the output that is there.")
@cluster_options
def transform(
    run: str, matrix: str, output: str, overwrite: bool, log_format: str, debug: bool, where: dict[str, Any]
) -> int:
    """The W of another matrix V2 for the H of a run, in one pass.

    \b
    dask-nmf transform run.zarr V2.zarr --output W2.zarr
    """
    from dask_nmf.display import lines
    from dask_nmf.inference.transform import transform_to

    with lines.shown(log_format, sys.stderr.isatty()) as follow:
        shape = transform_to(run, matrix, output, overwrite, lambda matrix: _cluster(follow, matrix, where))
    _say(f"{output}: W, {shape[0]} x {shape[1]}")
    return 0


@app.command(epilog=EXIT_CODES, short_help="Values of W H at the cells of a CSV file.")
@click.argument("run")
@click.argument("pairs")
@click.option("--output", "-o", required=True, type=click.Path(), help="A CSV file: row,column,value.")
@click.option("--overwrite", is_flag=True, help="Replace the output that is there.")
@click.option("--clip", nargs=2, type=float, metavar="LOW HIGH", help="Bounds of the values.")
def predict(run: str, pairs: str, output: str, overwrite: bool, clip: tuple[float, float] | None) -> int:
    """Values of W H of a run at the cells of PAIRS, a CSV file of row,column, counted from 0.

    \b
    dask-nmf predict run.zarr pairs.csv --output values.csv

    Where entries are missing or weighted, a mean stands in for a row or column that the fit has not seen, and
    a fourth column, source, says so.
    """
    from dask_nmf.inference.predict import predict_to

    _say(f"{output}: {predict_to(run, pairs, output, overwrite, clip)} values")
    return 0


@app.command(epilog=EXIT_CODES, short_help="The best cells of each row that V does not have.")
@click.argument("run")
@click.argument("matrix", metavar="V")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Most cells of a row.")
@click.option("--output", "-o", required=True, type=click.Path(), help="A CSV file: row,column,value.")
@click.option("--overwrite", is_flag=True, help="Replace the output that is there.")
@click.option("--clip", nargs=2, type=float, metavar="LOW HIGH", help="Bounds of the values.")
@click.option("--rows", metavar="FILE", help="For these rows only: a CSV file of row, counted from 0.")
@cluster_options
def recommend(
    run: str,
    matrix: str,
    top: int,
    output: str,
    overwrite: bool,
    clip: tuple[float, float] | None,
    rows: str | None,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
) -> int:
    """For each row of V the cells with the largest W H among those that V does not have, in one pass.

    \b
    dask-nmf recommend run.zarr V.zarr --top 10 --output best.csv

    V is what the run was fitted to. It does not have what was missing in the fit, or, where nothing was,
    what is not positive. A row that the fit has not seen gets the columns of the largest means, and is marked
    in a fourth column, source.
    """
    from dask_nmf.display import lines
    from dask_nmf.inference.recommend import recommend_to

    with lines.shown(log_format, sys.stderr.isatty()) as follow:
        cells = recommend_to(
            run, matrix, top, output, overwrite, lambda matrix: _cluster(follow, matrix, where), clip, rows
        )
    _say(f"{output}: {cells} values")
    return 0


@app.command(short_help="What a run or an output of transform holds.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(run: str, as_json: bool) -> int:
    """What a run holds, and how far it is; or what an output of transform was made from.

    \b
    dask-nmf info run.zarr
    """
    from dask_nmf.inference.transform import summary

    found = summary(run)
    for line in [json.dumps(found)] if as_json else aligned(found):
        _say(line)
    return 0


@app.command("warm-up", epilog=EXIT_CODES, short_help="Compile what fits need, ahead of the first one.")
def warm_up() -> int:
    """Compile what fits need and keep it on disk, so that the first fit need not: for images of containers.

    It is kept where numba can write: in the folder that NUMBA_CACHE_DIR names, else beside the package, else
    in the cache of the user.
    """
    from dask_nmf.cli.warmup import warm_up

    done = warm_up()
    _say(
        f"{done.folder}: {done.compiled} variants of functions compiled, {done.found} found, "
        f"{done.bytes / 1e6:.1f} MB, in {done.seconds:.0f} s"
    )
    return 0


def _say(line: str, error: bool = False) -> None:
    """Print a line: all that this command says goes through here, or through its log."""
    click.echo(visible(line), err=error)


@contextmanager
def _cluster(follow: Callable[[], None], matrix: Any, where: dict[str, Any]) -> Iterator[None]:
    """The cluster that the options ask for, followed."""
    from dask_nmf.cluster.launch import ClusterSpec, connect_cluster

    with connect_cluster(ClusterSpec(**where), matrix.bytes):
        follow()
        yield


def exit_code(error: BaseException) -> int:
    """The documented code of an error; 1 for what should not happen."""
    from dask_nmf.cluster.client import WORKER_LOSS
    from dask_nmf.errors import ConcurrentCommitError

    for kinds, code in (
        (DataError, BAD_DATA),
        ((TimeoutError, ConnectionError, RunLocked, ConcurrentCommitError, *WORKER_LOSS), TRY_AGAIN),
        ((FileNotFoundError, FileExistsError, NotADirectoryError), USAGE),
        (OSError, IO_ERROR),
        ((ValueError, TypeError, MemoryError), USAGE),
    ):
        if isinstance(error, kinds):
            return code
    return 1


def main() -> None:
    """Run the command and exit with a documented code: one line, no traceback."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)
    sys.unraisablehook = _on_unraisable
    _open_missing_streams()
    status = _status()
    _drop_unread_output()
    with suppress(OSError):
        sys.stdout.flush()
    # The process ends before what Dask does at exit, which prints how closing fails, and before Python takes
    # its interpreter down: threads of obstore that bring it the answer of a store then crash the process.
    atexit.register(os._exit, status)
    sys.exit(status)


def _status() -> int:
    """Run the command, and return its exit code."""
    try:
        status = app(standalone_mode=False) or 0
        sys.stdout.flush()
        return int(status)
    except click.ClickException as error:
        if not all(word.isprintable() for word in sys.argv):
            vars(error)["message"] = visible(error.message)
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
    """Say what ended the command, and return its exit code."""
    if _came or isinstance(error, KeyboardInterrupt | click.exceptions.Abort):  # an import may hide it
        status = TERMINATED if signal.SIGTERM in _came else INTERRUPTED
        line = "interrupted; run the same command to go on from the last pass"
    elif isinstance(error, BrokenPipeError) and _unread():
        return PIPE_CLOSED
    elif "--debug" in sys.argv:
        raise error
    else:
        status = exit_code(error)
        line = _in_a_line(error, status)
    with suppress(BrokenPipeError):
        _say(f"dask-nmf: {line}", error=True)
    return status


def _open_missing_streams() -> None:
    """Open the standard streams that are missing: the next file would get the number of one."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115


def _unread() -> list[int]:
    """Return which of standard output and standard error are pipes whose reader has gone."""
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            poll.register(stream.fileno(), 0)
    return [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]


def _drop_unread_output() -> None:
    """Drop what is left for pipes whose reader has gone: Python would exit with 120 for it."""
    for number in _unread():
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _in_a_line(error: BaseException, status: int) -> str:
    if isinstance(error, OSError) and status == IO_ERROR and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return (
            f"{error.strerror}{place}; mend that and run the same command again, what was committed is kept"
        )
    text = " ".join(str(error).split()) or type(error).__name__
    return text if status != 1 else f"unexpected {type(error).__name__}: {text} (--debug shows where)"


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Stop in order at the first signal, at once at the second."""
    if number in _came and not _dropped:
        os._exit(128 + number)
    _came.append(number)
    _dropped.clear()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _on_unraisable(told: sys.UnraisableHookArgs) -> None:
    """Send a signal again that came in a callback of Python's collector, where what is raised is dropped."""
    if not _came:
        sys.__unraisablehook__(told)
    elif isinstance(told.exc_value, KeyboardInterrupt | Terminated):
        _dropped.append(_came[-1])
        again = threading.Timer(0.1, os.kill, (os.getpid(), _came[-1]))
        again.daemon = True  # a process that ends meanwhile does not wait for it
        again.start()
