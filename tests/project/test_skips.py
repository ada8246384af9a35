"""Skips are failures where DASK_NMF_MUST is set; what is deselected by its mark is no skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = {
    "test_marked.py": "@pytest.mark.skipif(True, reason='no cron here')\ndef test(): pass",
    "test_called.py": "def test(): pytest.skip('no cron here')",
    "test_fixture.py": "@pytest.fixture\ndef cron(): pytest.skip('no cron here')\ndef test(cron): pass",
    "test_unittest.py": "from unittest import SkipTest\ndef test(): raise SkipTest('no cron here')",
    "test_module.py": "pytest.skip('no cron here', allow_module_level=True)",
    "test_library.py": "pytest.importorskip('cron', reason='no cron here')",
}


def run(folder: Path, *words: str, must: str) -> tuple[int, str]:
    """Run the tests of a folder: pytest's exit code, and what it prints."""
    words = ("-p", "support.skips", "-p", "no:cacheprovider", "-c", os.devnull, *words)
    alone = {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *words, folder],
        env=os.environ | alone | {"DASK_NMF_MUST": must}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return told.returncode, told.stdout


def test_whatever_skips_is_a_failure_where_it_must_run(tmp_path: Path) -> None:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(f"import pytest\n{text}\n")
    (tmp_path / "test_known.py").write_text(
        "import pytest\n@pytest.mark.xfail(strict=True)\ndef test(): assert False\n"
    )
    code, lines = run(tmp_path, must="")
    assert code == 0
    assert f"{len(MODULES)} skipped, 1 xfailed" in lines
    code, lines = run(tmp_path, "--continue-on-collection-errors", must="1")
    assert code == 1
    assert "2 failed, 1 xfailed, 4 errors" in lines
    summary = lines.split("short test summary info")[1]
    assert all(name in summary for name in MODULES)
    assert lines.count("no cron here; DASK_NMF_MUST is set") >= len(MODULES)


@pytest.mark.parametrize("must", ["", "1"])
def test_what_is_deselected_is_no_skip(tmp_path: Path, must: str) -> None:
    (tmp_path / "test_two.py").write_text(
        "import pytest\n@pytest.mark.data\ndef test_a(): pytest.skip('')\ndef test_b(): pass\n"
    )
    code, lines = run(tmp_path, "-m", "not data", "-W", "ignore", must=must)
    assert code == 0
    assert "1 passed, 1 deselected" in lines
