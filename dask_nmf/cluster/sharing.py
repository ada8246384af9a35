"""Whether workers read and write the same files as this process, found out with small probe files."""

from __future__ import annotations

import errno
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from dask_nmf.cluster.client import active_client
from dask_nmf.cluster.watch import run_on_live_workers
from dask_nmf.storage.locations import Location, location_of_file

PREFIX = ".dask-nmf-"
FULL = {errno.ENOSPC, errno.EDQUOT}  # errors of a full disk


class ProbeFiles:
    """Small files with a text, in the folder of a location."""

    def __init__(self, location: Location) -> None:
        self.location = location

    def write(self, text: str) -> str:
        """Write a file with this text; return its name."""
        name = f"{PREFIX}{uuid4().hex}"
        self.location.beside(name).write(text.encode())
        return name

    def read(self, name: str) -> str:
        """Return the text of a file; raise `FileNotFoundError` if it is not there."""
        return self.location.beside(name).read().decode()

    def remove(self, names: list[str]) -> None:
        """Remove the files that are there and can be removed."""
        for name in names:
            with suppress(OSError):
                self.location.beside(name).remove()


def answer_probe(location: Location, name: str, text: str) -> str:
    """Read a probe file on a worker; return the name of a file that is written as the answer.

    Raises
    ------
    OSError
        If the file is not there or has another text, or no answer can be written.
    """
    probes = ProbeFiles(location)
    if probes.read(name) != text:
        raise FileNotFoundError(f"{name} is another one there")
    return probes.write(answer_text(text))


def answer_text(text: str) -> str:
    """Return the text of the answer to a probe file."""
    return f"{text} was read"


def shares_this_disk() -> bool:
    """Return whether all workers read and write the temporary files of this process."""
    return not _strangers(location_of_file(Path(tempfile.gettempdir(), "any")))


def check_shared(location: Location) -> None:
    """Refuse a location for an output where workers see other files than this process.

    Their chunks would be missing in the output, and chunks that they read back would be zeros.

    Raises
    ------
    ValueError
        If a worker sees other files there. The text has its address.
    OSError
        If this process cannot write there.
    """
    for address, reason in _strangers(location).items():
        raise ValueError(
            f"the worker at {address} does not share {location.folder} with this process ({reason}); "
            "give an output that all workers read and write, in a folder that machines share "
            "or in an object store"
        )


def _strangers(location: Location) -> dict[str, str]:
    """Return the workers that do not share files with this process beside a location, and why not."""
    if active_client() is None:
        return {}
    notes, text, written = ProbeFiles(location), uuid4().hex, []
    try:
        written.append(notes.write(text))
        answers = run_on_live_workers(answer_probe, location, written[0], text)
        written += [answer for answer in answers.values() if isinstance(answer, str)]
        found = {address: _why_strange(notes, text, answer) for address, answer in answers.items()}
    finally:
        notes.remove(written)
    return {address: why for address, why in found.items() if why is not None}


def _why_strange(notes: ProbeFiles, text: str, answer: str | Exception) -> str | None:
    """Return why a worker with this answer does not share the probe files; None if it does."""
    try:
        if isinstance(answer, Exception):
            raise answer
        same = notes.read(answer) == answer_text(text)
    except FileNotFoundError:
        same = False
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:  # a full disk may be shared
            raise
        return getattr(error, "strerror", None) or " ".join(f"{type(error).__name__}: {error}".split())
    return None if same else "it sees other files there"
