"""The command that verifies a run."""

from __future__ import annotations

import json

import click

from dask_nmf.cli.options import Command
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cli.process.streams import print_line

MARKS = {True: "ok", False: "FAILED", None: "skipped"}


@click.command("verify", cls=Command, epilog=exit_codes.HELP)
@click.argument("run")
@click.argument("matrix", metavar="[V]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, matrix: str | None, as_json: bool) -> int:
    """Check all that a run holds, and with V also its content and the relative error.

    \b
    dask-nmf verify run.zarr
    dask-nmf verify run.zarr V.zarr

    Each check is one line: ok, FAILED or skipped. If one fails the exit code is 3.
    """
    from dask_nmf.results.verification import verify
    from dask_nmf.storage.locations import locate

    checks = verify(locate(run, verbatim=True), None if matrix is None else locate(matrix))
    if as_json:
        print_line(json.dumps({"run": run, "checks": [check._asdict() for check in checks]}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print_line(f"{MARKS[check.passed]:<7}  {check.name:<{width}}  {check.text}")
    return ExitCode.BAD_DATA if any(check.passed is False for check in checks) else ExitCode.DONE
