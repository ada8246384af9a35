"""Blocks of V in which some entries do not count, or count more than others.

An entry counts with its weight, unless it is missing or held out for validation. The cells that count are
extracted in batches of rows, so that they are never all in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.groups import Groups, Places, held_out_groups, pattern
from dask_nmf.types import Array, Block, Orientation


@dataclass(frozen=True)
class EntryMask:
    """The rule by which entries count."""

    missing: str | None = None  # None: all count; "nan": those that are not NaN; "unstored": the stored ones
    held_out: float = 0.0  # share of the entries that is held out for validation
    seed: int = 0  # seed of the held-out entries, see `groups`
    orientation: Orientation = Orientation.ROWS  # of the rows of blocks
    weighted: bool = False  # whether entries have weights
    beta: float = 2.0  # β of the divergence that is the loss

    @property
    def is_uniform(self) -> bool:
        """Return whether every entry counts, and all count alike."""
        return self.missing is None and self.held_out == 0 and not self.weighted

    @property
    def needs_means(self) -> bool:
        """Return whether a row or column may have no observed entry, so that means are needed."""
        return self.missing is not None or self.weighted

    @property
    def uses_whole_blocks(self) -> bool:
        """Return whether blocks are used whole: the squared error needs no single cells."""
        return self.is_uniform and self.beta == 2

    @property
    def by_groups(self) -> bool:
        """Return whether the squared error needs no single cells, though entries are held out."""
        return self.held_out > 0 and self.beta == 2 and self._whole

    @property
    def labels(self) -> int:
        """The number of groups of rows, and of columns, by which entries are held out; 0 if none are."""
        return pattern(self.held_out)[0] + 1 if self.held_out > 0 else 0

    @property
    def implicit_zeros(self) -> bool:
        """Return whether zeros need not be listed: KL divergence needs sums of W H alone."""
        return self.beta == 1 and self._whole

    @property
    def lists_stored(self) -> bool:
        """Return whether the cells to be looked at in a CSR block without weights are its stored entries."""
        return self.implicit_zeros or self.missing == "unstored"

    @property
    def _whole(self) -> bool:
        """Return whether every entry counts alike that is not held out."""
        return self.missing is None and not self.weighted

    def groups_of(self, rows: Places, columns: Places) -> Groups:
        """Return the groups of rows and columns of a block, by which their entries are held out or not.

        Both are global indices in the orientation of the block.
        """
        places: tuple[Places, Places] = (rows, columns)
        found = held_out_groups(self.seed, self.held_out, *self.orientation.turn(places))
        return found.transpose() if self.orientation.by_columns else found


EVERYTHING = EntryMask()


@dataclass(frozen=True)
class MaskedBlock:
    """A block of V with the weights of its entries and the rule by which they count."""

    v: Block  # (r, n), dense or CSR
    weights: Block | None  # (r, n), ≥ 0, dense or CSR
    rows: NDArray[np.int64]  # (r,), global indices
    mask: EntryMask
    row_weights: Array | None = None  # (r,), factors of the weights of each row
    first_column: int = 0  # global index of the first column
    scale: float = 1.0  # a power of two by which entries are multiplied

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.v.shape
        return rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the entries."""
        dtype: np.dtype[Any] = self.v.dtype
        return dtype

    @property
    def groups(self) -> Groups:
        """The groups of the rows and columns, by which entries are held out."""
        columns = range(self.first_column, self.first_column + self.shape[1])
        return self.mask.groups_of(self.rows, columns)

    def __getitem__(self, rows: Any) -> MaskedBlock:
        """Return some of the rows."""
        return MaskedBlock(
            self.v[rows],
            None if self.weights is None else self.weights[rows],
            self.rows[rows],
            self.mask,
            None if self.row_weights is None else self.row_weights[rows],
            self.first_column,
            self.scale,
        )


def with_mask(block: Block, first_row: int, mask: EntryMask) -> Block:
    """Return a block whose entries count by this rule; ``first_row`` is the global index of its first row.

    Entries are not copied.
    """
    if mask.uses_whole_blocks:
        return unwrap(block)
    if isinstance(block, MaskedBlock):
        return replace(block, mask=mask)
    return MaskedBlock(block, None, np.arange(first_row, first_row + block.shape[0]), mask)


def vstack(blocks: Sequence[Block]) -> Block:
    """Return blocks stacked below each other."""
    first = blocks[0]
    if isinstance(first, MaskedBlock):
        return MaskedBlock(
            vstack([block.v for block in blocks]),
            None if first.weights is None else vstack([block.weights for block in blocks]),
            np.concatenate([block.rows for block in blocks]),
            first.mask,
            _stacked_emphasis(blocks),
            scale=first.scale,
        )
    if all(scipy.sparse.issparse(block) for block in blocks):
        return scipy.sparse.csr_array(scipy.sparse.vstack(blocks))
    return np.concatenate(blocks)


def _stacked_emphasis(blocks: Sequence[MaskedBlock]) -> Array | None:
    if all(block.row_weights is None for block in blocks):
        return None
    ones = (np.ones(block.shape[0]) for block in blocks)
    return np.concatenate(
        [
            one if block.row_weights is None else block.row_weights
            for block, one in zip(blocks, ones, strict=True)
        ]
    )


def scale_rows(block: Block, weight: NDArray[np.float64]) -> Block:
    """Return a block whose rows count ``weight``, (r,), times."""
    if np.all(weight == 1):
        return block
    if isinstance(block, MaskedBlock) and block.mask.implicit_zeros:  # D(c v | c y) = c D(v | y)
        return replace(block, v=_times(weight.astype(block.dtype), block.v))
    if isinstance(block, MaskedBlock) and block.mask.by_groups:
        return replace(block, v=_times(np.sqrt(weight).astype(block.dtype), block.v))
    if isinstance(block, MaskedBlock):
        return replace(block, row_weights=weight if block.row_weights is None else weight * block.row_weights)
    return _times(np.sqrt(weight).astype(block.dtype), block)


def with_scale(block: Block, scale: float) -> Block:
    """Return a block that counts as if multiplied by a power of two; entries are not copied."""
    return replace(block, scale=scale) if isinstance(block, MaskedBlock) else scaling.with_scale(block, scale)


def scaled_copy(block: Block, scale: float) -> Block:
    """Return a block whose entries are multiplied by a power of two."""
    if isinstance(block, MaskedBlock):
        return replace(block, v=scaling.scaled_copy(block.v, scale))
    return scaling.scaled_copy(block, scale)


def _times(scale: Array, block: Block) -> Block:
    if scipy.sparse.issparse(block):
        return scipy.sparse.csr_array(scipy.sparse.diags_array(scale) @ block)
    return block * scale[:, None]


def unwrap(block: Block) -> Block:
    """Return the entries of a block without the rule by which they count."""
    return block.v if isinstance(block, MaskedBlock) else block


def n_stored(block: Block) -> int:
    """Return the number of entries that a block stores."""
    if isinstance(block, MaskedBlock):
        return n_stored(block.v)
    return int(block.nnz if scipy.sparse.issparse(block) else block.size)
