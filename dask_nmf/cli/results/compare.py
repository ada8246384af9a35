"""The command that compares two runs."""

from __future__ import annotations

import json
from typing import Any

import click

from dask_nmf.cli.options import Command
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line
from dask_nmf.wording import counted


@click.command("compare", cls=Command, epilog=exit_codes.HELP)
@click.argument("first", metavar="RUN1")
@click.argument("second", metavar="RUN2")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(first: str, second: str, as_json: bool) -> int:
    """Match the components of two runs by the cosines of their H, and list what differs.

    \b
    dask-nmf compare run1.zarr run2.zarr
    """
    from dask_nmf.results.comparison import compare
    from dask_nmf.storage.locations import locate

    found = compare(locate(first, verbatim=True), locate(second, verbatim=True))
    if as_json:
        print_line(json.dumps(found.as_json()))
        return 0
    for line in _lines(found):
        print_line(line)
    return 0


def _lines(found: Any) -> list[str]:
    """Return the table of cosines, and the errors and settings that differ, as lines."""
    from dask_nmf.display.text import align_rows

    rows = [("in RUN1", "in RUN2", "cosine")]
    rows += [(str(pair.first), str(pair.second), f"{pair.cosine:.4f}") for pair in found.pairs]
    lines = [*align_rows(rows), f"mean cosine {found.mean_cosine:.4f}, over {_columns(found)}"]
    for number, left in enumerate(found.unmatched, 1):
        if left:
            lines.append(f"components of RUN{number} without a match: {', '.join(map(str, left))}")
    parts = zip(found.runs, found.relative_errors, found.passes, strict=True)
    for number, (name, error, passes) in enumerate(parts, 1):
        known = "infinite" if error is None else f"{error:.6f}"
        lines.append(f"RUN{number} {name}: relative error {known} after {counted(passes, 'pass')}")
    for name, (one, other) in found.settings.items():
        lines.append(f"{name} is {one!r} in RUN1 and {other!r} in RUN2")
    return lines


def _columns(found: Any) -> str:
    """Return how many columns were compared, and of how many if some are not common to both runs."""
    if set(found.widths) == {found.columns}:
        return counted(found.columns, "column")
    one, other = found.widths
    return f"the {counted(found.columns, 'column')} that have the same name in both, of {one} and {other}"
