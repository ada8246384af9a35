"""The estimator `NMF`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from sklearn.utils.metaestimators import available_if

from dask_nmf.display.lines import showing_progress
from dask_nmf.errors import NothingObserved
from dask_nmf.estimator import requests
from dask_nmf.estimator.attributes import attributes_of, attributes_without_data, warn_unless_converged
from dask_nmf.estimator.callbacks.passes import report_passes
from dask_nmf.estimator.fitted import FittedNMF
from dask_nmf.estimator.inputs import OpenedInput, features_of, open_input
from dask_nmf.estimator.stream import Stream
from dask_nmf.fitting.factorise import factorise
from dask_nmf.fitting.result import Result, result_of
from dask_nmf.iteration.loop import Step
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.options.settings import Settings
from dask_nmf.runs.run import Run
from dask_nmf.sources.factors_and_weights import read_factor
from dask_nmf.sources.labelled.registry import aligned_weights, check_factors
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import locate
from dask_nmf.types import Orientation, SampleDims


class NMF(FittedNMF):
    """Non-negative matrix factorisation ``X ≈ W H``, with the names and the behaviour of scikit-learn.

    X may have any form that `open_matrix` accepts. An X in memory (NumPy, SciPy, lists, tables, AnnData)
    gives a W in NumPy. Any other X (paths, Dask, Zarr, HDF5, AnnData in a file) is read panel by panel, never
    as a whole, and W is a Dask array, chunked like the rows of a Dask X. A `DataArray` gives a `DataArray`
    with coordinates, lazily where it is lazy itself. ``set_output(transform="pandas")`` gives DataFrames: of
    Dask where W would be a Dask array, else in memory.

    Parameters
    ----------
    n_components : int, "auto" or None
        Number of components. "auto" and None mean that of the given factors, or else min(X.shape).
    solver : {"hals", "mu", "sgd"}
        Algorithm; see `dask_nmf.nmf`.
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float
        Loss to minimise. Solver "hals" takes the first two, "mu" takes any, "sgd" takes the first.
    init : {None, "sample", "random", "nndsvd", "nndsvda", "nndsvdar", "custom"}
        None means "sample", or "custom" if ``W`` or ``H`` is given to `fit_transform`. The three that begin
        with "nndsvd" are those of scikit-learn.
    n_init : int
        Number of starts, which share each read of X; the one with the least objective is kept. See `nmf`.
    max_iter : int
        Largest number of passes over X.
    tol : float
        Stop when a pass lowers the loss by less than this share.
    stop_below : float
        Stop when ‖X − W H‖ falls below this number.
    random_state : seed of all random numbers, an int or a RandomState; None gives another one each time.
    missing : {None, "nan", "unstored"}
        Entries of X that are missing: none, those that are NaN, or those that a sparse X does not store.
    alpha_W, alpha_H : float, or "same" for ``alpha_H``
        Strengths of the penalties, as in scikit-learn. `transform` applies ``alpha_W`` too.
    l1_ratio : float
        Share of the L1 norm in the penalties.
    normalize : {None, "l1", "l2"}
        Scale each component to norm 1 in this norm, and sort the components by weight, the largest first.
    validation_fraction : float
        Share of the entries that is held out. The result is that of the pass with the lowest held-out error.
    delta, inner_iter : options of solver "mu"; see `dask_nmf.nmf`.
    schedule, learning_rate, batch_size : options of solver "sgd"; see `dask_nmf.nmf`.
    sample_dims : for an X that is a `DataArray` of xarray, the dimension or dimensions that make its rows;
        the others are the features. By default the first one makes the rows.
    verbose : int
        1 shows the progress: a bar on a terminal or in a notebook, elsewhere one line for each pass.
    forget_factor : float
        Factor by which each call of `partial_fit` scales the influence of earlier batches; 1 forgets nothing.
    callback : function that is called with the `Step` of each pass.
    store : path of a Zarr group for the run of `fit`. Each pass is committed to it; a `fit` of the same X
        resumes an unfinished run, and takes W and H from a finished one. Another X, or other parameters, are
        refused unless ``overwrite``. A ``random_state`` of None then means 0. See `load`.
    overwrite : whether a run that is in ``store`` may be replaced.
    time_limit : seconds after which the pass that is running is the last one.

    Attributes
    ----------
    components_ : (n_components, n_features) array, H; of a `DataArray` X, a `DataArray` over components and
        the dimensions of the features, so that components of images are images
    n_components_ : int
    reconstruction_err_ : float, ‖X − W H‖ (Frobenius) or √(2 D(X | W H)), over the entries that count
    means_ : Means of the entries of X that count, for each row and column, if entries were missing or
        weighted in `fit`; else None, as after `partial_fit`. `dask_nmf.predict` and `recommend` take them.
        Those of the rows are a Dask array if there is a ``store``.
    validation_error_ : float, root mean squared error of the held-out entries; NaN if there are none
    n_iter_ : int, number of passes
    n_steps_ : int, number of batches that `partial_fit` has seen
    objectives_ : (n_init,) array, the objective of each start, see `Result.objectives`; None if there was one
    error_history_ : array, relative error after each pass
    outcome_ : Outcome, why the fit ended
    message_ : str, the same as a sentence
    n_features_in_, feature_names_in_ : as in scikit-learn. The names are the columns of a DataFrame, also of
        Dask, ``var_names`` of an AnnData, the texts that are coordinates of the only other dimension of a
        `DataArray`, or those of a run or a stored X. `transform` refuses other names and coordinates.

    Examples
    --------
    >>> from dask_nmf import NMF
    >>> X = [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 3.0]]
    >>> model = NMF(2, random_state=0)
    >>> model.fit_transform(X).shape, model.components_.shape
    ((3, 2), (2, 3))
    """

    _stream: Stream

    @reject_unknown_keywords
    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        solver: str = "hals",
        beta_loss: str | float = "frobenius",
        init: str | None = None,
        n_init: int = 1,
        max_iter: int = 200,
        tol: float = 1e-4,
        stop_below: float = 0.0,
        random_state: Any = None,
        missing: str | None = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        normalize: str | None = None,
        validation_fraction: float = 0.0,
        delta: float | None = None,
        inner_iter: int = 1,
        schedule: str = "adagrad",
        learning_rate: float | None = None,
        batch_size: int | None = None,
        sample_dims: SampleDims = None,
        verbose: int = 0,
        forget_factor: float = 1.0,
        callback: Callable[[Step], None] | None = None,
        store: str | Path | None = None,
        overwrite: bool = False,
        time_limit: float | None = None,
    ) -> None:
        self.n_components = n_components
        self.solver = solver
        self.beta_loss = beta_loss
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.stop_below = stop_below
        self.random_state = random_state
        self.missing = missing
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.normalize = normalize
        self.validation_fraction = validation_fraction
        self.delta = delta
        self.inner_iter = inner_iter
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.sample_dims = sample_dims
        self.verbose = verbose
        self.forget_factor = forget_factor
        self.callback = callback
        self.store = store
        self.overwrite = overwrite
        self.time_limit = time_limit

    @classmethod
    def load(cls, path: str | Path) -> NMF:
        """Return the fitted estimator of a run, which can transform, and learn from more batches.

        Parameters
        ----------
        path : path of a run of `fit` with ``store``, of `nmf`, or of the command; it becomes ``store``. Only
            `fit` writes to it.

        Raises
        ------
        FileNotFoundError, InvalidRunError
            If there is no run.
        ValueError
            If the run has no W and H yet; calling the same fit again finishes it.
        """
        stored = Run.load_result(locate(path))
        model = cls(store=path, **requests.parameters_of(stored.settings))
        result = result_of(stored)
        model._take(features_of(stored) | attributes_of(result, stored=True))
        model._begin_stream(result.W if stored.record["settings"]["weights"] is None else None)
        return model

    def fit(
        self,
        X: Any,
        y: None = None,
        W: Any = None,
        H: Any = None,
        weights: Any = None,
        sample_weight: Any = None,
    ) -> NMF:
        """Learn H from X (n_samples, n_features), with weights ≥ 0 of its entries or of its rows, if given.

        A row whose ``sample_weight`` is 2 counts as if it were there twice; W of one of weight 0 is 0.
        """
        self._fit(open_input(self, X, reset=True), (W, H), weights, sample_weight)
        return self

    @available_if(requests.learns_from_batches)
    def partial_fit(
        self, X: Any, y: None = None, H: Any = None, weights: Any = None, sample_weight: Any = None
    ) -> NMF:
        """Learn H from another batch of rows, (n_rows, n_features), without forgetting the earlier batches.

        The rows of an earlier `fit`, or of a run that was loaded, count too if all their entries count: rows
        of its W H stand for them. If entries were missing or weighted, that fit gives only the initial H.

        The first call fits its batch (without ``store``), or starts from ``H``. A batch may have fewer rows
        than there are components, or be zero; a batch without an observed entry is counted in ``n_steps_``
        and changes nothing. Beside H the estimator keeps sums of its size and a sample of the rows: 1000 rows
        or 50 for each component, of at most 16 MiB, but at least 2 for each component. With ``normalize`` the
        components have norm 1 and keep their order. ``reconstruction_err_`` and the other errors are those of
        the first fit, because the error of a batch that is gone is not known.
        """
        first = not hasattr(self, "components_") or H is not None
        opened = open_input(self, X, first, partial(open_matrix, orientation=Orientation.ROWS))
        matrix, weights = opened.matrix, aligned_weights(weights, X, self.sample_dims)
        weights = requests.weights_of_batch(matrix, weights, sample_weight)
        if first:
            self._begin_stream(None)
        if H is not None:
            self._set_components(np.array(read_factor(H, "H"), matrix.dtype))
        try:
            self._learn_batch(matrix, weights, H is None and first)
        except NothingObserved:
            if not hasattr(self, "components_"):
                number = requests.number_of_components(self.n_components, matrix, None, None)
                shape = self._settings(number).n_components, matrix.shape[1]
                self._take(attributes_without_data(shape, matrix.dtype))
        self.n_components_ = len(self.components_)
        self.n_steps_ += 1
        return self

    def _fit(self, opened: OpenedInput, factors: tuple[Any, Any], weights: Any, sample_weight: Any) -> Result:
        check_factors(opened.source, W=factors[0], H=factors[1])
        weights = aligned_weights(weights, opened.source, self.sample_dims)
        parameters = self.get_params(deep=False)
        weighted = requests.weigh_samples(parameters, opened.matrix, factors[0], weights, sample_weight)
        result = report_passes(self, opened.source, partial(self._learn, weighted, factors[1], True))
        warn_unless_converged(result, self.max_iter, self.tol)
        self._begin_stream(result.W if weights is None and sample_weight is None else None)
        if self.store is None:
            self._remember_fit()  # or its W would stay in memory
        return result

    def _learn(self, weighted: requests.Weighted, H: Any, stored: bool, callback: Any) -> Result:
        """Fit a matrix from initial factors, which may be None, and take the attributes."""
        parameters = self.get_params(deep=False) | dict(weighted.overrides) | {"callback": callback}
        request = requests.request_of(parameters, weighted.matrix, (weighted.W, H), weighted.weights, stored)
        with showing_progress(self.verbose):
            result = weighted.unscaled(factorise(weighted.matrix, request))
        self._take(attributes_of(result, self.store is not None))
        return result

    def _take(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self._set_components(attributes["components_"])

    def _learn_batch(self, matrix: Matrix, weights: Any, anew: bool) -> None:
        """Learn from a batch, which is fitted first if there is no H, or one of zeros."""
        if anew or not self._h.any():  # from rows of zeros no step leads away
            self._learn(requests.Weighted(matrix, None, weights), None, False, self.callback)
            self._stream.working_H = None
        self._remember_fit()
        settings = self._settings(len(self.components_))
        self._set_components(self._stream.learn(matrix, weights, settings, self._h, self.forget_factor))
        self._means = None

    def _begin_stream(self, W: da.Array | None) -> None:
        """Begin with no batch; the rows of a fit that gave W count if every entry of theirs counted."""
        counts = requests.learns_from_batches(self) and self.missing is None
        self.n_steps_, self._stream = 0, Stream(W if counts else None)

    def _remember_fit(self) -> None:
        if self._stream.fitted_W is not None:
            self._stream.remember_fit(self._h, self._settings(self.n_components_))

    def _settings(self, n_components: int) -> Settings:
        return requests.settings_of(self.get_params(deep=False), n_components)
