"""The docstrings of public functions and classes: complete by numpydoc's checks, with examples that run."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from numpydoc.validate import validate
from support.docs import ROOT

import dask_nmf
from dask_nmf import quality

FUNCTIONS = [
    *(f"dask_nmf.{name}" for name in ("nmf", "select_rank", "plan", "transform", "predict", "recommend")),
    *(f"dask_nmf.results.{name}" for name in ("top", "export", "compare", "verify")),
    *("dask_nmf.updates.update", "dask_nmf.updates.forget"),
    *("dask_nmf.report.write", "dask_nmf.ingest.convert", "dask_nmf.anndata.nmf"),
]
CLASSES = [f"dask_nmf.{name}" for name in dask_nmf.__all__ if isinstance(getattr(dask_nmf, name), type)]
RECORDS = [
    *("dask_nmf.runs.stored_result.StoredResult", "dask_nmf.updates.Update", "dask_nmf.updates.Forgotten"),
    *(f"dask_nmf.results.{name}" for name in ("Comparison", "Leading", "Check")),
    *("dask_nmf.ingest.conversion.Converted", "dask_nmf.plots.accessors.FitPlots"),
    "dask_nmf.plots.accessors.SelectionPlots",
]
QUALITY = [f"dask_nmf.quality.{name}" for name in quality.__all__]
WITH_EXAMPLES = [*FUNCTIONS, *CLASSES, *RECORDS, *QUALITY]
LAYOUT = {  # quotes, blank lines, order and names of sections, the first line
    *("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08", "GL09", "GL10"),
    *("SS01", "SS02", "SS03", "SS04", "SS06", "RT02"),
}
COMPLETE = {"PR01", "PR02", "RT01", "EX01"}  # parameters, what is returned, and an example are there
NO_RESULT = ("dask_nmf.results.export", "dask_nmf.report.write")


def public(name: str) -> Any:
    """Return a public object."""
    module, _, short = name.rpartition(".")
    return getattr(import_module(module), short)


def complaints(name: str, checks: set[str]) -> list[tuple[str, str]]:
    """Return what numpydoc finds about a docstring, of some of its checks."""
    return [(code, text) for code, text in validate(name)["errors"] if code in checks]


def test_the_reference_has_these() -> None:
    page = (ROOT / "docs" / "api.rst").read_text()
    listed = re.findall(r"^   (dask_nmf\..*)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_sections_are_well_formed(name: str) -> None:
    assert complaints(name, LAYOUT) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_results_and_an_example_are_there(name: str) -> None:
    assert complaints(name, COMPLETE - ({"RT01"} if name in NO_RESULT else set())) == []


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    first, *others = doctest.DocTestFinder().find(public(name), name, globs={})
    assert first.name == name
    assert len(first.examples) > 1
    for number, example in enumerate([first, *others]):
        (folder := tmp_path / str(number)).mkdir()
        monkeypatch.chdir(folder)
        told: list[str] = []
        doctest.DocTestRunner(verbose=False).run(example, out=told.append)
        assert told == [], "".join(told)


def test_no_other_docstring_has_an_example_that_nothing_runs() -> None:
    files = {Path(str(import_module(public(name).__module__).__file__)) for name in WITH_EXAMPLES}
    folder = Path(dask_nmf.__file__).parent
    assert {path for path in folder.rglob("*.py") if ">>> " in path.read_text()} == files
