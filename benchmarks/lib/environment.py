"""The machine that a benchmark runs on, and the peak memory of its processes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_info

PACKAGES = ("numpy", "scipy", "scikit-learn", "numba", "dask", "zarr")


def describe(packages: tuple[str, ...] = PACKAGES) -> str:
    """Return the cores, memory, BLAS and versions in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = {f"{pool['internal_api']} {pool['version']}" for pool in pools}
    parts = [
        f"{CPU_COUNT} cores of {models[0] if models else platform.machine()}",
        f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        *sorted(blas),
        f"Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in packages),
    ]
    return ", ".join(parts)


def peak_memory(pid: int) -> float:
    """Return the peak resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def total_peak_memory() -> float:
    """Return the sum of the peaks of this process and of its children that still run, MB."""
    children = psutil.Process().children(recursive=True)
    running = [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return sum(peak_memory(pid) for pid in (os.getpid(), *running))
