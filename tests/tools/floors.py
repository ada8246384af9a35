"""The lowest versions that pyproject.toml allows, as constraints for pip: make test-lowest.

    PYTHONPATH=tests python -m tools.floors EXTRA...

prints a line for each dependency, also of the extras. Indirect dependencies have no constraint.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

DECLARED = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
FLOOR = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)(?:,<[\w.]+)?")


def floors(*extras: str) -> set[str]:
    """Return the constraints of the package and of some extras, with the extras that these name."""
    wanted, found = list(DECLARED["dependencies"]), set()
    wanted += [requirement for extra in extras for requirement in DECLARED["optional-dependencies"][extra]]
    for requirement in wanted:
        if own := re.fullmatch(r"dask_nmf\[([\w,]+)\]", requirement):
            found |= floors(*own[1].split(","))
        elif floor := FLOOR.fullmatch(requirement):
            found.add(f"{floor[1]}=={floor[2]}")
        else:
            raise ValueError(
                f"pyproject.toml: {requirement} has no lowest version; write it as NAME>=VERSION"
            )
    return found


if __name__ == "__main__":
    print(*sorted(floors(*sys.argv[1:])), sep="\n")
