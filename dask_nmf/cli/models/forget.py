"""The command that takes rows out of a finished run."""

from __future__ import annotations

import sys
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.options import Command, cluster_options
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line
from dask_nmf.wording import counted


@click.command("forget", cls=Command, epilog=exit_codes.HELP, short_help="Take rows out of a finished run.")
@click.argument("run")
@click.argument("matrix", metavar="V")
@click.option(
    "--rows",
    "ids",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Text file with a row on each line: its name if rows have names, else its number.",
)
@cluster_options
def command(run: str, matrix: str, ids: str, log_format: str, debug: bool, where: dict[str, Any]) -> int:
    """Take rows, such as those of a patient, out of a finished run, and solve for H again.

    \b
    dask-nmf forget run.zarr V.zarr --rows ids.txt

    V is the matrix of the run: one pass over it polishes W and H on the rows that are left. Or it has
    these rows alone, in the order of the file. Nothing of the rows stays in the run.
    """
    from dask_nmf.display import lines
    from dask_nmf.storage.locations import locate
    from dask_nmf.updates.forget import forget, rows_in_file

    places = locate(run), locate(matrix)
    with lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow:
        rows = rows_in_file(places[0], ids)
        found = forget(places[0], rows, places[1], connect=lambda matrix: connected(follow, matrix, where))
    if found.already:
        these = "this row was" if found.rows == 1 else f"these {found.rows} rows were"
        print_line(f"{run}: {these} taken out already; {found.left} are left")
        return 0
    polished = ", polished in one pass" if found.polished else ""
    print_line(
        f"{run}: {counted(found.rows, 'row')} taken out, {found.left} left{polished}; "
        f"relative error {found.relative_error:.6f}"
    )
    return 0
