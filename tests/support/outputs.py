"""Outputs in tests: make, read and replace what is at a path."""

import os
import shutil
from pathlib import Path

LONG = ["n" * 225, "n" * 250, "n" * 255, "ä" * 127]


def nothing() -> None:
    """Do nothing; as a check, it allows every output to be replaced."""


def make(path: Path, content: str, is_folder: bool) -> None:
    if is_folder:
        (path / "W").mkdir(parents=True)
        (path / "zarr.json").write_text(content)
        (path / "W" / "0").write_text(content)
    else:
        path.write_text(content)


def read(path: Path) -> str | None:
    """Return the content at a path (None if nothing is there), which must be consistent."""
    if path.is_symlink() and not path.exists():
        return os.readlink(path)
    if not path.is_dir():
        return path.read_text() if path.exists() else None
    (content,) = {(path / name).read_text() for name in ("zarr.json", "W/0")}
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, came: str) -> None:
    """Replace the output at a path as another process does."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if came == "link":
        path.symlink_to("theirs")
    else:
        make(path, "theirs", came == "folder")
