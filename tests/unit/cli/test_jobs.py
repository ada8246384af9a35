"""Job files: a command whose options are in a TOML file is the command with these options."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import zarr
from support.command import Forks

import dask_nmf
from dask_nmf.cli.inputs import plan
from dask_nmf.cli.models import fit, select

VALUES = {  # for options whose values cannot be made from their type
    "n_components": 4, "beta_loss": "itakura-saito", "alpha_H": 0.5, "output": "run.zarr", "cache": "1GiB",
    "memory_limit": "2GiB", "ranks": "2:4", "figures": "figures", "max_iter": 7,
}  # fmt: skip


def parsed(command: click.Command, *words: object) -> Mapping[str, Any]:
    """Return the parameters that a command would be called with."""
    assert command.name is not None
    return command.make_context(command.name, [str(word) for word in words]).params


def value_of(option: click.Option) -> Any:
    """Return a value for an option that is not its default."""
    if option.name in VALUES:
        return VALUES[option.name]
    if option.is_flag:
        return True
    if isinstance(option.type, click.Choice):
        return option.type.choices[-1]
    return {"integer": 3, "integer range": 3, "float": 0.25}.get(option.type.name, "some/path")


def every_option(command: click.Command) -> dict[str, tuple[str, Any]]:
    """Return the long flag and a value of each option that a job may have, by its key."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.name != "debug"]
    flags = {max(one.opts, key=len): value_of(one) for one in options}
    return {flag.lstrip("-").replace("-", "_"): (flag, value) for flag, value in flags.items()}


def write(path: Path, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items()))
    return path


@pytest.mark.parametrize("command", [fit.command, select.command, plan.command], ids=lambda one: one.name)
def test_every_option_can_come_from_a_file(command: click.Command, tmp_path: Path) -> None:
    options = every_option(command)
    words = [
        word for flag, value in options.values() for word in ([flag] if value is True else [flag, value])
    ]
    job = write(
        tmp_path / "job.toml", V="s3://bucket/v.zarr", **{key: one for key, (_, one) in options.items()}
    )
    from_file, given = parsed(command, job), parsed(command, "s3://bucket/v.zarr", *words)
    paths = {name for name, value in from_file.items() if value != given[name]}
    assert {name: from_file[name] for name in paths} == {name: str(tmp_path / given[name]) for name in paths}
    assert paths == {
        option.name
        for option in command.params
        if isinstance(option.type, click.Path) or option.name in ("weights", "W", "H", "fixed_W", "fixed_H")
    }


def test_the_command_line_wins_and_names_of_python_are_known(tmp_path: Path) -> None:
    job = write(tmp_path / "job.toml", v="v.zarr", n_components=3, **{"max-iter": 9, "alpha_W": 1, "tol": 0})
    given = parsed(fit.command, job, "--max-iter", 5, "-o", "elsewhere.zarr", "--tol", 0.5)
    expected = {"n_components": 3, "max_iter": 5, "alpha_W": 1.0, "tol": 0.5, "output": "elsewhere.zarr"}
    assert {name: given[name] for name in expected} == expected
    assert given["matrix"] == str(tmp_path / "v.zarr")
    ranks = write(tmp_path / "ranks.toml", V="/abs/v.zarr", ranks=[2, 4, 8], output="s.zarr")
    assert parsed(select.command, ranks)["ranks"] == "2,4,8"
    assert parsed(select.command, ranks)["matrix"] == "/abs/v.zarr"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "jobs" / "job.toml", V="../v.zarr", output="run.zarr", rank=3)
    monkeypatch.chdir(tmp_path)
    assert parsed(fit.command, "jobs/job.toml")["matrix"] == "v.zarr"
    assert parsed(fit.command, "jobs/job.toml")["output"] == "jobs/run.zarr"
    monkeypatch.chdir(tmp_path / "jobs")
    assert parsed(fit.command, "job.toml")["output"] == "run.zarr"


def test_plan_takes_the_job_of_a_fit(tmp_path: Path) -> None:
    job = write(tmp_path / "job.toml", V="v.zarr", output="run.zarr", rank=3, tol=0.1, max_iter=2)
    assert parsed(plan.command, job)["n_components"] == 3
    assert set(parsed(plan.command, job)) == set(parsed(plan.command, "v.zarr", "-k", 3))
    named = write(tmp_path / "named.toml", V="v.zarr", output="run.zarr", n_components=3)
    assert parsed(plan.command, named)["n_components"] == 3
    with pytest.raises(ValueError, match="rnak is no option of plan; give rank"):
        parsed(plan.command, write(tmp_path / "bad.toml", V="v.zarr", rnak=3))


