"""The threads of BLAS, which fits and their tasks limit."""

import time

from threadpoolctl import threadpool_info

from dask_nmf.execution.tasks import blas

PATIENCE = 60  # seconds


def blas_threads() -> set[int]:
    """Return the numbers of threads of the BLAS libraries of this process."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def wait_until_unlimited() -> None:
    """Return when no fit and no task limits BLAS; tasks of a pass that failed may run on for a while."""
    deadline = time.monotonic() + PATIENCE
    while blas._blas._users:
        assert time.monotonic() < deadline, "a fit or a task still limits BLAS"
        time.sleep(0.01)
