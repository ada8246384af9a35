"""Steps that several backends share: start a cluster of Dask's and import an optional dependency."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from dask_nmf.errors import NoWorkers


def start_cluster(kind: str, start: Callable[[], Any]) -> Any:
    """Start a cluster of Dask's; raise `NoWorkers` or `ValueError` with the reason if it does not start."""
    try:
        return start()
    except RuntimeError as error:
        cause = error.__cause__ or error
        text = f"the {kind} cluster did not start: {cause}"
        if isinstance(cause, OSError):
            raise NoWorkers(f"{text}; run this again when its hosts answer") from error
        raise ValueError(f"{text}; see what is set for it in Dask's configuration") from error


def import_optional(module: str, extra: str) -> Any:
    """Import a module of an optional dependency.

    Raises
    ------
    ValueError
        If it is not installed; the text has the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--cluster {extra} needs {module}, which is not installed: pip install 'dask_nmf[{extra}]'"
        ) from error
