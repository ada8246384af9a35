"""The command that writes the result of a run to a file of another kind."""

from __future__ import annotations

import click

from dask_nmf.cli.options import Command, overwriting
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line


@click.command(
    "export",
    cls=Command,
    epilog=exit_codes.HELP,
    short_help="Write W and H to CSV, Parquet, NumPy, AnnData or netCDF.",
)
@click.argument("run")
@click.argument("output", metavar="OUT")
@click.option(
    "--what", type=click.Choice(["W", "H"]), help="Factor that a .csv, .parquet or .npy file holds."
)
@overwriting
def command(run: str, output: str, what: str | None, overwrite: bool) -> int:
    """Write the W and H of a run, with the names of rows and columns, to a file; its suffix says the kind.

    \b
    dask-nmf export run.zarr factors.h5ad
    dask-nmf export run.zarr components.csv --what H
    dask-nmf export W2.zarr rows.csv

    .npz, .h5ad (AnnData) and .nc (netCDF) files hold W and H. A .csv or .parquet file holds W, one line for
    each row of V, or H, one line for each column of V; an .npy file holds W or H without names.
    Of an output of transform, such as W2.zarr, W is written.
    """
    from dask_nmf.results.exports.export import export_to
    from dask_nmf.storage.locations import locate, locate_file

    written = export_to(locate(run), locate_file(output), what, overwrite)
    print_line(f"{output}: {written}")
    return 0
