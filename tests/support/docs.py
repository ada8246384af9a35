"""Commands and examples of the documentation, and functions that run them."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from support.servers import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "cluster_configs").rglob("*.md")),
]

ENVIRONMENT = os.environ | {"COLUMNS": "100"}

CLEAN_UP = "status=$?; kill $(jobs -p) 2>/dev/null || true; wait || true; exit $status"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the commands of a console block, with lines that continue after a backslash."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def transcript(page: Path) -> list[tuple[str, list[str]]]:
    """Return the commands of the console blocks of a page, each with the lines that it prints there."""
    parts = [
        part for block in blocks(page, "console") for part in re.split(r"^(?=\$ )", block, flags=re.M)[1:]
    ]
    found = [(commands(part)[0], part) for part in parts]
    return [(command, part.removeprefix(f"$ {command}").split("\n")[1:-1]) for command, part in found]


def assert_prints(printed: str, shown: list[str]) -> None:
    """Check that lines of a page are those that were printed; ``[...]`` stands for any number of lines.

    Words must be equal. Numbers may differ by 2 %, as rounding is not the same on every machine.
    """
    lines, skipping = printed.splitlines(), False
    for line in shown:
        if line == "[...]":
            skipping = True
            continue
        while skipping and lines and not _is_same(lines[0], line):
            lines.pop(0)
        assert lines, f"not printed: {line}"
        assert _is_same(lines.pop(0), line), f"printed otherwise: {line}\n{printed}"
        skipping = False
    assert skipping or not shown or not lines, f"not shown: {lines}"


def _is_same(printed: str, shown: str) -> bool:
    """Return whether two lines have the same words, and numbers that are nearly the same."""
    (words, numbers), (other_words, others) = _words_and_numbers(printed), _words_and_numbers(shown)
    close = all(abs(one - other) <= 0.02 * abs(other) for one, other in zip(numbers, others, strict=False))
    return words == other_words and len(numbers) == len(others) and close


def _words_and_numbers(line: str) -> tuple[list[str], list[float]]:
    number = r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)"
    return re.sub(number, "#", line).split(), [float(found) for found in re.findall(number, line)]


def assert_similar(drawn: Path, shown: Path, levels: float = 4) -> None:
    """Check that two pictures have one size, and differ by a few levels of grey, of 256, on the average."""
    one, other = (np.asarray(Image.open(path).convert("L"), float) for path in (drawn, shown))
    assert one.shape == other.shape
    assert np.abs(one - other).mean() < levels


def bash(lines: list[str]) -> list[str]:
    """Return a command that runs lines up to the first that fails, and ends its background jobs."""
    return [
        "bash",
        "-c",
        "\n".join(["set -eo pipefail", f"trap '{CLEAN_UP}' EXIT", "trap exit TERM", *lines]),
    ]


def shell(lines: list[str], folder: Path, **environment: str) -> str:
    """Run commands in a folder; return what they print."""
    done = subprocess.run(
        bash(lines),
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
