"""The command that describes a run, a selection or an output of transform."""

from __future__ import annotations

import json

import click

from dask_nmf.cli.models import select
from dask_nmf.cli.options import Command
from dask_nmf.cli.process.streams import print_line
from dask_nmf.display.text import align_values


@click.command("info", cls=Command, short_help="Describe a run, a selection or an output of transform.")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, as_json: bool) -> int:
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
    if "environments" in described:
        described["environment"] = (described.pop("environments") or [None])[-1]
    for line in align_values(described) if selected is None else select.lines_of(selected):
        print_line(line)
    return 0
