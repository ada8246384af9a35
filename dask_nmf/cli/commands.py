"""The commands: each parses its options, calls one function and prints one line.

Whatever takes time to import is imported when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from math import isnan
from pathlib import Path
from typing import Any

import click

from dask_nmf._version import __version__
from dask_nmf.cli import convert, select
from dask_nmf.cli.connection import connected
from dask_nmf.cli.options import (
    Commands,
    cluster_options,
    committing_options,
    grouped,
    reading_options,
    settings_options,
)
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cli.process.streams import print_line
from dask_nmf.display.text import align_values

csv_output = click.option(
    "--output", "-o", required=True, type=click.Path(), help="CSV file for lines of row,column,value."
)
overwriting = click.option("--overwrite", is_flag=True, help="Replace the output that is there.")
clipping = click.option(
    "--clip",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Set values outside of these bounds to the nearer bound.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def app() -> None:
    """Factorise non-negative matrices that do not fit in memory: V ≈ W H.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf info run.zarr
    """


app.add_command(convert.command)


@app.command(epilog=exit_codes.HELP, short_help="Factorise V, and commit each pass to a run.")
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
    """Factorise V, the path of a Zarr array, a CSR matrix in a Zarr group, an .npy file or an .npz file.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf fit counts.npz --rank 20 --beta-loss kullback-leibler --output run.zarr

    Each pass over V is committed to the output. The same command resumes an unfinished fit, and leaves a
    finished one as it is.
    """
    from dask_nmf.cluster.config import without_fsync
    from dask_nmf.display import lines
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
    with synced, lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow:
        result = factorise(locate(matrix), request, lambda matrix: connected(follow, matrix, where))
    held = "" if isnan(result.validation_error) else f", held out {result.validation_error:.6g},"
    spread = "" if result.objectives is None else f"; starts: {starts_in_words(result.objectives)}"
    print_line(
        f"{output}: relative error {result.relative_error:.6f}{held} after {result.n_iter} passes; "
        f"{result.message}{spread}"
    )
    return ExitCode.NOT_CONVERGED if require_convergence and not result.outcome.converged else 0


app.add_command(select.command)


@app.command(epilog=exit_codes.HELP)
@click.argument("run")
@click.argument("matrix", metavar="V2")
@click.option("--output", "-o", required=True, type=click.Path(), help="Path of a Zarr group for W.")
@overwriting
@cluster_options
def transform(
    run: str, matrix: str, output: str, overwrite: bool, log_format: str, debug: bool, where: dict[str, Any]
) -> int:
    """Compute the W of another matrix V2 for the H of a run, in one pass over V2.

    \b
    dask-nmf transform run.zarr V2.zarr --output W2.zarr
    """
    from dask_nmf.display import lines
    from dask_nmf.inference.transform_output import transform_to
    from dask_nmf.storage.locations import locate

    places = locate(run), locate(matrix), locate(output)
    with lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow:
        shape = transform_to(*places, overwrite, lambda matrix: connected(follow, matrix, where))
    print_line(f"{output}: W, {shape[0]} x {shape[1]}")
    return 0


@app.command(epilog=exit_codes.HELP, short_help="Compute values of W H at the cells of a CSV file.")
@click.argument("run")
@click.argument("pairs")
@csv_output
@overwriting
@clipping
def predict(run: str, pairs: str, output: str, overwrite: bool, clip: tuple[float, float] | None) -> int:
    """Compute values of W H of a run at the cells in PAIRS, a CSV file of row,column, counted from 0.

    \b
    dask-nmf predict run.zarr pairs.csv --output values.csv

    If the fit had missing or weighted entries, a mean replaces the value in a row or column of which the fit
    saw no entry, and a fourth column, source, says which mean.
    """
    from dask_nmf.inference.predict import predict_to
    from dask_nmf.storage.locations import locate, locate_file

    count = predict_to(locate(run), Path(pairs), locate_file(output), overwrite, clip)
    print_line(f"{output}: {count} values")
    return 0


@app.command(epilog=exit_codes.HELP, short_help="List the largest values of W H in each row.")
@click.argument("run")
@click.argument("matrix", metavar="V")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Most cells of a row.")
@csv_output
@overwriting
@clipping
@click.option("--rows", metavar="FILE", help="CSV file of the rows to do, counted from 0; by default all.")
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
    """List, for each row of V, the cells with the largest W H among those without an entry in V.

    \b
    dask-nmf recommend run.zarr V.zarr --top 10 --output best.csv

    V is the matrix of the run, and is read once. A cell has no entry if it was missing in the fit or, where
    nothing was missing, if it is not positive. A row of which the fit saw no entry gets the columns with the
    largest means, and a fourth column, source, says so.
    """
    from dask_nmf.display import lines
    from dask_nmf.inference.recommend import ListOptions, recommend_to
    from dask_nmf.storage.locations import locate, locate_file

    options = ListOptions(top, clip, None if rows is None else Path(rows))
    with lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow:
        cells = recommend_to(
            locate(run),
            locate(matrix),
            options,
            locate_file(output),
            overwrite,
            lambda matrix: connected(follow, matrix, where),
        )
    print_line(f"{output}: {cells} values")
    return 0


@app.command(short_help="Describe a run, a selection or an output of transform.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(run: str, as_json: bool) -> int:
    """Describe a run or a selection and its progress, or an output of transform and its sources.

    \b
    dask-nmf info run.zarr
    """
    from dask_nmf.inference.transform_output import summary
    from dask_nmf.selection.stored.summary import selection_summary
    from dask_nmf.storage.locations import locate

    place = locate(run, verbatim=True)
    selected = selection_summary(place)
    described = summary(place) if selected is None else selected
    if as_json:
        print_line(json.dumps(described))
        return 0
    for line in align_values(described) if selected is None else select.lines_of(selected):
        print_line(line)
    return 0


@app.command("warm-up", epilog=exit_codes.HELP, short_help="Compile all functions ahead of the first fit.")
def warm_up() -> int:
    """Compile all functions that fits need, and keep them on disk, as for the image of a container.

    They are kept in the first of these folders in which numba can write: that of NUMBA_CACHE_DIR, that of the
    package, the cache of the user.
    """
    from dask_nmf.cli.warmup import warm_up

    done = warm_up()
    print_line(
        f"{done.folder}: {done.compiled} variants of functions compiled, {done.found} found, "
        f"{done.bytes / 1e6:.1f} MB, in {done.seconds:.0f} s"
    )
    return 0
