"""The state of a stream: everything that it carries from batch to batch beside H."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.types import Block


class StreamState(NamedTuple):
    """The sums and the sample of all rows so far, in units of their own."""

    sums: Sums  # over all rows so far, each with the W that it had when it came
    sample: Block  # rows drawn from all rows so far, scaled so that they stand for all
    scale: float  # power of two by which V is multiplied in both; 0 while all of V is 0
    unit: float  # number by which H is divided in both
    rows: float  # the number of rows so far, less where earlier ones are forgotten
    rows_at_refit: float  # the same when H was last refitted to the sample
    loss_rate: float  # the loss of the sample over its size at that time

    def discounted(self, share: float) -> StreamState:
        """Return the state where all rows so far count ``share`` times."""
        if share == 1:
            return self
        return self._replace(
            sums=self.sums.scaled(share),
            sample=masking.scale_rows(self.sample, np.full(self.sample.shape[0], share)),
            rows=self.rows * share,
            rows_at_refit=self.rows_at_refit * share,
        )

    def at_scale(self, scale: float, beta: float) -> StreamState:
        """Return the state for V at another scale."""
        if scale == self.scale or self.scale == 0:
            return self._replace(scale=scale)
        ratio = scale / self.scale
        cost, squared = scaling.power(ratio, beta), ratio * ratio
        sums = self.sums._replace(
            num=self.sums.num * cost,
            gram=self.sums.gram * cost,
            residual=self.sums.residual * cost,
            w_sq_norm=self.sums.w_sq_norm * squared,
            w_l1_norm=self.sums.w_l1_norm * ratio,
            w_sum=self.sums.w_sum * ratio,
        )
        return self._replace(sums=sums, sample=masking.scaled_copy(self.sample, ratio), scale=scale)
