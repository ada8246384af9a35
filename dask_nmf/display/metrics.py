"""A file of metrics in the OpenMetrics text format, replaced after each pass, for a node exporter."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from dask_nmf.display.lines import record_numbers, with_handler
from dask_nmf.display.load import LoadGauge

FAILED, INTERRUPTED, ENDED = "failed", "interrupted", "ended"  # outcomes beside those of a fit


class Metric(NamedTuple):
    """A metric, whose name has the prefix ``dask_nmf_``, its unit, and the suffix of its kind."""

    help: str
    kind: str = "gauge"
    unit: str = ""


METRICS = {
    "running": Metric("Whether the command is at work: 1, or 0 when it has ended."),
    "outcome": Metric("Why the command ended, as a label: 1."),
    "start_timestamp_seconds": Metric("Time at which the command began.", unit="seconds"),
    "last_commit_timestamp_seconds": Metric("Time of the commit of the last pass.", unit="seconds"),
    "panels": Metric("Number of panels or blocks of V."),
    "pass_number": Metric("Number of the last pass of the fit."),
    "passes": Metric("Passes that this command has made.", "counter"),
    "relative_error_ratio": Metric("Relative error after the last pass.", unit="ratio"),
    "validation_error": Metric("Error of the held-out entries before the last pass."),
    "pass_duration_seconds": Metric("Time of the last pass.", unit="seconds"),
    "remaining_seconds": Metric("Time until the largest number of passes, at most.", unit="seconds"),
    "read_bytes": Metric("Bytes of V, in memory, that passes of this command have read.", "counter", "bytes"),
    "read_bytes_per_second": Metric("Bytes of V, in memory, that the last pass read each second."),
    "models": Metric("Number of models that share each read."),
    "models_running": Metric("Number of these models that have not ended."),
    "workers": Metric("Number of workers; 1 without a cluster."),
    "memory_bytes": Metric("Memory of all workers, or the peak of this process.", unit="bytes"),
    "restarts": Metric("Reads of V that began again because workers were lost.", "counter"),
}
OF_NUMBERS = {  # metrics by their keys in the numbers of an event
    "pass": "pass_number",
    "relative_error": "relative_error_ratio",
    "validation_error": "validation_error",
    "seconds": "pass_duration_seconds",
    "seconds_left_at_most": "remaining_seconds",
    "models": "models",
    "running": "models_running",
}


class MetricsFile(logging.Handler):
    """A handler that keeps a file of metrics up to date with the log of this package.

    Parameters
    ----------
    path : of the file.
    run : the value of the label ``run``, by which files of several commands differ.
    """

    def __init__(self, path: str, run: str) -> None:
        super().__init__()
        self.path = path
        self.run = run
        self.outcome: str | None = None
        self.values: dict[str, float] = {
            "running": 1,
            "start_timestamp_seconds": time.time(),
            "passes": 0,
            "read_bytes": 0,
            "restarts": 0,
        }
        self._pass_bytes = 0
        self._load = LoadGauge()
        self.write()

    def emit(self, record: logging.LogRecord) -> None:
        """Take what a record says; the file is replaced after a pass."""
        numbers = record_numbers(record)
        event = numbers.get("event")
        if event == "plan":
            self.values["panels"], self._pass_bytes = numbers["panels"], numbers["bytes"]
        elif event == "retry":
            self.values["restarts"] += 1
        elif event in ("done", "finished"):
            self.outcome = numbers.get("outcome")
            self._take({name: numbers.get(name) for name in ("relative_error", "pass")})
        elif event in ("pass", "shared pass"):
            self._pass_done(numbers, record.created)

    def _pass_done(self, numbers: Mapping[str, Any], now: float) -> None:
        self._take(numbers)
        self.values["passes"] += 1
        self.values["read_bytes"] += self._pass_bytes
        self.values["read_bytes_per_second"] = self._pass_bytes / max(numbers["seconds"], 1e-9)
        self.values["last_commit_timestamp_seconds"] = now
        self.values["workers"], self.values["memory_bytes"] = self._load.read()
        try:
            self.write()
        except OSError as error:  # the fit is worth more than its metrics
            warnings.warn(f"metrics are not written: {error}", stacklevel=2)

    def _take(self, numbers: Mapping[str, Any]) -> None:
        """Set the metrics that are among the numbers of an event."""
        known = {key: value for key, value in numbers.items() if key in OF_NUMBERS and value is not None}
        self.values |= {OF_NUMBERS[key]: value for key, value in known.items()}

    def end(self, outcome: str) -> None:
        """Write the file for the last time, with the outcome of the command."""
        self.outcome = outcome
        self.values |= {"running": 0, "remaining_seconds": 0}
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Replace the file; whoever reads it sees the old one or the new one."""
        text = exposition(self.values, self.run, self.outcome)
        folder, name = os.path.split(os.path.realpath(self.path))
        new = os.path.join(folder, f".{name}.{os.getpid()}.new")
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(new, os.path.join(folder, name))
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise


def exposition(values: Mapping[str, float], run: str, outcome: str | None) -> str:
    """Return metrics in the OpenMetrics text format, which Prometheus' older text format reads too."""
    lines = []
    for name, metric in METRICS.items():
        labels = f'run="{_escaped(run)}"'
        value = values.get(name)
        if name == "outcome" and outcome is not None:
            value, labels = 1, f'{labels},outcome="{_escaped(outcome)}"'
        if value is None:
            continue
        full = f"dask_nmf_{name}"
        lines += [f"# HELP {full} {metric.help}", f"# TYPE {full} {metric.kind}"]
        lines += [f"# UNIT {full} {metric.unit}"] if metric.unit else []
        lines.append(f"{full}{'_total' * (metric.kind == 'counter')}{{{labels}}} {value!r}")
    return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@contextmanager
def writing_metrics(path: str | None, run: str) -> Iterator[None]:
    """Keep a file of metrics up to date meanwhile, if a path is given; it stays, with the outcome.

    Raises
    ------
    FileNotFoundError, OSError
        If its folder is not there; if the file cannot be written at the start.
    """
    if path is None:
        yield
        return
    if not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise FileNotFoundError(
            f"there is no folder for the metrics file {path}; make it, or give another path (--metrics-file)"
        )
    file = MetricsFile(path, run)
    with with_handler(logging.getLogger("dask_nmf"), file):
        try:
            yield
        except BaseException as error:
            file.end(FAILED if isinstance(error, Exception) else INTERRUPTED)
            raise
        file.end(file.outcome or ENDED)
