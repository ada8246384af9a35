"""Options that commands share: the settings of a fit, made from `Settings`, and the place where it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, get_args, get_type_hints

import click

from dask_nmf.options.keywords import OTHER_NAMES
from dask_nmf.options.option import Option, option_of
from dask_nmf.options.settings import Settings

GROUPS = (  # as help lists them
    "Options", "Input", "Text", "Steps", "Model", "Start", "Stopping", "Output", "Cluster", "Log",
)  # fmt: skip


class GroupedOption(click.Option):
    """An option that stands below a heading of the help."""

    def __init__(self, *args: Any, group: str = GROUPS[0], **options: Any) -> None:
        super().__init__(*args, **options)
        self.group = group


def grouped(group: str, *flags: str, **options: Any) -> Callable[..., Any]:
    """Return the decorator that adds an option below a heading of the help."""
    return click.option(*flags, cls=GroupedOption, group=group, **options)


class Command(click.Command):
    """A command whose help has its options in groups, and which knows other packages' names for them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: the common ones, then those of each group."""
        records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                records[getattr(parameter, "group", GROUPS[0])].append(record)
        for group, rows in records.items():
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows, col_max=26)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; the error about an unknown option names the one that is meant."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = error.option_name.lstrip("-").replace("-", "_")
            meant = OTHER_NAMES.get(word, word)
            ours = [max(option.opts, key=len) for option in self.params if option.name == meant]
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


def settings_options(*names: str, narrowed: Mapping[str, Option] = {}) -> Callable[..., Any]:
    """Return the decorator that adds an option for each field of `Settings`, or for those of these names.

    Parameters
    ----------
    narrowed : descriptions of fields of which the command takes fewer values than a fit.
    """
    chosen = [setting for setting in fields(Settings) if not names or setting.name in names]
    options = [_setting(setting, narrowed.get(setting.name, option_of(setting))) for setting in chosen]
    return lambda command: _decorated(command, options)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how V is read and kept, and for how long a command works."""
    return _decorated(command, READING_OPTIONS)


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how V is read and kept."""
    return _decorated(command, (DTYPE, CACHE))


def committing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how an output is committed."""
    return _decorated(command, COMMITTING_OPTIONS)


def _decorated(command: Callable[..., Any], decorators: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Return a command with these decorators, of which the first one is the outermost."""
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _setting(setting: Field[Any], described: Option) -> Callable[..., Any]:
    """Return the decorator that adds the option of a setting."""
    required = setting.default is MISSING
    mixed = bool(described.need and described.choices)
    flags = described.flags or (f"--{setting.name.replace('_', '-').lower()}",)
    return grouped(
        described.group,
        *flags,
        setting.name,
        type=None if mixed else _type_of(setting, described),
        callback=_number_or_word if mixed else None,
        required=required,
        default=None if required else setting.default,
        metavar=described.metavar,
        help=_help(setting, described),
    )


def _type_of(setting: Field[Any], described: Option) -> Any:
    """Return the type that click converts a value of a setting to.

    A word is one of the choices, or any text if the value has a name in the help: a later check refuses it.
    """
    if described.need is None and described.metavar is not None:
        return str
    if described.need is None:
        return click.Choice([word for word in described.choices if word not in described.implied])
    hint = get_type_hints(Settings)[setting.name]
    return next(kind for kind in (*get_args(hint), hint) if kind in (int, float))


def _number_or_word(context: click.Context, option: click.Parameter, text: str) -> float | str:
    """Return the number that a text says, or the text, which `Settings` checks."""
    try:
        return float(text)
    except ValueError:
        return text


def _help(setting: Field[Any], described: Option) -> str:
    """Return the help of a setting, with its solver if only one has it, and its default if there is one."""
    default = described.default
    if default is None and setting.default not in (MISSING, None):
        default = setting.default if isinstance(setting.default, str) else f"{setting.default:g}"
    text = described.help if default is None else f"{described.help}  [default: {default}]"
    return text if described.solver is None else f"{described.solver}: {text}"


DTYPE = grouped(
    "Input",
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating-point type used for the computation.  [default: that of V]",
)
CACHE = grouped(
    "Input",
    "--cache",
    default="auto",
    show_default=True,
    metavar="auto|off|SIZE",
    help="Memory of each worker for the parts of V that it keeps between passes.",
)
READING_OPTIONS = (
    DTYPE,
    grouped(
        "Stopping",
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="Stop after the pass that is running when this time is over; the same command goes on.",
    ),
    CACHE,
)
COMMITTING_OPTIONS = (
    grouped("Output", "--no-fsync", is_flag=True, help="Do not wait for the disk at each commit."),
    click.option("--overwrite", is_flag=True, help="Replace the output that is there."),
)
csv_output = click.option(
    "--output", "-o", required=True, type=click.Path(), help="CSV file for lines of row,column,value."
)
overwriting = click.option("--overwrite", is_flag=True, help="Replace the output that is there.")
clipping = click.option(
    "--clip",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Set values outside of these bounds to the nearer bound.",
)
CLUSTER_OPTIONS = {  # by the names of the fields of `ClusterSpec`
    "cluster": grouped(
        "Cluster",
        "--cluster",
        type=click.Choice(["local", "ssh", "slurm"]),
        help="Start a cluster of this kind, as Dask's configuration describes it.",
    ),
    "workers": grouped(
        "Cluster", "--workers", type=click.IntRange(1), help="Number of worker processes to start."
    ),
    "threads_per_worker": grouped(
        "Cluster", "--threads-per-worker", type=click.IntRange(1), help="Number of threads in each process."
    ),
    "memory_limit": grouped(
        "Cluster", "--memory-limit", metavar="SIZE", help='Memory of each process, such as "2GiB".'
    ),
    "scheduler": grouped(
        "Cluster", "--scheduler", metavar="ADDRESS", help="Use the running cluster at this address."
    ),
    "scheduler_file": grouped(
        "Cluster",
        "--scheduler-file",
        type=click.Path(dir_okay=False),
        help="Use the running cluster whose scheduler wrote this file.",
    ),
    "upload_package": grouped(
        "Cluster", "--upload-package", is_flag=True, help="Send dask_nmf to the workers that lack it."
    ),
}
metrics_file = grouped(
    "Log",
    "--metrics-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Replace this file after each pass by metrics for Prometheus (OpenMetrics text).",
)
LOG_OPTIONS = (
    grouped(
        "Log",
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Write the log for people, or as one JSON object a line.",
    ),
    grouped("Log", "--debug", is_flag=True, help="Show the traceback of an error."),
)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the log."""
    return _decorated(command, LOG_OPTIONS)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the cluster, with which the command is called as ``where``, and of the log."""

    @wraps(command)
    def called(**options: Any) -> Any:
        return command(where={name: options.pop(name) for name in CLUSTER_OPTIONS}, **options)

    return _decorated(called, [*CLUSTER_OPTIONS.values(), *LOG_OPTIONS])
