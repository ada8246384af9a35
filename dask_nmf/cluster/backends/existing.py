"""A cluster that runs already, by the address of its scheduler or by its scheduler file."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import dask
from dask.utils import parse_timedelta
from distributed import Client
from distributed.comm import CommClosedError, connect
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from dask_nmf.errors import NoWorkers

POLL = 0.1  # seconds between two reads of a scheduler file


@contextmanager
def existing_cluster(address: str | None, scheduler_file: str | None, wait: float) -> Iterator[Client]:
    """Connect to a running cluster, by the address of its scheduler or by the file that the scheduler wrote.

    Parameters
    ----------
    wait : seconds to wait for the file

    Raises
    ------
    NoWorkers
        If there is no scheduler.
    ValueError
        If the configuration of TLS does not allow the connection.
    """
    place = address or _address_in(str(scheduler_file), wait)
    try:
        asyncio.run(_handshake(place))
        with catch_warnings():
            filterwarnings("ignore", category=VersionMismatchWarning)  # `versions.check` says it in a line
            client = Client(place)
    except (CommClosedError, RuntimeError, TypeError) as error:  # the scheduler refuses the connection
        raise ValueError(
            f"cannot connect to {place}, for want of TLS or of a certificate that it trusts: {error}; "
            "see distributed.comm.tls in Dask's configuration"
        ) from error
    except (OSError, TimeoutError) as error:
        raise NoWorkers(f"no scheduler answers at {place}; start it and run this again") from error
    with client:
        yield client


async def _handshake(address: str) -> None:
    """Shake hands in bounded time. A `Client` waits forever if its connection is never answered."""
    seconds = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    greeting = connect(address, **Security().get_connection_args("client"))
    comm = await asyncio.wait_for(greeting, seconds)
    await comm.close()


def _address_in(file: str, wait: float) -> str:
    """Return the address of a scheduler from the file that it writes once it listens."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return str(json.loads(Path(file).read_text())["address"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:  # not there, or not whole yet
            if time.monotonic() > deadline:
                raise NoWorkers(
                    f"no scheduler has written its address to {file} for {wait:g} s; "
                    "start it and run this again"
                ) from error
            time.sleep(POLL)
