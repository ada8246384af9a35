"""Commands and examples of the documentation, and how they are run."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = os.environ | {"COLUMNS": "100"}

CLEAN_UP = "status=$?; kill $(jobs -p) 2>/dev/null || true; wait || true; exit $status"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a console block, with the lines that go on after a backslash."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def bash(lines: list[str]) -> list[str]:
    """The command that runs lines up to the first that fails, and ends what is left in the background."""
    return [
        "bash",
        "-c",
        "\n".join(["set -eo pipefail", f"trap '{CLEAN_UP}' EXIT", "trap exit TERM", *lines]),
    ]


def shell(lines: list[str], folder: Path, **environment: str) -> str:
    """What some commands print."""
    done = subprocess.run(
        bash(lines),
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
