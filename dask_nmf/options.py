"""Options that commands share: `Settings`, by the same names, and where to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

WHERE = (
    *("cluster", "workers", "threads_per_worker", "memory_limit", "scheduler", "scheduler_file"),
    "upload_package",
)


def _alpha(context: click.Context, option: click.Parameter, text: str) -> float | str:
    """A number, or "same"."""
    try:
        return text if text == "same" else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor 'same'") from None


def _loss(context: click.Context, option: click.Parameter, text: str) -> float | str:
    """A number, or the name of a loss."""
    try:
        return float(text)
    except ValueError:
        return text


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The solver and what it is asked for."""
    for option in reversed(
        [
            click.option("--rank", "-k", type=int, required=True, help="Number of components."),
            click.option(
                "--solver", type=click.Choice(["hals", "mu", "sgd"]), default="hals", show_default=True
            ),
            click.option(
                "--beta-loss",
                default="frobenius",
                show_default=True,
                callback=_loss,
                help="frobenius, kullback-leibler, itakura-saito, or a number.",
            ),
            click.option(
                "--init",
                type=click.Choice(["sample", "random", "nndsvd", "nndsvda", "nndsvdar"]),
                help="Start.  [default: sample]",
            ),
            click.option("--max-iter", type=int, default=200, show_default=True, help="Most passes over V."),
            click.option(
                "--tol", type=float, default=1e-4, show_default=True, help="Decrease of the loss to stop at."
            ),
            click.option("--stop-below", type=float, default=0.0, help="Stop when ‖V − W H‖ is below this."),
            click.option("--seed", type=int, default=0, show_default=True),
            click.option(
                "--missing",
                type=click.Choice(["nan", "unstored"]),
                help="What is not there: NaN, or what a sparse V does not store.",
            ),
            click.option("--alpha-w", "alpha_W", type=float, default=0.0, help="Penalty on W.  [default: 0]"),
            click.option(
                "--alpha-h",
                "alpha_H",
                metavar="FLOAT",
                default="same",
                callback=_alpha,
                help="Penalty on H.  [default: that on W]",
            ),
            click.option(
                "--l1-ratio", type=float, default=0.0, help="Share of L1 in the penalties; else L2."
            ),
            click.option(
                "--normalize",
                type=click.Choice(["l1", "l2"]),
                help="Components of that norm 1, the heaviest first.",
            ),
            click.option(
                "--validation-fraction",
                type=float,
                default=0.0,
                help="Share of the entries that is held out, to stop by.",
            ),
            click.option("--delta", type=float, help="mu: added to denominators.  [default: relative to V]"),
            click.option("--inner-iter", type=int, default=1, show_default=True, help="mu: steps a pass."),
            click.option(
                "--schedule",
                type=click.Choice(["adagrad", "bold-driver", "constant", "inverse-time"]),
                default="adagrad",
                show_default=True,
                help="sgd: of the steps.",
            ),
            click.option("--learning-rate", type=float, help="sgd: size of the first steps."),
            click.option("--batch-size", type=int, help="sgd: rows, or entries, a step."),
        ]
    ):
        command = option(command)
    return command


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where to run: the command is called with it as ``where``."""

    @wraps(command)
    def called(**given: Any) -> Any:
        return command(where={name: given.pop(name) for name in WHERE}, **given)

    for option in reversed(
        [
            click.option(
                "--cluster",
                type=click.Choice(["local", "ssh", "slurm"]),
                help="Start one of that kind, as Dask's configuration describes it.",
            ),
            click.option("--workers", type=click.IntRange(1), help="Processes of a cluster that is started."),
            click.option("--threads-per-worker", type=click.IntRange(1), help="Threads of each."),
            click.option("--memory-limit", metavar="SIZE", help='Memory of each, such as "2GiB".'),
            click.option("--scheduler", metavar="ADDRESS", help="Use a running cluster instead."),
            click.option(
                "--scheduler-file", type=click.Path(dir_okay=False), help="The same, by its scheduler's file."
            ),
            click.option("--upload-package", is_flag=True, help="Send dask_nmf to workers that lack it."),
            click.option(
                "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True
            ),
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        ]
    ):
        called = option(called)
    return called
