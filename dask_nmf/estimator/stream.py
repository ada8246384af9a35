"""The state that `NMF.partial_fit` keeps from batch to batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da

from dask_nmf.fitting.components import with_unit_rows
from dask_nmf.fitting.request import FitRequest
from dask_nmf.online.from_factors import state_from_factors
from dask_nmf.online.partial_fit import partial_fit
from dask_nmf.online.state import StreamState
from dask_nmf.options.settings import Settings
from dask_nmf.sources.factors_and_weights import open_entry_weights
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@dataclass
class Stream:
    """The state of `partial_fit` beside H.

    Parameters
    ----------
    fitted_W : W of an earlier fit whose rows count like those of batches; it is read before the first batch.
    state : sums and sample of the batches so far, and of that fit.
    working_H : H of the batches, if ``components_`` is that H with normalised rows.
    """

    fitted_W: da.Array | None = None
    state: StreamState | None = None
    working_H: Array | None = None

    def remember_fit(self, H: Array, settings: Settings) -> None:
        """Replace the W of the fit by sums and a sample, of the size of H."""
        W, self.fitted_W = self.fitted_W, None
        if W is not None:
            self.state = state_from_factors(W, H, settings)

    def learn(
        self, matrix: Matrix, weights: Any, settings: Settings, H: Array, forget_factor: float
    ) -> Array:
        """Return H after a batch, with normalised rows if the settings say so."""
        request = FitRequest(
            settings, weights=None if weights is None else open_entry_weights(matrix, weights)
        )
        before = H if self.working_H is None else self.working_H
        after, self.state = partial_fit(matrix, request, before, self.state, forget_factor)
        if settings.normalize is None:
            return after
        self.working_H = after
        return with_unit_rows(after, settings.normalize)
