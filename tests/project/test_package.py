"""What is built of the package: its files, its metadata, and the extras that messages name."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from tools.floors import floors

from dask_nmf import __version__

ROOT = Path(__file__).resolve().parents[2]
DECLARED: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALL = r"pip install ([^;,.)`\n]*\[[^`\n]*?\]['\"]?)"
UNPACKAGED = (".ci/", ".dockerignore", ".pre-commit-config.yaml")  # for those who work in the repository
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster_configs").rglob("*.md")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The paths of what is built: the wheel and the source distribution."""
    folder = str(tmp_path_factory.mktemp("dist"))
    return {
        "wheel": next(WheelBuilder(str(ROOT)).build(directory=folder)),
        "source": next(SdistBuilder(str(ROOT)).build(directory=folder)),
    }


@pytest.fixture(scope="module")
def wheel(built: dict[str, str]) -> zipfile.ZipFile:
    """The wheel, opened."""
    return zipfile.ZipFile(built["wheel"])


@pytest.mark.parametrize(
    "checker",
    [["twine", "check", "--strict"], ["check_wheel_contents"]],
    ids=["twine", "check_wheel_contents"],
)
def test_checkers_of_packages_find_nothing(built: dict[str, str], checker: list[str]) -> None:
    checked = [built["wheel"]] if checker[0] == "check_wheel_contents" else [*built.values()]
    command = [sys.executable, "-m", *checker, *checked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_every_module_and_says_that_it_has_types(wheel: zipfile.ZipFile) -> None:
    modules = {
        f"dask_nmf/{path.relative_to(ROOT / 'dask_nmf')}" for path in (ROOT / "dask_nmf").rglob("*.py")
    }
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    templates = {f"dask_nmf/report/templates/report.{kind}" for kind in ("html", "css")}
    assert files == modules | templates | {"dask_nmf/py.typed"}


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_source_distribution_has_every_file_but_those_of_the_repository(built: dict[str, str]) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(UNPACKAGED)}
    with tarfile.open(built["source"]) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert files == tracked | {"PKG-INFO"}


def test_the_source_distribution_builds_by_itself(built: dict[str, str], tmp_path: Path) -> None:
    with tarfile.open(built["source"]) as source:
        source.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    again = zipfile.ZipFile(next(WheelBuilder(str(unpacked)).build(directory=str(tmp_path))))
    with zipfile.ZipFile(built["wheel"]) as wheel:
        assert again.namelist() == wheel.namelist()


def test_links_of_the_description_lead_somewhere(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = Parser().parsestr(wheel.read(name).decode())
    assert told["Author"] == "The dask_nmf developers"
    assert told["Description-Content-Type"] == "text/markdown"
    text = str(told.get_payload())
    assert "[obstore]" in (ROOT / "docs" / "operations.md").read_text()  # a link that is absolute stays one
    assert text.startswith("# dask_nmf")
    assert "\n$ dask-nmf fit V.zarr --rank" in text
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]*)\)", text))


def extras(text: str) -> list[str]:
    """The extras of this package that commands in a text install; quoted, as a shell may expand [...]."""
    found = []
    for requirement in re.findall(INSTALL, text):
        assert re.fullmatch(r"""(-e )?(["'])(dask_nmf|\.|/src)\[[\w,{}]+\]\2""", requirement), requirement
        found += re.findall(r"\w+", requirement.split("[")[1])
    return found


def test_extras_that_are_named_can_be_installed_as_written() -> None:
    texts = [path.read_text() for path in PAGES]
    texts += [path.read_text() for path in (ROOT / "dask_nmf").rglob("*.py")]
    texts += [path.read_text() for path in (ROOT / "benchmarks").rglob("*.py")]
    named = {extra for text in texts for extra in extras(text)} - {"extra"}  # in `startup.import_optional`
    assert named >= {"cloud", "slurm", "ssh"}
    assert named <= set(DECLARED["optional-dependencies"])


def test_every_dependency_has_a_lowest_version() -> None:
    """`make test-lowest` takes them; what it installs so is tested there."""
    known = floors("dashboard", "test")
    assert {"zarr==3.1.6", "numpy==2.0", "dask==2025.5.1", "obstore==0.12", "bokeh==3.1"} <= known
    names = {re.split(r">=|\[", requirement)[0] for requirement in DECLARED["dependencies"]}
    assert names <= {line.split("==")[0] for line in known}


USER = """
from dask_nmf import NMF, Result, nmf

result: Result = nmf("V.zarr", 5)
error: float = result.relative_error
model = NMF(5)
nmf("V.zarr", "five")
"""


@pytest.mark.real
def test_types_are_seen_from_outside(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in told.stdout.splitlines() if line.startswith("user.py")]
    assert len(lines) == 1, told.stdout
    assert re.search(r'user\.py:7: error: Argument 2 to "nmf" has incompatible type "str"', lines[0])
