"""The command that adds rows to a finished run."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.options import Command, cluster_options, grouped
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line


@click.command("update", cls=Command, epilog=exit_codes.HELP, short_help="Add rows to a finished run.")
@click.argument("run")
@click.argument("matrix", metavar="NEW")
@click.option(
    "--output", "-o", type=click.Path(), help="Path of a run for the result.  [default: RUN is changed]"
)
@click.option(
    "--weights", metavar="PATH", help="Weights of the entries of NEW, of its shape, if the fit had some."
)
@grouped("Model", "--keep-h", is_flag=True, help="Leave H as it is, and only compute W of the new rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@cluster_options
def command(
    run: str,
    matrix: str,
    output: str | None,
    weights: str | None,
    keep_h: bool,
    as_json: bool,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
) -> int:
    """Add the rows of the matrix NEW to a finished run: refresh H, and append their W.

    \b
    dask-nmf update run.zarr lastnight.zarr

    The rows of the fit are not read again. A batch that was added before, with the same names,
    entries and weights, is not added twice. The run can be read as it was until the new W and H are
    committed, both at once; with --output it stays as it was.
    """
    from dask_nmf.display import lines
    from dask_nmf.storage.locations import locate
    from dask_nmf.updates.update import update

    places, goal = (locate(run), locate(matrix)), None if output is None else locate(output)
    with lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow:
        found = update(
            *places,
            weights=None if weights is None else locate(weights),
            output=goal,
            keep_h=keep_h,
            connect=lambda matrix: connected(follow, matrix, where),
        )
    run = output or run
    if as_json:
        print_line(json.dumps({"run": run, **found.as_json()}))
        return 0
    if found.already:
        print_line(f"{run}: these rows are in it already, as rows {found.first} to {found.last - 1}")
        return 0
    print_line(
        f"{run}: rows {found.first} to {found.last - 1} added; relative error {found.relative_error:.6f}"
    )
    for line in _drift(found):
        print_line(line)
    return 0


def _drift(found: Any) -> list[str]:
    """Return how the new rows differ from the old ones, as lines."""
    from dask_nmf.display.text import align_rows

    rows = [("component", "share of old rows", "of new rows", "cosine of H before and after")]
    table = zip(*found.shares, found.cosines, strict=True)
    rows += [
        (str(t), f"{old:.2%}", f"{new:.2%}", f"{cosine:.5f}") for t, (old, new, cosine) in enumerate(table)
    ]
    known = f"relative error {found.new_error:.6f} of the new rows, {found.old_error:.6f} of the old"
    advice = "the new rows are of another kind; fit all rows anew, for example from this H (fit --h RUN/H)"
    return [*align_rows(rows), f"with the H before: {known}", *([advice] if found.of_another_kind else [])]
