"""Job files: all options of a command in a TOML file, in place of V on the command line."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NamedTuple

import click

from dask_nmf.cli.options import Command
from dask_nmf.options.keywords import OTHER_NAMES
from dask_nmf.options.option import check, option_of, plain
from dask_nmf.options.settings import Settings

ENDING = ".toml"
PATHS = {"V", "weights", "W", "H", "fixed_W", "fixed_H"}  # keys of paths whose option takes any text
SIZES = {"cache", "memory_limit", "ranks"}  # keys of text that may be a whole number too
OF_COMMAND_LINE = {"help", "debug"}  # what a job cannot say


class Kind(NamedTuple):
    """A kind of values in TOML, and its name in an error."""

    types: tuple[type, ...]
    name: str


YES_OR_NO = Kind((bool,), "true or false")
WHOLE = Kind((int,), "a whole number")
NUMBER = Kind((int, float), "a number")
TEXT = Kind((str,), 'text, in quotes: "..."')
TEXT_OR_NUMBER = Kind((str, int, float), "text, in quotes, or a number")


class JobCommand(Command):
    """A command whose V may be a job file.

    Parameters
    ----------
    ignores : commands whose options a job may have, though this one only checks them.
    """

    def __init__(self, *args: Any, ignores: Sequence[click.Command] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.ignores = ignores

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; what they do not say comes from the job file, if V is one."""
        path = self._job_of(ctx, args)
        if path is None:
            return super().parse_args(ctx, args)
        job = read_job(path, self, self.ignores)
        if "V" not in job:
            raise ValueError(f'{path} does not say what V is; add a line such as V = "V.zarr"')
        ctx.default_map = {name: value for name, value in job.items() if name != "V"}
        rest = super().parse_args(ctx, args)
        ctx.params["matrix"] = job["V"]
        return rest

    def _job_of(self, ctx: click.Context, args: Sequence[str]) -> str | None:
        """Return the path of the job file that the arguments name; None if they name none."""
        try:
            found = self.make_parser(ctx).parse_args(args=list(args))[0]
        except click.UsageError:  # it is raised again, with what is meant
            return None
        matrix = found.get("matrix")
        is_job = isinstance(matrix, str) and matrix.lower().endswith(ENDING) and not found.get("help")
        return matrix if is_job else None


def read_job(path: str, command: click.Command, ignores: Sequence[click.Command]) -> dict[str, Any]:
    """Return the options in a job file, by the names of the parameters of a command, and V.

    Relative paths are relative to the folder of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not TOML, or has an unknown key, one key twice, or a value of another type than its option.
    """
    own, options = _options_by_key(command), _options_by_key(*ignores, command)
    job: dict[str, Any] = {}
    for key, value in _load(path).items():
        option = options.get(_normalized(key))
        if option is None or option.name is None:
            raise ValueError(f"{path}: {key} is no option of {command.name}; {_meant(key, value, options)}")
        name = "V" if option.name == "matrix" else option.name
        if name in job:
            raise ValueError(f"{path}: {key} is given under another name too; leave one of them out")
        value = _checked(f"{path}: {key}", value, option, name)
        is_path = name in PATHS or isinstance(option.type, click.Path)
        if is_path and not value:
            raise ValueError(f"{path}: {key} is empty; give a path, or leave it out")
        job[name] = _beside(path, value) if is_path else value
    used = {option.name for option in own.values()} | {"V"}
    _check_settings(path, {name: value for name, value in job.items() if name not in used})
    return {name: value for name, value in job.items() if name in used}


def _check_settings(path: str, unused: Mapping[str, Any]) -> None:
    """Refuse values of settings that a command has no use for, as a fit refuses them."""
    for setting in fields(Settings):
        if setting.name in unused:
            value = plain(unused[setting.name])
            check(f"{path}: {setting.name}", value, option_of(setting), setting.default is None)


def _load(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no job file {path}; give a path of V or of a .toml file") from None
    except ValueError as error:  # of the grammar, of the encoding, or about thousands of digits
        raise ValueError(f"{path} is not TOML: {error}") from None


def _options_by_key(*commands: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters of commands by all keys that a job may have for them; the last command wins."""
    keys: dict[str, click.Parameter] = {}
    for parameter in (one for command in commands for one in command.params):
        if parameter.name is None or parameter.name in OF_COMMAND_LINE:
            continue
        names = ["v"] if parameter.name == "matrix" else [parameter.name, *_long(parameter)]
        keys |= {_normalized(name): parameter for name in names}
    return keys


def _long(parameter: click.Parameter) -> list[str]:
    """Return the long flags of an option."""
    return [flag.lstrip("-") for flag in parameter.opts if flag.startswith("--")]


def _normalized(key: str) -> str:
    return key.lower().replace("-", "_")


def _meant(key: str, value: Any, options: Mapping[str, click.Parameter]) -> str:
    """Return what to write in place of an unknown key."""
    if isinstance(value, dict):
        return "options stand at the top of the file, below no heading"
    ours = OTHER_NAMES.get(key)
    meant = [ours] if ours in options else get_close_matches(_normalized(key), options, 1)
    return f"give {meant[0]}" if meant else f"it has {', '.join(sorted(options))}"


def _checked(where: str, value: Any, option: click.Parameter, name: str) -> Any:
    """Return a value as click takes it; raise `ValueError` if it is of another type than its option."""
    if name == "ranks" and isinstance(value, list) and all(type(rank) is int for rank in value):
        return ",".join(map(str, value))
    kind = _kind(option, name)
    if not isinstance(value, kind.types) or (isinstance(value, bool) and kind is not YES_OR_NO):
        raise ValueError(f"{where} is {value!r}; it must be {kind.name}")
    if kind is not WHOLE and isinstance(value, int) and not _is_float(value):
        raise ValueError(f"{where} has {len(str(abs(value)))} digits; it must be a number below 1e308")
    return str(value) if name in SIZES else value


def _is_float(value: int) -> bool:
    """Return whether a whole number is in the range of floats."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _kind(option: click.Parameter, name: str) -> Kind:
    """Return the kind of values that an option takes."""
    if isinstance(option, click.Option) and option.is_flag:
        return YES_OR_NO
    if isinstance(option.type, click.types.IntParamType):
        return WHOLE
    if isinstance(option.type, click.types.FloatParamType):
        return NUMBER
    return TEXT_OR_NUMBER if option.callback is not None or name in SIZES else TEXT


def _beside(job: str, path: str) -> str:
    """Return a path of a job, relative to the folder of the job file unless it is absolute or a URL."""
    folder = os.path.dirname(job)
    if not folder or "://" in path or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, path))
