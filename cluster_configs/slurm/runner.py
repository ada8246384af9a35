"""`dask-nmf` with a scheduler and workers of its own in one job of SLURM: srun python runner.py fit ...

The first task of the step is the scheduler, the second the command, the others are workers.
"""

import logging
import os
import signal

import dask
from dask_jobqueue.slurm import SLURMRunner
from distributed import Client

from dask_nmf.cli.main import main

# In the processes of workers too, which import this file. SLURM sends SIGTERM to all: the command, with a
# handler of its own, stops in order and then ends scheduler and workers. What fails is raised in the command.
signal.signal(signal.SIGTERM, lambda number, frame: None)
logging.getLogger("distributed").setLevel(logging.CRITICAL)

if __name__ == "__main__":
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    memory = os.environ.get("SLURM_MEM_PER_CPU")  # MiB
    interface = dask.config.get("jobqueue.slurm.interface")
    with SLURMRunner(
        worker_class="distributed.Nanny",  # which replaces a worker that dies
        worker_options={
            "nthreads": threads,
            "memory_limit": f"{threads * int(memory)}MiB" if memory else "auto",
            "interface": interface,
            "death_timeout": 60,
        },
        scheduler_options={"interface": interface, "dashboard": False},
    ) as runner:
        with Client(runner.scheduler_address) as client:  # who comes when the command is done would stay
            client.wait_for_workers(runner.n_workers, timeout=600)
        dask.config.set({"scheduler-address": runner.scheduler_address})
        main()
