"""A fit outlives a worker that held a part of V."""

import os
import signal
import threading

import dask
import numpy as np
from distributed import Client, LocalCluster
from support.matrices import low_rank

from dask_nmf import nmf
from dask_nmf.iteration.loop import Step


def test_a_fit_outlives_a_worker_that_held_v(several_panels: None) -> None:
    v = low_rank(200, 15, 3, noise=1)
    asked = {"solver": "mu", "max_iter": 12, "tol": 0}
    with dask.config.set(scheduler="synchronous"):
        undisturbed = nmf(v, 3, **asked)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "5s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, timeout=60) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))

        timer = threading.Timer(0.05, os.kill, (victim, signal.SIGKILL))

        def kill(step: Step) -> None:
            if step.number == 2:
                timer.start()
            elif step.number == 11:
                timer.join()  # or the worker would be killed after the fit on a busy machine

        disturbed = nmf(v, 3, callback=kill, **asked)
        np.testing.assert_allclose(disturbed.W, undisturbed.W, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(disturbed.error_history, undisturbed.error_history, rtol=1e-9)
