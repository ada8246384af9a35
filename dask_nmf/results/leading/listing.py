"""Lists of the best columns or rows of each component, as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dask_nmf.display.text import escape_control
from dask_nmf.results.leading.best import Leading


def as_text(found: Sequence[Leading], by: str, dimension: str) -> Iterator[str]:
    """Yield one line a component: names, or numbers, each with its value."""
    for number, leading in enumerate(found):
        names = leading.numbers if leading.names is None else leading.names
        pairs = zip(names.tolist(), leading.values.tolist(), strict=True)
        listed = ", ".join(f"{escape_control(name)} {value:.4g}" for name, value in pairs)
        yield f"component {number}: {listed or f'no {dimension}'}"


def as_csv(found: Sequence[Leading], by: str, dimension: str) -> Iterator[str]:
    """Yield lines of CSV: component, rank from 1, number of the column or row, its name, its value."""
    yield f"component,rank,{dimension},name,{by}"
    for number, leading in enumerate(found):
        for rank, entry in enumerate(_entries(leading, by, dimension), 1):
            line = io.StringIO()
            fields = [number, rank, entry[dimension], entry.get("name", ""), entry[by]]
            csv.writer(line, lineterminator="\r\n").writerow(fields)
            yield line.getvalue().removesuffix("\r\n")


def as_json(found: Sequence[Leading], by: str, dimension: str) -> Iterator[str]:
    """Yield one line: an object with a list of entries for each component."""
    components = [list(_entries(leading, by, dimension)) for leading in found]
    yield json.dumps({"by": by, "of": f"{dimension}s", "components": components})


def _entries(leading: Leading, by: str, dimension: str) -> Iterator[dict[str, Any]]:
    names = [None] * len(leading.numbers) if leading.names is None else leading.names.tolist()
    for number, name, value in zip(leading.numbers.tolist(), names, leading.values.tolist(), strict=True):
        yield {dimension: number, **({} if name is None else {"name": name}), by: value}


LISTINGS: dict[str, Callable[[Sequence[Leading], str, str], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
