"""The record of a selection in the attributes of its group."""

from __future__ import annotations

from typing import Any

from dask_nmf._version import __version__
from dask_nmf.runs.commits import SELECTION_KEY
from dask_nmf.storage.arrays.commits import Record, Schema
from dask_nmf.storage.arrays.write_once import NAME

FORMAT = 2
ERRORS = "error bars"  # the kind of arrays that has the standard errors
STDERR = "components_stderr"  # their name
REPLICATES = "replicates"  # the kind that has the states of bootstrap replicates that run
ENDED = "replicates-"  # how kinds begin that have the factors of replicates that ended with one pass
NO_ERROR_BARS: dict[str, Any] = {"replicates": [], "error_bars": None}  # parts of the record
PASS = "pass"  # the kind that has the states of models that run
FACTORS = "factors-"  # how kinds begin that have the factors of models that ended with one pass


def of_error_bars(kind: str) -> bool:
    """Return whether arrays of a kind belong to the error bars of the answer."""
    return kind in (REPLICATES, ERRORS) or kind.startswith(ENDED)


def new_record(identity: dict[str, Any], overwrites: bool) -> dict[str, Any]:
    """Return the record of a selection before its first commit."""
    return {
        "format": FORMAT,
        "version": __version__,
        "identity": identity,  # the options and the matrix, which all models share
        "overwrites": overwrites,  # whether it was begun to overwrite another one
        "folders": {},
        "arrays": {},
        "models": [],
        "sample": [0, 0, 0],  # the largest rank and the folds that samples are for, and their rows
        "findings": None,  # the table of the models, once all of them have ended
        "answer": None,  # the table of which the final fit has a result
        "listing": None,  # of the files of V at the answer: see `Matrix.listing`
        "encoding": 1,  # the chunk key encoding by which arrays are shown: see `links`
        **NO_ERROR_BARS,  # the replicates of the answer, and how many its error bars are from
    }


def kept_answer(record: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a record that stay when another selection begins in its place."""
    kept = {
        name: {kind: part for kind, part in record[name].items() if kind == "answer" or of_error_bars(kind)}
        for name in ("folders", "arrays")
    }
    return {**kept, **{name: record[name] for name in ("answer", "encoding", *NO_ERROR_BARS)}}


def current_folders(record: Record) -> set[str]:
    """Return the folders of data that a record names."""
    return set(record["folders"].values())


def validate(record: Record) -> None:
    """Refuse a record whose folders and arrays are not those of a selection.

    Raises
    ------
    ValueError
        If a part of it is wrong. The text names the first such part.
    """
    for name in ("identity", "folders", "arrays"):
        if not isinstance(record.get(name), dict):
            raise ValueError(f"it has no {name}")
    for kind, folder in record["folders"].items():
        if not isinstance(folder, str) or not NAME.fullmatch(folder):
            raise ValueError(f"the folder of {kind} is {folder!r}")
    if not isinstance(record.get("models"), list):
        raise ValueError("it has no models")


SELECTION = Schema(SELECTION_KEY, "selection", FORMAT, current_folders, (STDERR,), validate)
