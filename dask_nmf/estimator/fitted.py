"""The methods of an estimator that need H alone: transform rows, and turn their W back into rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_nmf.estimator.inputs import in_form_of_input, open_factor_w, open_input
from dask_nmf.inference.transform import open_for_transform, transform
from dask_nmf.kernels.summary.means import Means
from dask_nmf.types import Array


class FittedNMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The methods of `dask_nmf.NMF` that need its H alone, and not the data that H was learned from."""

    missing: str | None
    beta_loss: str | float
    components_: Array
    n_components_: int
    _means: Means | None

    def transform(self, X: Any) -> Array | da.Array:
        """Return the W (n_samples, n_components) that explains X best with the learned H.

        A row of X without an observed entry gets zeros. `dask_nmf.transform` with ``means=model.means_`` also
        returns the means, which tell these rows.
        """
        check_is_fitted(self)
        opening = partial(
            open_for_transform, dtype=None, beta_loss=self.beta_loss, rank=len(self.components_)
        )
        matrix = open_input(self, X, False, opening)
        options = {name: getattr(self, name) for name in ("missing", "alpha_W", "l1_ratio", "beta_loss")}
        W = transform(matrix, self.components_, **options)
        assert isinstance(W, da.Array)
        return in_form_of_input(matrix, W)

    def inverse_transform(self, X: Any) -> Array | da.Array:
        """Return the product of W (n_samples, n_components) and the learned H, (n_samples, n_features).

        It is 0 in rows and columns of which nothing was observed. `dask_nmf.predict` and `recommend` give
        means instead, with ``means=model.means_``.

        Parameters
        ----------
        X : W, as `transform` returns it or in any form that `open_matrix` accepts.
        """
        check_is_fitted(self)
        return open_factor_w(X, self.n_components_) @ self.components_

    @property
    def means_(self) -> Means | None:
        """Means of the entries of X that counted in `fit`; None if all entries counted."""
        return self._means

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
