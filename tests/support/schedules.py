"""The files of the schedules that are shipped, and what stands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster_configs" / "schedules"
CRON, SERVICE, TIMER, DAG = (
    FOLDER / name for name in ("dask-nmf.cron", "dask-nmf.service", "dask-nmf.timer", "airflow_dag.py")
)
RANK = 20  # of all of them


def cron_line() -> str:
    (line,) = re.findall(r"^\d.*$", CRON.read_text(), re.MULTILINE)
    return str(line)


def unit(name: str) -> str:
    """The value of a setting of the service."""
    (value,) = re.findall(rf"^{name}=(.*)$", SERVICE.read_text(), re.MULTILINE)
    return str(value)
