"""The address of the dashboard of the active cluster, in the log."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from dask_nmf.cluster.client import active_client

logger = logging.getLogger(__name__)


def log_dashboard() -> None:
    """Write the address of the dashboard to the log, if the active cluster has one.

    The scheduler shows one only if Bokeh is installed; that of another machine is taken to have it if this
    process does.
    """
    client = active_client()
    address = None if client is None or find_spec("bokeh") is None else client.dashboard_link
    if address:
        logger.info("dashboard: %s", address, extra={"nmf": {"event": "dashboard", "address": address}})
