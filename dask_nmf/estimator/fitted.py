"""The methods of an estimator that return what has the rows of X: their W, or the rows that W stands for."""

from __future__ import annotations

from functools import partial
from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_nmf.estimator.callbacks.passes import CallbackSupport
from dask_nmf.estimator.inputs import OpenedInput, open_input
from dask_nmf.estimator.outputs import rows_in_form, w_in_container
from dask_nmf.fitting.result import Result
from dask_nmf.inference.transform import open_for_transform, transform
from dask_nmf.kernels.summary.means import Means
from dask_nmf.sources.labelled.arrays import Side, components_in_form
from dask_nmf.types import Array, SampleDims


class FittedNMF(  # type: ignore[call-arg]
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
    CallbackSupport,  # type: ignore[misc]
    auto_wrap_output_keys=None,
):
    """The methods of `dask_nmf.NMF` that return what has the rows of X.

    Their output follows `set_output`. scikit-learn's own wrapper would read a W that is a Dask array.
    """

    missing: str | None
    beta_loss: str | float
    sample_dims: SampleDims
    components_: Any
    n_components_: int
    _means: Means | None
    _features: Side | None = None  # the dimensions of the features of a DataArray

    def fit_transform(
        self,
        X: Any,
        y: None = None,
        W: Any = None,
        H: Any = None,
        weights: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn H from X as `fit` does, and return W (n_samples, n_components), as `transform` returns it."""
        opened = open_input(self, X, reset=True)
        return w_in_container(self, opened, self._fit(opened, (W, H), weights, sample_weight).W, X)

    def _fit(self, opened: OpenedInput, factors: tuple[Any, Any], weights: Any, sample_weight: Any) -> Result:
        raise NotImplementedError

    def transform(self, X: Any) -> Any:
        """Return the W (n_samples, n_components) that explains X best with the learned H.

        A row of X without an observed entry gets zeros. `dask_nmf.transform` with ``means=model.means_`` also
        returns the means, which tell these rows.

        A `DataArray` gives a `DataArray`. Of all other X, W is an array, or what `set_output` says: with
        "pandas" it is a DataFrame, of Dask if X is read panel by panel; with "polars" one in memory.
        """
        check_is_fitted(self)
        opening = partial(open_for_transform, dtype=None, beta_loss=self.beta_loss, rank=len(self._h))
        opened = open_input(self, X, False, opening)
        options = {name: getattr(self, name) for name in ("missing", "alpha_W", "l1_ratio", "beta_loss")}
        return w_in_container(self, opened, transform(opened.matrix, self._h, **options), X)

    def inverse_transform(self, X: Any) -> Any:
        """Return the product of W (n_samples, n_components) and the learned H, (n_samples, n_features).

        It is 0 in rows and columns of which nothing was observed. `dask_nmf.predict` and `recommend` give
        means instead, with ``means=model.means_``. A DataFrame gives a DataFrame of its kind, and a
        `DataArray` one over the dimensions of the features.

        Parameters
        ----------
        X : W, as `transform` returns it or in any form that `open_matrix` accepts.
        """
        check_is_fitted(self)
        return rows_in_form(X, self._h, self._features, getattr(self, "feature_names_in_", None))

    @property
    def means_(self) -> Means | None:
        """Means of the entries of X that counted in `fit`; None if all entries counted."""
        return self._means

    @property
    def _h(self) -> Array:
        """The learned H as a matrix, (n_components, n_features)."""
        array: Array = self.components_ if self._features is None else self.components_.values
        return array.reshape(len(array), -1)

    def _set_components(self, H: Array) -> None:
        """Take H (n_components, n_features), as an array over the features of a `DataArray` if X was one."""
        self.components_ = H if self._features is None else components_in_form(self._features, H)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
