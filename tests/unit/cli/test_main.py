"""The command: fit, info, transform and again, with all that they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.command import Run, assert_refused

from dask_nmf import __version__, nmf, transform


def test_fit_info_transform_and_again(dask_nmf: Run, v: np.ndarray, tmp_path: Path) -> None:
    done = dask_nmf("fit", "v.zarr", "--rank", 4, "--output", "run.zarr", "--max-iter", 5, own=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run.zarr: relative error 0.0")
    run = zarr.open_group(tmp_path / "run.zarr", mode="r")
    W, H = run["W"][:], run["H"][:]
    error = np.linalg.norm(v - W @ H) / np.linalg.norm(v)

    told = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)
    assert told["state"] == "finished"
    assert told["relative_error"] == pytest.approx(error, rel=1e-9)
    assert told["passes"] == len(told["error_history"])
    assert_aligned(dask_nmf("info", "run.zarr").stdout.splitlines(), told)

    before = (tmp_path / "run.zarr" / "zarr.json").stat().st_mtime_ns
    again = dask_nmf("fit", "v.zarr", "--rank", 4, "--output", "run.zarr", "--max-iter", 5)
    assert again.returncode == 0
    assert "finished already" in again.stderr
    assert again.stdout == done.stdout
    assert (tmp_path / "run.zarr" / "zarr.json").stat().st_mtime_ns == before

    told = dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr")
    assert told.returncode == 0, told.stderr
    np.testing.assert_allclose(zarr.open_group(tmp_path / "w.zarr", mode="r")["W"][:], W, atol=1e-5)
    assert dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr").returncode == 2
    replaced = dask_nmf("transform", "run.zarr", "v.zarr", "--output", "w.zarr", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"v.zarr", "run.zarr", "w.zarr"}
    of_run, of_w = told_of(dask_nmf, "run.zarr"), told_of(dask_nmf, "w.zarr")
    assert of_w == {
        "transform": str(tmp_path / "w.zarr"),
        "state": "finished",
        "run": str(tmp_path / "run.zarr"),
        "source": str(tmp_path / "v.zarr"),
        "shape": [300, 4],
        "dtype": "float64",
        "n_components": 4,
        "version": __version__,
        "settings": {name: of_run["settings"][name] for name in of_w["settings"]},
    }
    assert set(of_w["settings"]) == {"beta_loss", "missing", "alpha_W", "l1_ratio"}
    lines = dask_nmf("info", "w.zarr").stdout.splitlines()
    assert [line.strip().split(":")[0] for line in lines] == [*of_w, *of_w["settings"]]


def told_of(dask_nmf: Run, path: str) -> dict[str, Any]:
    """What info says of a run or another output."""
    told: dict[str, Any] = json.loads(dask_nmf("info", path, "--json").stdout)
    return told


def _names(told: dict[str, Any]) -> Iterator[str]:
    """Yield names of values, each before those of the values inside of it."""
    for name, value in told.items():
        yield name
        yield from _names(value) if isinstance(value, dict) else ()


def assert_aligned(lines: list[str], told: dict[str, Any]) -> None:
    """Each value of a run stands on a line of its own, and all of them begin at one column."""
    pairs = [line.strip().split(":", 1) for line in lines]
    told = {**told, "environment": told["environments"][-1]}  # people see that of the last passes, last
    del told["environments"]
    assert [name for name, _ in pairs] == list(_names(told))
    shown = dict(pairs[::-1])
    assert float(shown["relative_error"]) == pytest.approx(told["relative_error"], rel=1e-5)
    losses = [float(loss) for loss in shown["error_history"].split("(")[0].split()]
    assert losses == pytest.approx(told["error_history"][-5:], rel=1e-5)
    assert shown["shape"].strip() == "300 x 40"
    assert shown["validation_error"].strip() == shown["missing"].strip() == "-"
    assert shown["n_components"].strip() == "4"
    columns = {len(line) - len(line.split(":", 1)[1].lstrip()) for line in lines if not line.endswith(":")}
    assert len(columns) == 1


def test_another_fit_on_the_same_output_is_refused_unless_it_may_overwrite(
    dask_nmf: Run, v: np.ndarray, tmp_path: Path
) -> None:
    fit = ["fit", "v.zarr", "--output", "run.zarr", "--max-iter", 2]
    assert dask_nmf(*fit, "--rank", 3).returncode == 0
    refused = dask_nmf(*fit, "--rank", 4, "--seed", 1)
    assert_refused(
        refused,
        2,
        "n_components is 4, the run has 3",
        "random_state is 1",
        folder=tmp_path,
        left={"v.zarr", "run.zarr"},
    )
    assert dask_nmf(*fit, "--rank", 4, "--overwrite").returncode == 0
    assert zarr.open_group(tmp_path / "run.zarr", mode="r")["H"].shape == (4, 40)


def test_json_lines(dask_nmf: Run, v: np.ndarray) -> None:
    done = dask_nmf(
        "fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--max-iter", 3, "--tol", 0, "--log-format", "json"
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    passes = [line for line in lines if line["event"] == "pass"]
    assert [line["pass"] for line in passes] == [1, 2, 3]
    assert all(line["relative_error"] > 0 and line["seconds"] > 0 for line in passes)


def test_the_best_of_several_starts_is_kept(dask_nmf: Run, v: np.ndarray) -> None:
    asked = {"init": "random", "max_iter": 3, "n_init": 3, "random_state": 2}
    words = (word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value))
    options = ["--seed" if word == "--random-state" else word for word in words]
    done = dask_nmf("fit", "v.zarr", "-k", 4, "-o", "run.zarr", *options, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    objectives = nmf(v, 4, **asked).objectives  # type: ignore[arg-type]
    assert objectives is not None
    assert f"; starts: 3, objective {objectives.min():.6g} to {objectives.max():.6g}, " in done.stdout
    (event,) = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "starts"]
    described = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)["starts"]
    assert described == {name: event[name] for name in ("objectives", "kept")}
    np.testing.assert_allclose(described["objectives"], objectives, rtol=1e-9)
    assert "objectives:" in dask_nmf("info", "run.zarr").stdout


def test_convergence_can_be_required(dask_nmf: Run, v: np.ndarray) -> None:
    fit = ["fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--max-iter", 2, "--require-convergence"]
    assert dask_nmf(*fit, "--tol", 0).returncode == 4
    assert dask_nmf(*fit, "--tol", 0.9, "--overwrite").returncode == 0


def test_missing_weighted_and_held_out_entries(dask_nmf: Run, holes: np.ndarray, tmp_path: Path) -> None:
    words = ["--missing", "nan", "--weights", "weights.npy", "--validation-fraction", 0.1]
    words += ["--alpha-w", 0.01, "--alpha-h", 0.02, "--max-iter", 4]
    done = dask_nmf("fit", "holes.zarr", "-k", 3, "-o", "run.zarr", *words)
    assert done.returncode == 0, done.stderr
    same = nmf(
        holes,
        3,
        missing="nan",
        weights=np.load(tmp_path / "weights.npy"),
        validation_fraction=0.1,
        alpha_W=0.01,
        alpha_H=0.02,
        max_iter=4,
    )
    assert f", held out {same.validation_error:.6g}, after {same.n_iter} passes" in done.stdout
    told = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)
    assert told["validation_error"] == pytest.approx(same.validation_error, rel=1e-6)
    assert (told["unobserved_rows"], told["unobserved_columns"]) == (0, 0)

    told = dask_nmf("transform", "run.zarr", "holes.zarr", "--output", "w.zarr")
    assert told.returncode == 0, told.stderr
    H = zarr.open_group(tmp_path / "run.zarr", mode="r")["H"][:]
    expected = transform(holes, H, missing="nan", alpha_W=0.01)
    np.testing.assert_allclose(zarr.open_group(tmp_path / "w.zarr", mode="r")["W"][:], expected, rtol=1e-6)


def test_sgd_and_an_error_that_is_enough(dask_nmf: Run, v: np.ndarray) -> None:
    words = ["--solver", "sgd", "--schedule", "bold-driver", "--learning-rate", 1e-3, "--batch-size", 8]
    words += ["--stop-below", np.linalg.norm(v) / 4, "--require-convergence"]
    done = dask_nmf("fit", "v.zarr", "-k", 4, "-o", "run.zarr", *words)
    assert done.returncode == 0, done.stderr
    assert "is below" in done.stdout
    settings = json.loads(dask_nmf("info", "run.zarr", "--json").stdout)["settings"]
    asked = {"solver": "sgd", "schedule": "bold-driver", "learning_rate": 1e-3, "batch_size": 8}
    assert asked.items() <= settings.items()


@pytest.mark.parametrize("name", ["W", "H"])
def test_factors_are_given_as_paths(dask_nmf: Run, v: np.ndarray, tmp_path: Path, name: str) -> None:
    first = nmf(v, 4, max_iter=2)
    np.save(tmp_path / "known.npy", np.asarray(getattr(first, name)))
    fit, key = ("fit", "v.zarr", "--rank", 4), name.lower()
    assert dask_nmf(*fit, "-o", "run.zarr", f"--fixed-{key}", "known.npy").returncode == 0
    expected = nmf(v, 4, **{f"fixed_{name}": getattr(first, name).compute()})
    for found in ("W", "H"):
        stored = zarr.open_array(tmp_path / "run.zarr" / found, mode="r")[:]
        np.testing.assert_allclose(stored, getattr(expected, found), rtol=1e-6)
    go_on = dask_nmf(*fit, "-o", "next.zarr", f"--{key}", f"run.zarr/{name}", "--max-iter", 1)
    assert go_on.returncode == 0
    wrong = dask_nmf(*fit, "-o", "x.zarr", f"--fixed-{key}", "v.zarr")
    left = {"v.zarr", "known.npy", "run.zarr", "next.zarr"}
    assert_refused(wrong, 2, f"fixed_{name} has shape (300, 40)", folder=tmp_path, left=left)
