"""The group of all commands, in the order in which a person needs them.

Each command parses its options, calls one function and prints one line. Whatever takes time to import is
imported when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import click

from dask_nmf._version import __version__
from dask_nmf.cli.apply import predict, recommend, transform
from dask_nmf.cli.inputs import convert, plan
from dask_nmf.cli.models import fit, forget, select, update
from dask_nmf.cli.options import Commands
from dask_nmf.cli.results import compare, export, info, report, top, verify
from dask_nmf.cli.setup import warm_up


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def app() -> None:
    """Factorise non-negative matrices that do not fit in memory: V ≈ W H.

    \b
    dask-nmf fit V.zarr --rank 20 --output run.zarr
    dask-nmf info run.zarr
    """


for module in (
    convert,
    plan,
    fit,
    select,
    update,
    forget,
    transform,
    predict,
    recommend,
    info,
    top,
    export,
    report,
    compare,
    verify,
    warm_up,
):
    app.add_command(module.command)
