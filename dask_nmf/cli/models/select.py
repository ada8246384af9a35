"""The command that chooses the rank, and its lines about a selection."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import click

from dask_nmf.cli.connection import connected
from dask_nmf.cli.jobs import JobCommand
from dask_nmf.cli.options import (
    cluster_options,
    committing_options,
    grouped,
    metrics_file,
    reading_options,
    settings_options,
)
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cli.process.streams import print_line
from dask_nmf.display.text import align_values
from dask_nmf.options.selection import NARROWED

TABLES = ("ranks", "trials")  # the parts of a summary that are tables


@click.command("select", cls=JobCommand, epilog=exit_codes.HELP, short_help="Choose the rank, and fit it.")
@click.argument("matrix", metavar="V")
@click.option("--output", "-o", required=True, type=click.Path(), help="Path of the selection, a Zarr group.")
@click.option("--ranks", required=True, metavar="RANKS", help="Ranks to compare: 2:30, 2:30:2 or 2,4,8.")
@click.option(
    "--n-init", default=5, show_default=True, metavar="INTEGER", help="Number of starts of each rank."
)
@click.option(
    "--folds", default=1, show_default=True, metavar="INTEGER", help="Number of sets of held-out entries."
)
@click.option(
    "--holdout", default=0.03, show_default=True, metavar="FLOAT", help="Share of the entries in such a set."
)
@click.option(
    "--error-bars",
    default=0,
    show_default=True,
    metavar="INTEGER",
    help="Number of bootstrap samples for standard errors of H; 0: none.",
)
@click.option("--figures", metavar="DIR", type=click.Path(), help="Folder for figures of the selection.")
@settings_options(
    *("solver", "beta_loss", "max_iter", "tol", "random_state", "missing", "alpha_W", "alpha_H", "l1_ratio"),
    narrowed=NARROWED,
)
@reading_options
@committing_options
@grouped(
    "Stopping",
    "--require-convergence",
    is_flag=True,
    help="Exit with 4 if the time was over first, or the final fit has not converged.",
)
@metrics_file
@cluster_options
def command(
    matrix: str,
    output: str,
    ranks: str,
    n_init: int,
    folds: int,
    holdout: float,
    error_bars: int,
    figures: str | None,
    dtype: str | None,
    time_limit: float | None,
    cache: str,
    no_fsync: bool,
    overwrite: bool,
    require_convergence: bool,
    metrics_file: str | None,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
    **settings: Any,
) -> int:
    """Choose the number of components by the error of held-out entries, and fit V with it.

    \b
    dask-nmf select V.zarr --ranks 2:30 --n-init 10 --folds 3 --output select.zarr
    dask-nmf info select.zarr

    Models of all ranks, starts and folds share each read of V, and are committed after it. The same command
    resumes a selection; larger --ranks, --n-init or --folds add models to it. The other commands take the
    selection as they take a run: it stands for the fit of its rank, which is select.zarr/fit. In place of V
    it takes a job, a TOML file with options, as fit does.
    """
    from dask_nmf.cluster.config import without_fsync
    from dask_nmf.display import lines
    from dask_nmf.display.metrics import writing_metrics
    from dask_nmf.fitting.factorise import cache_bytes
    from dask_nmf.selection.models import SelectionOptions
    from dask_nmf.selection.result import table_of_ranks
    from dask_nmf.selection.select import Request, choose_rank
    from dask_nmf.storage.locations import locate

    if figures is not None:
        from dask_nmf.plots.files import check_folder, save_figures

        check_folder(figures)
    options = SelectionOptions.of(ranks, n_init, folds, holdout, **settings)
    request = Request(dtype, locate(output), overwrite, time_limit, cache_bytes(cache), error_bars)
    synced = without_fsync() if no_fsync else nullcontext()
    with (
        synced,
        lines.logging_to_terminal(log_format, sys.stderr.isatty()) as follow,
        writing_metrics(metrics_file, output),
    ):
        found = choose_rank(locate(matrix), options, request, lambda matrix: connected(follow, matrix, where))
    print_line(f"{output}: {found.message}")
    for line in table_of_ranks(found.ranks, found.n_components):
        print_line(line)
    if figures is not None:
        save_figures(found, figures)
    converged = found.result is not None and found.result.outcome.converged
    return ExitCode.NOT_CONVERGED if require_convergence and not converged else 0


def lines_of(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines about a selection for people: its values, and the table of ranks if there is one."""
    from dask_nmf.selection.result import table_of_ranks

    values = align_values({name: value for name, value in summary.items() if name not in TABLES})
    table = table_of_ranks(summary["ranks"], summary["n_components"]) if summary["ranks"] else []
    return [*values, *table]
