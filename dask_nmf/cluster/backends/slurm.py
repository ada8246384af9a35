"""A cluster whose workers are jobs of SLURM."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from dask_nmf.cluster.backends.startup import import_optional, start_cluster
from dask_nmf.cluster.config import ClusterSpec


@contextmanager
def slurm_cluster(spec: ClusterSpec) -> Iterator[Client]:
    """Start a scheduler in this process, and workers that are jobs of SLURM, as ``jobqueue.slurm`` says.

    A job that ends before the command does is submitted again.

    Raises
    ------
    ValueError, NoWorkers
        If the configuration or SLURM does not allow such jobs; if the cluster cannot start.
    """
    if spec.threads_per_worker or spec.memory_limit:
        raise ValueError(
            "--threads-per-worker and --memory-limit are not of --cluster slurm; jobqueue.slurm in Dask's "
            "configuration has cores, processes and memory"
        )
    if spec.workers is None:
        raise ValueError("--cluster slurm needs the number of workers; give --workers or dask_nmf.workers")
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--cluster slurm needs sbatch, which is not found; run this where jobs are submitted"
        )
    handler = signal.getsignal(signal.SIGINT)
    jobqueue = import_optional("dask_jobqueue", "slurm")
    signal.signal(signal.SIGINT, handler)  # importing dask_jobqueue replaces the handler
    with start_cluster("slurm", jobqueue.SLURMCluster) as cluster:
        _check_job(cluster.job_script())
        cluster.adapt(minimum=spec.workers, maximum=spec.workers)  # scale() would not replace a lost job
        with Client(cluster) as client:
            yield client


def _check_job(script: str) -> None:
    """Refuse a job that SLURM does not accept, with its reason."""
    test = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False
    )
    if test.returncode:
        raise ValueError(f"SLURM takes no such job: {test.stderr.strip()}; see jobqueue.slurm")
