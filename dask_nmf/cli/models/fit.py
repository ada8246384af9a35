"""The command that factorises V."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from math import isnan
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.jobs import JobCommand
from dask_nmf.cli.options import (
    cluster_options,
    committing_options,
    grouped,
    metrics_file,
    reading_options,
    settings_options,
)
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cli.process.streams import print_line
from dask_nmf.wording import counted


@click.command(
    "fit", cls=JobCommand, epilog=exit_codes.HELP, short_help="Factorise V, and commit each pass to a run."
)
@click.argument("matrix", metavar="V")
@click.option("--output", "-o", required=True, type=click.Path(), help="Path of the run, a Zarr group.")
@settings_options()
@grouped(
    "Input", "--weights", metavar="PATH", help="Weights of the entries of V: a matrix of the shape of V."
)
@grouped("Start", "--w", "W", metavar="PATH", help="Initial W: an array.")
@grouped("Start", "--h", "H", metavar="PATH", help="Initial H: an array, such as RUN/H of an earlier run.")
@grouped("Model", "--fixed-w", "fixed_W", metavar="PATH", help="Known W: only H is fitted.")
@grouped(
    "Model", "--fixed-h", "fixed_H", metavar="PATH", help="Known H, such as signatures: only W is fitted."
)
@reading_options
@committing_options
@grouped("Stopping", "--require-convergence", is_flag=True, help="Exit with 4 if the fit has not converged.")
@metrics_file
@cluster_options
def command(
    matrix: str,
    output: str,
    weights: Any,
    dtype: str | None,
    time_limit: float | None,
    cache: str,
    no_fsync: bool,
    overwrite: bool,
    require_convergence: bool,
    metrics_file: str | None,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
    **settings: Any,
) -> int:
    """Factorise V, the path of a Zarr array, a CSR matrix in a Zarr group, an .npy file or an .npz file.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf fit counts.npz --rank 20 --beta-loss kullback-leibler --output run.zarr
    dask-nmf fit job.toml --max-iter 50

    A job is a TOML file with any of these options, V and output too; the command line wins over it.
    Each pass over V is committed to the output. The same command resumes an unfinished fit, and leaves a
    finished one as it is.
    """
    from dask_nmf.cluster.config import without_fsync
    from dask_nmf.display import lines
    from dask_nmf.display.metrics import writing_metrics
    from dask_nmf.fitting.factorise import cache_bytes, factorise
    from dask_nmf.fitting.request import FitRequest
    from dask_nmf.fitting.result import starts_in_words
    from dask_nmf.options.settings import Settings
    from dask_nmf.storage.locations import locate, located

    factors = {name: located(settings.pop(name)) for name in ("W", "H", "fixed_W", "fixed_H")}
    request = FitRequest(
        Settings(**settings),
        **factors,
        weights=located(weights),
        dtype=dtype,
        store=locate(output),
        overwrite=overwrite,
        time_limit=time_limit,
        cache=cache_bytes(cache),
    )
    synced = without_fsync() if no_fsync else nullcontext()
    with (
        synced,
        lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow,
        writing_metrics(metrics_file, output),
    ):
        result = factorise(locate(matrix), request, lambda matrix: connected(follow, matrix, where))
    held = "" if isnan(result.validation_error) else f", held out {result.validation_error:.6g},"
    spread = "" if result.objectives is None else f"; starts: {starts_in_words(result.objectives)}"
    print_line(
        f"{output}: relative error {result.relative_error:.6f}{held} after {counted(result.n_iter, 'pass')}; "
        f"{result.message}{spread}"
    )
    return ExitCode.NOT_CONVERGED if require_convergence and not result.outcome.converged else 0
