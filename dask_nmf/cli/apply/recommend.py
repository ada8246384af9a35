"""The command that lists the largest values of W H in each row."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.options import Command, clipping, cluster_options, csv_output, overwriting
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line
from dask_nmf.wording import counted


@click.command(
    "recommend", cls=Command, epilog=exit_codes.HELP, short_help="List the largest values of W H in each row."
)
@click.argument("run")
@click.argument("matrix", metavar="V")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Most cells of a row.")
@csv_output
@overwriting
@clipping
@click.option(
    "--rows", metavar="FILE", help="CSV file of rows: names, or numbers from 0 as in predict; by default all."
)
@cluster_options
def command(
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
    largest means, and a fourth column, source, says so. The output has names, if V has any.
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
    print_line(f"{output}: {counted(cells, 'value')}")
    return 0
