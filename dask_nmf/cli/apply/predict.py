"""The command that computes values of W H at some cells."""

from __future__ import annotations

from pathlib import Path

import click

from dask_nmf.cli.options import Command, clipping, csv_output, overwriting
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line
from dask_nmf.wording import counted


@click.command(
    "predict",
    cls=Command,
    epilog=exit_codes.HELP,
    short_help="Compute values of W H at the cells of a CSV file.",
)
@click.argument("run")
@click.argument("pairs")
@csv_output
@overwriting
@clipping
def command(run: str, pairs: str, output: str, overwrite: bool, clip: tuple[float, float] | None) -> int:
    """Compute values of W H of a run at the cells in PAIRS, a CSV file of row,column.

    Rows and columns of PAIRS are names if V has names, and else numbers, counted from 0. In a V with names,
    numbers stand below row_number and column_number in a header. The output has names, if V has any.

    \b
    dask-nmf predict run.zarr pairs.csv --output values.csv

    If the fit had missing or weighted entries, a mean replaces the value in a row or column of which the fit
    saw no entry, and a fourth column, source, says which mean.
    """
    from dask_nmf.inference.predict import predict_to
    from dask_nmf.storage.locations import locate, locate_file

    count = predict_to(locate(run), Path(pairs), locate_file(output), overwrite, clip)
    print_line(f"{output}: {counted(count, 'value')}")
    return 0
