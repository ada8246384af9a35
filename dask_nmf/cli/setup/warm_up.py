"""The command that compiles all functions ahead of the first fit."""

from __future__ import annotations

import click

from dask_nmf.cli.options import Command
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line


@click.command(
    "warm-up", cls=Command, epilog=exit_codes.HELP, short_help="Compile all functions ahead of the first fit."
)
def command() -> int:
    """Compile all functions that fits need, and keep them on disk, as for the image of a container.

    They are kept in the first of these folders in which numba can write: that of NUMBA_CACHE_DIR, that of the
    package, the cache of the user.
    """
    from dask_nmf.cli.setup.compile_all import warm_up

    done = warm_up()
    print_line(
        f"{done.folder}: {done.compiled} variants of functions compiled, {done.found} found, "
        f"{done.bytes / 1e6:.1f} MB, in {done.seconds:.0f} s"
    )
    return 0
