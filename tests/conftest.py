"""Settings and fixtures of all tests."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.blas import wait_until_unlimited
from support.command import Forks, the_forks
from support.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

from dask_nmf.planning import row_panels

# as in an environment that is activated
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Dask watches itself less, here and in the processes that tests start: an idle cluster took 4 % of a core.
os.environ |= {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
dask.config.refresh()
LONG = 900  # seconds; for other tests pyproject.toml says it
ANY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture], "print_blob": True}
settings.register_profile("short", max_examples=8, derandomize=True, **ANY)
settings.register_profile("seeded", max_examples=8, **ANY)  # by --hypothesis-seed: make test SEED=7
settings.register_profile("many", max_examples=50, **ANY)  # make soak
settings.load_profile("short")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a real test more time than others, as several run beside each other on busy cores."""
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG))


def pytest_collection_finish() -> None:
    """Spare Python's collector of garbage what was imported and collected, which stays to the end."""
    given(st.none())(lambda _: None)()  # Hypothesis looks for its random state among what is not frozen
    gc.collect()
    gc.freeze()


@pytest.fixture
def several_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices are cut into about 3 panels."""
    monkeypatch.setattr(row_panels, "SMALLEST", 1)
    monkeypatch.setattr(row_panels, "PANELS", 3)


@pytest.fixture
def unlimited_blas() -> None:
    """BLAS as it is while no fit limits it, whatever tests ran before."""
    wait_until_unlimited()


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler and two workers of one thread, in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", memory_limit=0
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """The active client of `cluster`."""
    with Client(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """The address of a cluster with a process as a worker: commands that share it start fast."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def forks() -> Forks:
    """Calls the command, in processes that need not import first."""
    return the_forks()
