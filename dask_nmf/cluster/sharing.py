"""Whether workers read and write the same files as this process: found out by small files that both write."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from dask_nmf.storage.object_store import connect, fetch, is_url, request, split_url

try:
    import obstore
except ImportError:  # the extra "cloud"
    obstore = None

PREFIX = ".dask-nmf-"


class ProbeFiles:
    """Notes in the folder of a place, or below the URL of one: each is a small file with a text."""

    def __init__(self, place: str) -> None:
        self.folder = split_url(place)[0] if is_url(place) else str(Path(place).parent)

    def write(self, text: str) -> str:
        """Write a note; return its name."""
        name = f"{PREFIX}{uuid4().hex}"
        if is_url(self.folder):
            store = connect(self.folder)
            request(self.folder, partial(obstore.put_async, store, name, text.encode()))
        else:
            Path(self.folder, name).write_text(text)
        return name

    def read(self, name: str) -> str:
        """Return the text of a note; `FileNotFoundError` if it is not there."""
        if is_url(self.folder):
            return bytes(fetch(f"{self.folder}/{name}")).decode()
        return Path(self.folder, name).read_text()

    def remove(self, names: list[str]) -> None:
        """Remove notes, as far as they are there and can be removed."""
        for name in names:
            with suppress(OSError):
                if is_url(self.folder):
                    request(self.folder, partial(obstore.delete_async, connect(self.folder), [name]))
                else:
                    Path(self.folder, name).unlink()


def answer_probe(place: str, name: str, text: str) -> str:
    """Read a note as a worker, and return the name of one that answers it.

    Raises
    ------
    OSError
        If it is not there, or none can be written.
    """
    notes = ProbeFiles(place)
    found = notes.read(name)
    if found != text:
        raise FileNotFoundError(f"{name} is another one there")
    return notes.write(answer_text(text))


def answer_text(text: str) -> str:
    """Return the text of the answer to a note."""
    return f"{text} was read"
