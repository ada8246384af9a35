"""A DAG for Airflow 3: a fit every night, as far as it gets in four hours.

Put it into the folder of DAGs. The command runs where the worker of Airflow does, in an environment of its
own, as Airflow asks for certain versions of packages.
"""

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

# Yours: the command, the folder, V, the rank, the memory.
COMMAND = "/opt/dask-nmf/bin/dask-nmf"
FOLDER = "/srv/nmf"
FIT = "fit V.zarr --rank 20 --output run.zarr --time-limit 14400 --workers 2 --memory-limit 2GiB"


class Fit(BashOperator):
    """Fails at once where another try cannot help: 2, the call; 3, the data (exit codes: docs/cli.md).

    The others are tried again: 74, disk full; 75, no workers, or another process holds the run; 143, SIGTERM.
    """

    def execute(self, context: Any) -> Any:
        """Run the command. What the parent would skip fails."""
        try:
            return super().execute(context)
        except AirflowSkipException as error:
            raise AirflowFailException("the call or the data are wrong, see the line above") from error


with DAG(
    "dask_nmf",
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["nmf"],
):
    Fit(
        task_id="fit",
        bash_command=f"exec {COMMAND} {FIT} --log-format json",
        cwd=FOLDER,
        append_env=True,  # credentials of an object store
        skip_on_exit_code=[2, 3],
        retries=3,
        retry_delay=timedelta(minutes=15),
        execution_timeout=timedelta(hours=6),  # SIGTERM: what was committed is kept
    )
