"""The command that writes the report of a run or a selection."""

from __future__ import annotations

from typing import Any

import click

from dask_nmf.cli.options import Command, overwriting
from dask_nmf.cli.process.streams import print_line


@click.command("report", cls=Command, short_help="Write a report of a run or a selection as HTML.")
@click.argument("run")
@click.option(
    "--output", "-o", type=click.Path(), help="HTML file to write.  [default: RUN, but ending in .html]"
)
@click.option("--image-shape", metavar="HxW", help="Show components as images of this height and width.")
@click.option(
    "--view",
    type=click.Choice(["image", "bars", "spectrum"]),
    help="Show components in this way.  [default: by the names of the columns of V]",
)
@click.option(
    "--residuals", metavar="V", help="Read the V that was fitted, and show where W H differs from it."
)
@click.option("--against", metavar="RUN2", help="Compare the run with this one.")
@overwriting
def command(run: str, output: str | None, **options: Any) -> int:
    """Write a report of a run or a selection as one HTML file that opens in any browser without a network.

    \b
    dask-nmf report run.zarr
    dask-nmf report faces.zarr --image-shape 112x92 -o faces.html
    """
    from dask_nmf.report.writing import default_output, write

    path = default_output(run) if output is None else output
    write(run, path, **options)
    print_line(str(path))
    return 0
