"""Fitted steps: each turns a block of rows into a block of rows, with what it has learnt from V."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from dask_nmf.ingest.recipe.arithmetic import blocks
from dask_nmf.types import Array, Block


class FittedStep(Protocol):
    """A step of a recipe, whose fields are numbers and arrays of one dimension."""

    def apply(self, block: Block) -> Block:
        """Return the rows of a block after this step."""


@dataclass(frozen=True)
class NormalizeRows:
    """Each row is scaled to a sum; rows of zeros stay."""

    target: float

    def apply(self, block: Block) -> Block:
        """Return scaled rows."""
        sums = blocks.row_sums(block)
        return blocks.scale_rows(block, self.target / np.where(sums > 0, sums, self.target))


@dataclass(frozen=True)
class Log1p:
    """Each value x becomes ln(1 + x)."""

    def apply(self, block: Block) -> Block:
        """Return logarithms."""
        return blocks.map_values(block, np.log1p)


@dataclass(frozen=True)
class TopColumns:
    """Some columns are kept, those at ``places``."""

    places: Array

    def apply(self, block: Block) -> Block:
        """Return the columns that are kept."""
        return blocks.take_columns(block, self.places, block.shape[1])


@dataclass(frozen=True)
class TfIdf:
    """Columns are multiplied by ``idf``, and then rows divided by their Euclidean norms."""

    idf: Array

    def apply(self, block: Block) -> Block:
        """Return weighted rows of norm 1; rows of zeros stay."""
        weighted = blocks.scale_columns(block, self.idf)
        norms = np.sqrt(blocks.row_sums(weighted, power=2))
        return blocks.scale_rows(weighted, 1 / np.where(norms > 0, norms, 1))


@dataclass(frozen=True)
class ScaleColumns:
    """Each column is divided by its ``scale``."""

    scale: Array

    def apply(self, block: Block) -> Block:
        """Return scaled columns."""
        return blocks.scale_columns(block, 1 / self.scale)


KINDS: dict[str, Any] = {
    "normalize_rows": NormalizeRows,
    "log1p": Log1p,
    "top_columns": TopColumns,
    "tfidf": TfIdf,
    "scale_columns": ScaleColumns,
}


def name_of(step: FittedStep) -> str:
    """Return the name of a step, that of its option."""
    return next(name for name, kind in KINDS.items() if isinstance(step, kind))


def arrays_of(step: Any) -> dict[str, Array]:
    """Return what a step has learnt for columns, by the names of its fields."""
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def numbers_of(step: Any) -> dict[str, float]:
    """Return the numbers that a step has learnt, by the names of its fields."""
    arrays = arrays_of(step)
    return {field.name: getattr(step, field.name) for field in fields(step) if field.name not in arrays}
