"""Options that commands share: `Settings`, by the same names, and where to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from dask_nmf.keywords import OTHER_NAMES
from dask_nmf.settings import INITS, LOSSES, MISSING, NORMS, SCHEDULES, SOLVERS, Settings

GROUPS = {  # of options, as help lists them; what is in none comes first
    "Input": ("missing", "weights", "dtype", "cache"),
    "Model": (
        *("solver", "beta_loss", "alpha_W", "alpha_H", "l1_ratio", "normalize", "fixed_W", "fixed_H"),
        *("delta", "inner_iter", "schedule", "learning_rate", "batch_size"),
    ),
    "Start": ("init", "W", "H"),
    "Stopping": ("stop_below", "validation_fraction", "time_limit", "require_convergence"),
    "Output": ("no_fsync",),
    "Cluster": (
        *("cluster", "workers", "threads_per_worker", "memory_limit", "scheduler", "scheduler_file"),
        "upload_package",
    ),
    "Log": ("log_format", "debug"),
}
WHERE = GROUPS["Cluster"]


class Command(click.Command):
    """A command whose help has its options in groups, and which knows other packages' names for them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: the common ones, then those of each group."""
        group_of = {name: title for title, names in GROUPS.items() for name in names}
        records: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *GROUPS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                records[group_of.get(str(parameter.name), "Options")].append(record)
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=26)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an option that there is not is refused with the one that is meant."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = error.option_name.lstrip("-").replace("-", "_")
            meant = (word, *OTHER_NAMES.get(word, ()))
            ours = [max(option.opts, key=len) for option in self.params if option.name in meant]
            if not ours:
                raise
            text = f"No such option '{error.option_name}'. Did you mean '{ours[0]}'?"
            raise click.NoSuchOption(error.option_name, text, ctx=ctx) from None


class Commands(click.Group):
    """The commands, in the order in which a person needs them."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self.commands)


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
    """Add the settings of a fit, with the defaults and choices of `Settings`."""
    for option in reversed(
        [
            click.option(
                "--rank", "-k", "n_components", type=int, required=True, help="Number of components."
            ),
            _setting("solver", "hals needs the fewest passes; see docs/choosing.md.", SOLVERS),
            _setting("beta_loss", f"Loss: {', '.join(LOSSES)}, or a number.", callback=_loss, metavar="LOSS"),
            _setting("init", "Start.  [default: sample]", tuple(name for name in INITS if name != "custom")),
            _setting("max_iter", "Most passes over V.", type=int),
            _setting("tol", "Stop when a pass lowers the loss by less than this share.", type=float),
            _setting("stop_below", "Stop when ‖V − W H‖ is below this.", type=float),
            _setting("random_state", "Seed of the start and of what is held out.", type=int, flag="--seed"),
            _setting("missing", "What is unknown: NaN, or what a sparse V does not store.", MISSING),
            click.option("--alpha-w", "alpha_W", type=float, default=0.0, help="Penalty on W.  [default: 0]"),
            click.option(
                "--alpha-h",
                "alpha_H",
                metavar="FLOAT",
                default="same",
                callback=_alpha,
                help="Penalty on H.  [default: that on W]",
            ),
            _setting("l1_ratio", "Share of L1 in the penalties; the rest is L2.", type=float),
            _setting("normalize", "Components of that norm 1, the heaviest first.", NORMS),
            _setting("validation_fraction", "Share of the entries to hold out, and to stop by.", type=float),
            _setting("delta", "mu: added to denominators.  [default: relative to V]", type=float),
            _setting("inner_iter", "mu: steps a pass.", type=int),
            _setting("schedule", "sgd: how the size of steps changes.", SCHEDULES),
            _setting("learning_rate", "sgd: size of the first steps.", type=float),
            _setting("batch_size", "sgd: rows, or entries, a step.", type=int),
        ]
    ):
        command = option(command)
    return command


def _setting(
    name: str, text: str, choices: tuple[str, ...] | None = None, flag: str | None = None, **more: Any
) -> Any:
    """Return the option of a setting; its default is told where there is one."""
    default = Settings.__dataclass_fields__[name].default
    if choices is not None:
        more["type"] = click.Choice(choices)
    shown = default not in (None, 0.0) or name == "random_state"
    flag = flag or f"--{name.replace('_', '-')}"
    return click.option(flag, name, default=default, show_default=shown, help=text, **more)


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
                help="Start a cluster of this kind, as Dask's configuration describes it.",
            ),
            click.option("--workers", type=click.IntRange(1), help="Processes of a cluster that is started."),
            click.option("--threads-per-worker", type=click.IntRange(1), help="Threads of each process."),
            click.option("--memory-limit", metavar="SIZE", help='Memory of each process, such as "2GiB".'),
            click.option("--scheduler", metavar="ADDRESS", help="Use a cluster that runs already."),
            click.option(
                "--scheduler-file",
                type=click.Path(dir_okay=False),
                help="Use the one whose scheduler wrote this file.",
            ),
            click.option("--upload-package", is_flag=True, help="Send dask_nmf to workers that lack it."),
            click.option(
                "--log-format",
                type=click.Choice(["text", "json"]),
                default="text",
                show_default=True,
                help="Lines for people, or for machines.",
            ),
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
        ]
    ):
        called = option(called)
    return called
