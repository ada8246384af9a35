"""The command that tells what a fit would cost."""

from __future__ import annotations

import json
from typing import Any

import click

from dask_nmf.cli.connection import planned
from dask_nmf.cli.jobs import JobCommand
from dask_nmf.cli.models import fit, select
from dask_nmf.cli.options import cluster_options, grouped, planning_options, settings_options
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line

HOLDOUT = 0.03  # the default of select; any other share costs the same


@click.command(
    "plan",
    cls=JobCommand,
    epilog=exit_codes.HELP,
    short_help="Tell what a fit would cost.",
    ignores=(fit.command, select.command),
)
@click.argument("matrix", metavar="V")
@click.option("--rank", "-k", "n_components", type=int, help="Number of components of a fit.")
@click.option("--ranks", metavar="RANKS", help="Ranks that select would compare: 2:30, 2:30:2 or 2,4,8.")
@click.option("--n-init", type=int, help="Number of starts, of each rank.  [default: 1; with --ranks 5]")
@click.option(
    "--folds", default=1, show_default=True, metavar="INTEGER", help="Folds of a selection, with --ranks."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-probe", is_flag=True, help="Read nothing of V, and tell no seconds.")
@settings_options("solver", "beta_loss", "init", "max_iter", "missing", "validation_fraction")
@grouped(
    "Input", "--weights", metavar="PATH", help="Weights of the entries of V: a matrix of the shape of V."
)
@planning_options
@cluster_options
def command(
    matrix: str,
    n_components: int | None,
    ranks: str | None,
    n_init: int | None,
    folds: int,
    as_json: bool,
    no_probe: bool,
    init: str | None,
    validation_fraction: float,
    weights: str | None,
    dtype: str | None,
    cache: str,
    log_format: str,
    debug: bool,
    where: dict[str, Any],
    **settings: Any,
) -> None:
    """Tell what a fit of V would cost: panels, memory, reads of V, and seconds; nothing is written.

    \b
    dask-nmf plan V.zarr --rank 20 --workers 4 --memory-limit 2GiB
    dask-nmf plan V.zarr --ranks 2:30 --n-init 10
    dask-nmf plan job.toml

    It is the plan that fit, or select with --ranks, makes for V, and it ends with the same errors. One panel
    is read and multiplied in this process for the seconds. A cluster on this machine is not started for it.
    """
    from dask_nmf.display import lines
    from dask_nmf.fitting.factorise import cache_bytes
    from dask_nmf.fitting.request import FitRequest
    from dask_nmf.forecasts.forecast import plan_fit, plan_selection
    from dask_nmf.options.settings import Settings
    from dask_nmf.selection.models import SelectionOptions
    from dask_nmf.storage.locations import locate, located

    if (n_components is None) == (ranks is None):
        raise click.UsageError("give --rank for the plan of a fit, or --ranks for that of a selection")

    with lines.logging_to_terminal(log_format, terminal=False) as follow:

        def connect(matrix: Any) -> Any:
            return planned(follow, matrix, where)

        if n_components is None:
            options = SelectionOptions.of(ranks, 5 if n_init is None else n_init, folds, HOLDOUT, **settings)
            request = FitRequest(options.settings, dtype=dtype, cache=cache_bytes(cache))
            made = plan_selection(locate(matrix), options, request, connect, not no_probe)
        else:
            settings |= {"n_init": 1 if n_init is None else n_init, "init": init}
            own = Settings(n_components, validation_fraction=validation_fraction, **settings)
            request = FitRequest(own, weights=located(weights), dtype=dtype, cache=cache_bytes(cache))
            made = plan_fit(locate(matrix), request, connect, not no_probe)
    for line in [json.dumps(made.to_dict())] if as_json else repr(made).splitlines():
        print_line(line)
