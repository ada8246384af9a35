"""Tables of CSV and Parquet: one line for each row, or column, of V, with its name and k numbers."""

from __future__ import annotations

import csv
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf._version import __version__
from dask_nmf.results.exports.content import MARK, Format, component_names
from dask_nmf.results.sides import Side

FIELDS = 2**16  # numbers that are made text at once
HEADER = re.compile(r"(row|column)(,nmf\d+)+\n", re.ASCII)


def write_csv(path: Path, side: Side) -> None:
    """Write a CSV file; a number is the shortest text that gives it back."""
    step = max(1, FIELDS // side.rank)
    with open(path, "x", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([side.dimension, *component_names(side.rank)])
        for first, lines in side.pieces():
            names = side.names_of(first, first + len(lines)).tolist()
            for start in range(0, len(lines), step):
                some = slice(start, start + step)
                texts = lines[some].astype(str).tolist()
                table.writerows([name, *row] for name, row in zip(names[some], texts, strict=True))


def write_parquet(path: Path, side: Side) -> None:
    """Write a Parquet file, with a row group for each piece."""
    pa: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    numbers = pa.from_numpy_dtype(side.dtype)
    components = component_names(side.rank)
    fields = [(side.dimension, pa.string()), *((name, numbers) for name in components)]
    schema = pa.schema(fields, metadata={MARK: __version__})
    with parquet.ParquetWriter(path, schema) as file:
        for first, lines in side.pieces():
            names = pa.array(side.names_of(first, first + len(lines)).tolist(), pa.string())
            columns = [pa.array(np.ascontiguousarray(column)) for column in lines.T]
            file.write_table(pa.table([names, *columns], schema=schema))


def _is_our_csv(path: Path) -> bool:
    with open(path, encoding="utf-8", newline="") as file:
        return HEADER.fullmatch(file.readline(2**20)) is not None


def _is_our_parquet(path: Path) -> bool:
    schema = import_module("pyarrow.parquet").read_schema(path)
    return MARK.encode() in (schema.metadata or {})


CSV = Format(write_csv, _is_our_csv, both=False)
PARQUET = Format(write_parquet, _is_our_parquet, both=False)
