"""The tables of calls in docs/coming_from.md: each call of ours is one that today's interface takes."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any

import click
import numpy as np
import pytest
from support.docs import ROOT

import dask_nmf
from dask_nmf.cli.app import app

V = np.random.default_rng(0).random((24, 12))
NAMES: dict[str, Any] = {
    **{name: getattr(dask_nmf, name) for name in dask_nmf.__all__},
    "V": V,
    "X": V,
    "r": 2,
}
ROWS = re.findall(r"^\| .* \|$", (ROOT / "docs" / "coming_from.md").read_text(), re.MULTILINE)
OURS = [row.split(" | ")[1] for above, row in pairwise(ROWS) if "|---" not in row and row.count(" | ") == 2]
CALLS = sorted({code for cell in OURS for code in re.findall(r"`([^`]+)`", cell)})
OPTIONS = {
    word
    for name in ("fit", "select")
    for option in app.commands[name].params
    if isinstance(option, click.Option)
    for word in option.opts
}


def test_the_tables_are_read() -> None:
    assert len(CALLS) > 20
    assert {call.split()[0] for call in CALLS} >= {"dask-nmf", "NMF(10)", "nmf(V,", "--ranks", "max_iter"}


@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("dask-nmf ")])
def test_commands_can_be_parsed(call: str) -> None:
    _, name, *words = shlex.split(call)
    app.commands[name].make_context(name, words)


@pytest.mark.parametrize("call", [call for call in CALLS if call.startswith("--")])
def test_options_are_there(call: str) -> None:
    assert call.split()[0] in OPTIONS


@pytest.mark.filterwarnings("ignore")  # such as that a fit of so few passes has not converged
@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith(("dask-nmf ", "--"))])
def test_python_is_taken(call: str) -> None:
    known = {**signature(dask_nmf.nmf).parameters, **signature(dask_nmf.NMF).parameters}
    if "(" in call:
        assert eval(call.replace("n_init=30", "n_init=3"), dict(NAMES)) is not None
    elif "=" in call:
        assert {pair.split("=")[0] for pair in call.split(", ")} <= set(known)
    elif "." in call:
        import_module(call)
    else:
        assert call in known or hasattr(dask_nmf.NMF, call)
