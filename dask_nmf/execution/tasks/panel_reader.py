"""How a task loads its panel of V: it reads it, or gets its blocks from Dask, and adds weights and mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Block


@dataclass(frozen=True)
class PanelReader:
    """The panels of V, which tasks load."""

    rows: tuple[slice, ...]  # of each panel
    readers: tuple[Reader | None, ...]  # of V, and of its weights if they differ; None: Dask has the blocks
    mask: EntryMask

    @property
    def needs_blocks(self) -> bool:
        """Return whether a task must be given blocks that Dask has."""
        return None in self.readers

    def load(self, number: int, blocks: Iterator[Block]) -> Block:
        """Return a panel; blocks that Dask has are taken from ``blocks``, V before its weights."""
        rows = self.rows[number]
        v, *weights = (
            aligned(next(blocks) if reader is None else reader[rows, slice(0, reader.shape[1])])
            for reader in self.readers
        )
        if self.mask.uses_whole_blocks:
            return v
        return MaskedBlock(v, weights[0] if weights else None, np.arange(rows.start, rows.stop), self.mask)

    def select(self, numbers: Sequence[int]) -> PanelReader:
        """Return some of the panels."""
        return replace(self, rows=tuple(self.rows[number] for number in numbers))


def aligned(block: Block) -> Block:
    """Return a block aligned as BLAS needs it; one that came over the network may begin at any byte."""
    return np.require(block, requirements="A") if isinstance(block, np.ndarray) else block
