"""The pages of the reference that are made from the code: docs/options.md and docs/log.md.

    PYTHONPATH=.:tests python -m tools.reference_pages

`tests/project/test_reference.py` fails if a page is not as this program writes it.
"""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import click

from dask_nmf import nmf
from dask_nmf.cli.app import app
from dask_nmf.cli.options import GROUPS

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = DOCS / "log-schema.json"
COMMON = ("time", "level", "event", "message")  # in every line of the log
IN_PYTHON = {"output": "store"}  # options that have another name in Python
HEADINGS = {None: GROUPS[0], GROUPS[0]: GROUPS[0]}  # of options that have no heading of their own
OPTIONS = """# Options

All options of a fit, in Python (`nmf`; `NMF` has those of a model) and in the command (`dask-nmf fit`).
A dash stands where one of them does not have the option. [Choosing](choosing.md) says when to use which, and
[Python](api.rst) describes each in full.
"""
LOG = """# Log

`--log-format json` writes one JSON object a line to standard error, and the logger `dask_nmf` of Python has
the same numbers in `record.nmf`. Every line has `time` (ISO 8601), `level`, `event` and `message`, the text
that people read. The other fields depend on the event. [log-schema.json](log-schema.json) is the JSON Schema
of a line, and tests hold every line to it. [Logs](operations.md#logs) says how to use them.
"""


def cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown."""
    return " ".join(text.replace("|", "\\|").split())


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *[[cell(text) for text in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(word: object) -> str:
    """Return a word as code; an empty one stays empty."""
    return f"`{word}`" if word != "" else ""


def values_of(option: click.Option) -> str:
    """Return what an option of the command may be: its words, or the kind of its value."""
    if option.is_flag:
        return "a flag"
    if isinstance(option.type, click.Choice):
        return ", ".join(map(code, option.type.choices))
    if isinstance(option.type, click.IntRange):
        return f"integer ≥ {option.type.min}"
    return option.metavar or option.type.name


def row_of(option: click.Option, python: dict[str, Any]) -> list[str]:
    """Return the row of an option: its names, its values, its default, and its help."""
    name = IN_PYTHON.get(str(option.name), str(option.name))
    text, _, default = (option.help or "").partition("  [default: ")
    text = text.replace(" (see docs/choosing.md)", "")
    known = default.removesuffix("]") or ("auto" if option.name == "cache" else "")
    flags = ", ".join(code(flag) for flag in sorted(option.opts, key=len, reverse=True))
    return [code(name) if name in python else "–", flags, values_of(option), known, text]


def options_page() -> str:
    """Return the page of all options of a fit."""
    python = dict(signature(nmf).parameters)
    options = [option for option in app.commands["fit"].params if isinstance(option, click.Option)]
    groups: dict[str, list[list[str]]] = {group: [] for group in GROUPS}
    for option in options:
        heading = getattr(option, "group", None)
        groups[HEADINGS.get(heading, str(heading))].append(row_of(option, python))
    known = {IN_PYTHON.get(str(option.name), str(option.name)) for option in options}
    alone = ", ".join(code(name) for name in python if name not in known | {"V"})
    heads = ["Python", "command", "value", "default", "meaning"]
    parts = [
        f"## {group.replace('Options', 'Main')}\n\n{table(heads, rows)}"
        for group, rows in groups.items()
        if rows
    ]
    return "\n".join([OPTIONS, *parts, f"## In Python only\n\n{alone}: see [`nmf`](api.rst).\n"])


def kind_of(field: dict[str, Any]) -> str:
    """Return the type of a field of the log, as text."""
    if "enum" in field:
        return ", ".join(map(code, field["enum"]))
    names = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return " or ".join(names)


def log_page() -> str:
    """Return the page of the events of the log."""
    parts = [LOG]
    events = json.loads(SCHEMA.read_text())["$defs"]
    names = [event["properties"]["event"]["const"] for event in events.values()]
    for name, (key, event) in zip(names, events.items(), strict=True):
        fields = {field: facts for field, facts in event["properties"].items() if field not in COMMON}
        rows = [
            [
                code(field) + ("" if field in event["required"] else " (not always)"),
                kind_of(facts),
                facts["description"],
            ]
            for field, facts in fields.items()
        ]
        listed = table(["field", "type", "meaning"], rows) if rows else "It has no other fields.\n"
        heading = name if names.count(name) == 1 else f"{name} ({key})"
        parts.append(f"## {heading}\n\n{event['description']}\n\n{listed}")
    return "\n".join(parts)


PAGES = {DOCS / "options.md": options_page, DOCS / "log.md": log_page}

if __name__ == "__main__":
    for path, make in PAGES.items():
        path.write_text(make())
