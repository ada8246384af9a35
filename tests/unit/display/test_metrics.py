"""The file of metrics, read by the parsers of Prometheus' own client."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.command import Forks
from support.matrices import low_rank

from dask_nmf import nmf, select_rank
from dask_nmf.display import lines
from dask_nmf.display.load import Load, LoadGauge
from dask_nmf.display.metrics import METRICS, writing_metrics
from dask_nmf.iteration.loop import Step

V = low_rank(60, 12, 3, noise=1)


@pytest.fixture(autouse=True)
def logged() -> Any:
    """The log of the package, as a command has it."""
    with lines.logging_to_terminal("text", terminal=False):
        yield


def values(path: Path) -> dict[str, float]:
    """Return the samples of a file by their names without the prefix, as both parsers read them."""
    text = path.read_text()
    strict = [one for family in openmetrics.text_string_to_metric_families(text) for one in family.samples]
    older = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert [one[:3] for one in strict] == [one[:3] for one in older]
    assert {one.labels["run"] for one in strict} == {'a "run"\\\nof two lines'}
    return {one.name.removeprefix("dask_nmf_"): one.value for one in strict}


def write(path: Path, call: Callable[[], Any]) -> dict[str, float]:
    with writing_metrics(str(path), 'a "run"\\\nof two lines'):
        call()
    return values(path)


def outcome(path: Path) -> str:
    """Return the label of the outcome."""
    families = openmetrics.text_string_to_metric_families(path.read_text())
    (sample,) = next(family.samples for family in families if family.name == "dask_nmf_outcome")
    return sample.labels["outcome"]


def test_the_file_follows_the_passes_and_stays_with_the_outcome(tmp_path: Path) -> None:
    path, seen, steps = tmp_path / "fit.prom", [], []

    def follow(step: Step) -> None:
        seen.append(values(path))
        steps.append(step)

    began = time.time()
    last = write(path, lambda: nmf(V, 3, tol=0, max_iter=3, validation_fraction=0.2, callback=follow))
    assert [one["pass_number"] for one in seen] == [1, 2, 3]
    assert [one["passes_total"] for one in seen] == [1, 2, 3]
    assert [one["read_bytes_total"] for one in seen] == [V.nbytes, 2 * V.nbytes, 3 * V.nbytes]
    for one, step in zip(seen, steps, strict=True):
        assert one["relative_error_ratio"] == step.relative_error
        assert one["validation_error"] == step.validation_error
        assert one["pass_duration_seconds"] == pytest.approx(step.seconds, abs=1e-3)
        assert began <= one["start_timestamp_seconds"] <= one["last_commit_timestamp_seconds"] <= time.time()
        assert (one["running"], one["workers"], one["restarts_total"]) == (1, 1, 0)
        assert one["memory_bytes"] > 2**20
    assert (last["running"], last["pass_number"], last["outcome"]) == (0, 3, 1)
    assert outcome(path) == "max_iter"
    assert os.listdir(tmp_path) == ["fit.prom"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()  # a node exporter of another user reads it


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_models_that_share_reads_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "select.prom"
    told = write(path, lambda: select_rank(V, "2:3", n_init=2, holdout=0.1, max_iter=2, tol=0))
    assert (told["models"], told["models_running"]) == (4, 0)
    assert told["passes_total"] == 4  # two of the models, and two of the final fit
    assert outcome(path) == "max_iter"
    starts = write(tmp_path / "starts.prom", lambda: nmf(V, 3, tol=0, max_iter=2, n_init=3))
    assert (starts["models"], starts["passes_total"]) == (3, 2)


def test_a_finished_fit_keeps_its_outcome_and_error(tmp_path: Path) -> None:
    path = tmp_path / "fit.prom"
    first, again = (
        write(path, lambda: nmf(V, 3, tol=0, max_iter=2, store=tmp_path / "run.zarr")) for _ in range(2)
    )
    assert outcome(path) == "max_iter"
    assert again["relative_error_ratio"] == pytest.approx(first["relative_error_ratio"], rel=1e-6)
    assert (again["pass_number"], again["passes_total"], again["running"]) == (2, 0, 0)


@pytest.mark.parametrize(
    ("error", "label"), [(ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_the_outcome_of_a_command_that_fails_is_kept(
    error: BaseException, label: str, tmp_path: Path
) -> None:
    def fail(step: Any) -> None:
        raise error

    path = tmp_path / "fit.prom"
    with pytest.raises(type(error)):
        write(path, lambda: nmf(V, 3, callback=fail))
    assert outcome(path) == label
    assert values(path)["running"] == 0


def test_reads_that_begin_again_are_counted(tmp_path: Path) -> None:
    def lose() -> None:
        logging.getLogger("dask_nmf.test").warning("again", extra={"nmf": {"event": "retry", "attempt": 1}})

    assert write(tmp_path / "fit.prom", lose)["restarts_total"] == 1
    assert outcome(tmp_path / "fit.prom") == "ended"


def test_a_fit_goes_on_if_the_file_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with writing_metrics(str(folder / "fit.prom"), "run"):
        folder.rename(tmp_path / "elsewhere")
        with pytest.warns(UserWarning, match="metrics are not written"):
            assert nmf(V, 3, tol=0, max_iter=1).n_iter == 1


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, metric in METRICS.items():
        assert name.endswith(metric.unit), name
        assert not name.endswith("_total"), name  # which the file adds to counters
        assert metric.help.endswith(".")
        assert metric.kind in ("gauge", "counter")


def test_the_load_is_asked_for_now_and_then(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge, calls = LoadGauge(), []
    monkeypatch.setattr("dask_nmf.display.load.call_watched", lambda call: calls.append(1) or call())
    assert [gauge.read().workers for _ in range(3)] == [2, 2, 2]
    assert calls == [1]
    assert gauge.text.startswith("2 workers, ")
    lost = LoadGauge()
    monkeypatch.setattr("dask_nmf.display.load.call_watched", lambda call: 1 / 0)
    assert lost.read() == Load(1, 0)


def test_a_command_writes_metrics(forks: Forks, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "v.zarr", data=np.asarray(V), chunks=(20, 12))
    fit = ["fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--max-iter", 2, "--tol", 0]
    done = forks.call([*fit, "--metrics-file", "fit.prom"], tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "fit.prom").read_text()
    assert 'dask_nmf_pass_number{run="run.zarr"} 2\n' in text
    assert 'dask_nmf_outcome{run="run.zarr",outcome="max_iter"} 1\n' in text
    assert text.endswith("# EOF\n")
    refused = forks.call([*fit, "--metrics-file", "no/fit.prom"], tmp_path)
    assert refused.returncode == 2
    assert "there is no folder for the metrics file no/fit.prom" in refused.stderr
