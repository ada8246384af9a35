"""Commands and examples of the documentation, and functions that run them."""

import os
import re
import subprocess
from pathlib import Path

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
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
