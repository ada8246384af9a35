"""The record of a selection in the attributes of its group."""

from __future__ import annotations

from typing import Any

from dask_nmf._version import __version__

FORMAT = 1
ERROR_BARS = ("replicates", "error bars")  # kinds of arrays that belong to the answer
NO_ERROR_BARS: dict[str, Any] = {"replicates": [], "error_bars": None}  # parts of the record
# The kind of arrays that a commit of another kind makes invalid: the findings of the models before are no
# longer those of the models.
ENDS = {"pass": "findings", "error bars": "replicates"}


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
        "findings": None,  # the table of the models, once all of them have ended
        "answer": None,  # the table of which the final fit has a result
        "listing": None,  # of the files of V at the answer: see `Matrix.listing`
        **NO_ERROR_BARS,  # the replicates of the answer, and how many its error bars are from
    }


def kept_answer(record: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a record that stay when another selection begins in its place."""
    kept = {
        name: {kind: part for kind, part in record[name].items() if kind in ("answer", *ERROR_BARS)}
        for name in ("folders", "arrays")
    }
    return {**kept, **{name: record[name] for name in ("answer", *NO_ERROR_BARS)}}
