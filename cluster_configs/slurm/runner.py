"""`dask-nmf` with a scheduler and workers of its own in one job of SLURM: srun python runner.py fit ...

The first task of the step is the scheduler, the second the command, the others are workers.
"""

import os
import signal

import dask
from dask_jobqueue.slurm import SLURMRunner

from dask_nmf.cli import main

if __name__ == "__main__":
    # SLURM sends SIGTERM to all tasks. The command stops in order, and then ends scheduler and workers.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
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
        dask.config.set({"scheduler-address": runner.scheduler_address})
        main()
