"""Small probe files that tell whether workers read and write the same files as this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from dask_nmf.storage.objects.requests import fetch, put, remove
from dask_nmf.storage.objects.urls import is_url, split_url

PREFIX = ".dask-nmf-"


class ProbeFiles:
    """Small files with a text, in the folder of a path or of a URL."""

    def __init__(self, place: str) -> None:
        self.folder = split_url(place)[0] if is_url(place) else str(Path(place).parent)

    def write(self, text: str) -> str:
        """Write a file with this text; return its name."""
        name = f"{PREFIX}{uuid4().hex}"
        if is_url(self.folder):
            put(f"{self.folder}/{name}", text.encode())
        else:
            Path(self.folder, name).write_text(text)
        return name

    def read(self, name: str) -> str:
        """Return the text of a file; raise `FileNotFoundError` if it is not there."""
        if is_url(self.folder):
            return bytes(fetch(f"{self.folder}/{name}")).decode()
        return Path(self.folder, name).read_text()

    def remove(self, names: list[str]) -> None:
        """Remove the files that are there and can be removed."""
        for name in names:
            with suppress(OSError):
                if is_url(self.folder):
                    remove(self.folder, [name])
                else:
                    Path(self.folder, name).unlink()


def answer_probe(place: str, name: str, text: str) -> str:
    """Read a probe file on a worker; return the name of a file that is written as the answer.

    Raises
    ------
    OSError
        If the file is not there or has another text, or no answer can be written.
    """
    probes = ProbeFiles(place)
    if probes.read(name) != text:
        raise FileNotFoundError(f"{name} is another one there")
    return probes.write(answer_text(text))


def answer_text(text: str) -> str:
    """Return the text of the answer to a probe file."""
    return f"{text} was read"
