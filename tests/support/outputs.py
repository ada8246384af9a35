"""Outputs in tests: what is made, read and left at a place."""

import os
import shutil
from pathlib import Path

LONG = ["n" * 225, "n" * 250, "n" * 255, "ä" * 127]


def nothing() -> None:
    """Whatever is there may be replaced."""


def make(path: Path, content: str, is_folder: bool) -> None:
    if is_folder:
        (path / "W").mkdir(parents=True)
        (path / "zarr.json").write_text(content)
        (path / "W" / "0").write_text(content)
    else:
        path.write_text(content)


def read(path: Path) -> str | None:
    """What is at a place, None if nothing; it must be of one piece."""
    if path.is_symlink() and not path.exists():
        return os.readlink(path)
    if not path.is_dir():
        return path.read_text() if path.exists() else None
    (content,) = {(path / name).read_text() for name in ("zarr.json", "W/0")}
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, came: str) -> None:
    """What another process puts at a place, which it clears first."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if came == "link":
        path.symlink_to("theirs")
    else:
        make(path, "theirs", came == "folder")
