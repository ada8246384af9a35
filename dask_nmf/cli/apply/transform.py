"""The command that computes the W of other rows."""

from __future__ import annotations

import sys
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.options import Command, cluster_options, overwriting
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line


@click.command("transform", cls=Command, epilog=exit_codes.HELP)
@click.argument("run")
@click.argument("matrix", metavar="V2")
@click.option("--output", "-o", required=True, type=click.Path(), help="Path of a Zarr group for W.")
@overwriting
@cluster_options
def command(
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
