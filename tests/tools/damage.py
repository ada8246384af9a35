"""Damage to files at random: bytes, digits, members of archives, and values of JSON files."""

import copy
import json
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 29, 31, 10**6, 10**9, 10**12, 2**63, 10**30, 0.5, -0.5, 1e308, "NaN",
    "", "../../x", "\x1b[31m", "pickle", "|O", "<f8", "float64", "int64", "string", [], [1], [0, 0], [30, 20],
    [1, 1], [10**9, 10**9], [[]], {}, {"id": "pickle"}, {"name": "numcodecs.pickle"}, [{"id": "pickle"}],
    "x" * 5000,
]  # fmt: skip
RAW = [float("nan"), float("inf")]  # not in JSON, but Python reads them


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file, or a file in a folder; return a text that names the file and the change."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    some = [file for file in files if file.suffix == ".json" or file.name.startswith(".z")]
    file = draw.choice(some if some and draw.random() < 0.7 else files)
    content = file.read_bytes()
    ways: list[Callable[[bytes, random.Random], bytes]] = [_flipped, _cut, _digits, _longer]
    if file in some:
        ways += [_bent] * 6
    if file.suffix == ".npz":
        ways += [_repacked] * 12
    way = draw.choice(ways)
    if draw.random() < 0.02:
        file.unlink()
        return f"{file.name} removed"
    file.write_bytes(way(content, draw))
    return f"{file.relative_to(path) if path.is_dir() else file.name} {way.__name__}"


def _flipped(content: bytes, draw: random.Random) -> bytes:
    some = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        some[draw.randrange(len(some) if draw.random() < 0.5 else min(len(some), 200))] = draw.randrange(256)
    return bytes(some)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def _longer(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([draw.randrange(256)]) * draw.choice([1, 8, 4096]) + content[at:]


def _digits(content: bytes, draw: random.Random) -> bytes:
    """Replace a digit by another number."""
    places = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return _flipped(content, draw)
    at = draw.choice(places)
    new = draw.choice([b"-", b"0", b"1" * draw.randint(1, 25), b"9" * draw.randint(1, 12), b"1e9"])
    return content[:at] + new + content[at + 1 :]


def _repacked(content: bytes, draw: random.Random) -> bytes:
    """Damage a member of an archive."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    members[name] = draw.choice([_flipped, _cut, _digits, _entry, _entry, _entry])(members[name], draw)
    with BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return file.getvalue()


def _entry(content: bytes, draw: random.Random) -> bytes:
    """Replace an entry of the array in an .npy file by another integer."""
    array = np.lib.format.read_array(BytesIO(content))
    if array.dtype.kind in "if" and array.size:
        new = draw.choice([-1, 0, 1, 2, 3, 19, 20, 29, 30, 10**6, 2**31 - 1])
        array.reshape(-1)[draw.randrange(array.size)] = new
    with BytesIO() as file:
        np.lib.format.write_array(file, array)
        return file.getvalue()


def _bent(content: bytes, draw: random.Random) -> bytes:
    """Replace, remove or rename a value of a JSON file, once or twice."""
    told = json.loads(content)
    for _ in range(draw.randint(1, 2)):
        part: Any = told
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(part[key], dict | list) and part[key] and draw.random() < 0.85:
                part = part[key]
                continue
            way = draw.random()
            if way < 0.1:
                del part[key]
            elif way < 0.2 and isinstance(part, dict):
                part[f"{key}x"] = part.pop(key)
            elif way < 0.25 and isinstance(part[key], int | float):
                part[key] += draw.choice([-1, 1])
            else:
                part[key] = copy.deepcopy(draw.choice(VALUES + RAW))
            break
    return json.dumps(told).encode()
