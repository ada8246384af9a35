"""The example schedules in cluster_configs, and their settings."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster_configs" / "schedules"
CRON, SERVICE, TIMER, DAG = (
    FOLDER / name for name in ("dask-nmf.cron", "dask-nmf.service", "dask-nmf.timer", "airflow_dag.py")
)
RANK = 20  # the rank that all of them name


def cron_line() -> str:
    (line,) = re.findall(r"^\d.*$", CRON.read_text(), re.MULTILINE)
    return str(line)


def unit(name: str) -> str:
    """Return the value of a setting of the systemd service."""
    (value,) = re.findall(rf"^{name}=(.*)$", SERVICE.read_text(), re.MULTILINE)
    return str(value)
