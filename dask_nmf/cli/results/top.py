"""The command that lists the columns or rows of V that matter most in each component."""

from __future__ import annotations

import click

from dask_nmf.cli.options import Command
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line, print_record


@click.command(
    "top", cls=Command, epilog=exit_codes.HELP, short_help="List the best columns of each component by name."
)
@click.argument("run")
@click.option(
    "--n", "-n", type=click.IntRange(1), default=10, show_default=True, help="Most columns of a component."
)
@click.option(
    "--by",
    type=click.Choice(["weight", "lift", "score"]),
    default="weight",
    show_default=True,
    help="Share of the component; that over the share of W H as a whole; specificity (Kim & Park).",
)
@click.option("--rows", is_flag=True, help="List rows, by W, in place of columns, by H.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json"]),
    default="text",
    show_default=True,
    help="Print one line a component, CSV, or one JSON object.",
)
def command(run: str, n: int, by: str, rows: bool, form: str) -> int:
    """List the columns of V that matter most in each component, by name, or by number without names.

    \b
    dask-nmf top run.zarr
    dask-nmf top run.zarr --n 20 --by score --format csv
    """
    from dask_nmf.results.leading.best import top
    from dask_nmf.results.leading.listing import LISTINGS
    from dask_nmf.storage.locations import locate

    found = top(locate(run), n, by, rows)
    for line in LISTINGS[form](found, by, "row" if rows else "column"):
        (print_record if form == "csv" else print_line)(line)
    return 0
