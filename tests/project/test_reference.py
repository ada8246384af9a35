"""The reference: pages that are made from the code are current, and tables say what the code does."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from support.docs import ROOT
from support.runs import Crash, crash_after
from tools import reference_pages

from dask_nmf import errors, nmf
from dask_nmf.cli.process.exit_codes import exit_code
from dask_nmf.runs.record.contents import FORMAT


def rows(page: str, section: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of a page."""
    text = (ROOT / "docs" / page).read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


@pytest.mark.parametrize("page", reference_pages.PAGES, ids=lambda page: page.name)
def test_pages_made_from_the_code_are_current(page: Path) -> None:
    made = reference_pages.PAGES[page]()
    assert page.read_text() == made, "run: PYTHONPATH=.:tests python -m tools.reference_pages"


def test_errors_in_python_have_the_exit_codes_of_the_table() -> None:
    named = 0
    for kinds, code in rows("exit_codes.md", "Errors in Python"):
        for name in re.findall(r"`(?:dask_nmf\.errors\.)?(\w+)`", kinds):
            kind = getattr(errors, name, None) or getattr(builtins, name)
            assert exit_code(kind.__new__(kind)) == int(code), name
            named += 1
    assert named > 12


@pytest.fixture(scope="module", params=["finished", "unfinished"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> zarr.Group:
    """A run of a V with names and missing entries, which may have stopped after its first pass."""
    store = tmp_path_factory.mktemp("run") / "run.zarr"
    v = np.random.default_rng(0).random((30, 6))
    v[::4, ::3] = np.nan
    frame = pd.DataFrame(v, index=[f"r{i}" for i in range(30)], columns=[*"abcdef"])
    if request.param == "finished":
        nmf(frame, 2, missing="nan", store=store, max_iter=3)
    else:
        with pytest.raises(Crash):
            nmf(frame, 2, missing="nan", store=store, max_iter=3, tol=0, callback=crash_after(1))
    return zarr.open_group(store, mode="r")


def test_a_run_has_the_arrays_of_the_table(run: zarr.Group) -> None:
    documented = {row[0].strip("`"): row for row in rows("run_format.md", "Arrays")}
    record = dict(run.attrs["dask_nmf"])
    sizes = {"m": 30, "n": 6, "k": 2, "passes": record["pass"]}
    arrays = dict(run.arrays())
    assert set(arrays) <= set(documented)
    if record["finished"]:
        assert set(arrays) == set(documented)
    for name, array in arrays.items():
        _, shape, dimensions, _ = documented[name]
        assert array.shape == tuple(sizes[size] for size in shape.split(" × ")), name
        assert array.metadata.dimension_names == tuple(dimensions.split(", ")), name


def test_a_record_has_the_keys_of_the_table(run: zarr.Group) -> None:
    documented = {key for row in rows("run_format.md", "Record") for key in re.findall(r"`(\w+)`", row[0])}
    record = dict(run.attrs["dask_nmf"])
    assert set(record) == documented
    assert f"Format {FORMAT} is" in (ROOT / "docs" / "run_format.md").read_text().replace("\n", " ")
    assert record["format"] == FORMAT