REFUSED = {
    "unknown": ('rnak = 3\nV = "v"', "rnak is no option of fit; give rank"),
    "of another package": ('k_means = 3\nepochs = 3\nV = "v"', "k_means is no option of fit; it has alpha_h"),
    "another name": ('epochs = 3\nV = "v"', "epochs is no option of fit; give max_iter"),
    "debug": ('debug = true\nV = "v"', "debug is no option of fit"),
    "text": ('rank = "3"\nV = "v"', "rank is '3'; it must be a whole number"),
    "fraction": ('rank = 3.5\nV = "v"', "rank is 3.5; it must be a whole number"),
    "truth": ('tol = true\nV = "v"', "tol is True; it must be a number"),
    "number": ("output = 3\nV = 'v'", "output is 3; it must be text, in quotes"),
    "yes": ("overwrite = 1\nV = 'v'", "overwrite is 1; it must be true or false"),
    "date": ("beta_loss = 2024-01-01\nV = 'v'", "beta_loss is .*; it must be text, in quotes, or a number"),
    "twice": ("rank = 3\nn_components = 3\nV = 'v'", "n_components is given under another name too"),
    "empty file": ("metrics_file = ''\nV = 'v'", "metrics_file is empty; give a path, or leave it out"),
    "empty weights": ("weights = ''\nV = 'v'", "weights is empty; give a path, or leave it out"),
    "large": (f"tol = 1{'0' * 400}\nV = 'v'", "tol has 401 digits; it must be a number below 1e308"),
    "very large": (f"tol = 1{'0' * 5000}\nV = 'v'", "is not TOML: .*4300 digits"),
    "heading": ("[fit]\nrank = 3", "options stand at the top of the file"),
    "no V": ("rank = 3", 'does not say what V is; add a line such as V = "V.zarr"'),
    "no TOML": ("rank: 3", "is not TOML: .*line 1"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_job_is_refused(text: str, message: str, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        parsed(fit.command, job)
    assert str(job) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_components = 3\nrank = 3", "rank is given under another name too"),
        ("rank = 3\ntol = nan", "tol is nan; it must be a number ≥ 0"),
        ("rank = 3\noverwrite = 'yes'", "overwrite is 'yes'; it must be true or false"),
        ("n_compoments = 3", "n_compoments is no option of plan; give n_components"),
        ("rank = 3\nbatch_sise = 3", "batch_sise is no option of plan; give batch_size"),
    ],
)
def test_plan_refuses_the_job_that_a_fit_refuses(text: str, message: str, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'V = "v.zarr"\n{text}\n')
    with pytest.raises(ValueError, match=message):
        parsed(plan.command, job)


def test_a_job_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no job file"):
        parsed(fit.command, tmp_path / "job.toml")
    with pytest.raises(click.UsageError, match="Missing parameter: output"):
        parsed(fit.command, write(tmp_path / "job.toml", V="v.zarr", rank=3))
    with pytest.raises(click.UsageError, match="Did you mean '--rank'"):
        parsed(fit.command, tmp_path / "job.toml", "--n-components", 3)


def test_a_run_from_a_file_is_that_of_the_command_line(forks: Forks, v: np.ndarray, tmp_path: Path) -> None:
    options = {"rank": 3, "max_iter": 2, "tol": 0, "seed": 7}
    write(tmp_path / "jobs" / "job.toml", V="../v.zarr", output="run.zarr", **options)
    done = forks.call(["fit", "jobs/job.toml"], tmp_path)
    assert done.returncode == 0, done.stderr
    words = ["-k", 3, "--max-iter", 2, "--tol", 0, "--seed", 7]
    again = forks.call(["fit", "v.zarr", "-o", "jobs/run.zarr", *words], tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is finished already" in again.stderr
    assert again.stdout == done.stdout
    (environment,) = dask_nmf.Run.load(tmp_path / "jobs" / "run.zarr").summary()["environments"]
    assert environment["from_pass"] == 0
    assert environment["versions"]["zarr"] == zarr.__version__
    assert environment["versions"]["python"] == platform.python_version()
    assert environment["workers"] == 1
    assert environment["threads"] > 0
    assert "  zarr: " in forks.call(["info", "jobs/run.zarr"], tmp_path).stdout
