"""scikit-learn's face: `NMF`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from dask_nmf.algorithms import learns_online
from dask_nmf.display.lines import showing_progress
from dask_nmf.errors import NothingObserved
from dask_nmf.fitting.components import with_unit_rows
from dask_nmf.fitting.factorise import factorise
from dask_nmf.fitting.finalize import Result, result_of
from dask_nmf.fitting.request import Job
from dask_nmf.inference.factors import opened_factor
from dask_nmf.inference.transform import open_for_transform, transform
from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Outcome
from dask_nmf.kernels.summary.means import Means
from dask_nmf.keywords import reject_unknown_keywords
from dask_nmf.online.from_factors import state_from_factors
from dask_nmf.online.partial_fit import partial_fit
from dask_nmf.online.state import StreamState
from dask_nmf.options import plain
from dask_nmf.runs.run import Run
from dask_nmf.settings import Settings
from dask_nmf.sources.factors_and_weights import open_entry_weights, read_factor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import in_memory_form, open_matrix
from dask_nmf.storage.locations import absolute
from dask_nmf.types import Array

OWN = ("n_components", "random_state")  # settings that the estimator makes from its parameters
OPTIONS = tuple(field.name for field in fields(Settings) if field.name not in OWN)


def _learns_from_batches(model: NMF) -> bool:
    """Whether the sums of a pass are all that is needed to go on with other rows."""
    return learns_online(model.solver)


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Non-negative matrix factorisation ``X ≈ W H``, with the names and the behaviour of scikit-learn.

    X may have any form that `open_matrix` accepts. An X in memory (NumPy, SciPy, lists, tables, xarray) gives
    a W in NumPy. Any other X (paths, Dask, Zarr, HDF5, xarray that is backed by those) is read panel by
    panel, never as a whole, and W is a Dask array, chunked like the rows of a Dask X.

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
    max_iter : int
        Largest number of passes over X.
    tol : float
        Stop when a pass lowers the loss by less than this share.
    stop_below : float
        Stop when ‖X − W H‖ falls below this number.
    random_state : int, RandomState or None
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
    components_ : (n_components, n_features) array, H
    n_components_ : int
    reconstruction_err_ : float, ‖X − W H‖ (Frobenius) or √(2 D(X | W H)), over the entries that count
    means_ : Means of the entries of X that count, for each row and column, if entries were missing or
        weighted in `fit`; else None, as after `partial_fit`. `dask_nmf.predict` and `recommend` take them.
        Those of the rows are a Dask array if there is a ``store``.
    validation_error_ : float, root mean squared error of the held-out entries; NaN if there are none
    n_iter_ : int, number of passes
    n_steps_ : int, number of batches that `partial_fit` has seen
    error_history_ : (n_iter_,) array, relative error after each pass
    outcome_ : Outcome, why the fit ended
    message_ : str, the same as a sentence
    n_features_in_, feature_names_in_ : as in scikit-learn
    """

    _stream: StreamState | None  # of the batches so far, and of the fit before them
    _fitted_W: da.Array | None  # of a fit whose sums are not taken yet
    _means: Means | None
    _working_H: Array | None  # of the batches, where `components_` is that with other norms

    @reject_unknown_keywords
    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        solver: str = "hals",
        beta_loss: str | float = "frobenius",
        init: str | None = None,
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
        self.verbose = verbose
        self.forget_factor = forget_factor
        self.callback = callback
        self.store = store
        self.overwrite = overwrite
        self.time_limit = time_limit

    @classmethod
    def load(cls, path: str | Path) -> NMF:
        """Return the fitted estimator of a run: it transforms, and goes on learning from batches.

        Parameters
        ----------
        path : of a run of `fit` with ``store``, of `nmf`, or of the command; it becomes ``store``. Nothing is
            written to it but by `fit`.

        Raises
        ------
        FileNotFoundError, InvalidRunError
            If there is no run.
        ValueError
            If the run has no W and H yet: the same fit has to be called again to finish it.
        """
        stored = Run.load_result(absolute(path))
        asked = stored.settings
        given = {name: getattr(asked, name) for name in OPTIONS}
        given["init"] = None if asked.start == "sample" else asked.init
        given["beta_loss"] = asked.loss_name
        model = cls(asked.n_components, random_state=asked.random_state, store=path, **given)
        model.n_features_in_ = int(stored.record["matrix"]["shape"][1])
        result = result_of(stored)
        model._take(result)
        model._begin_stream(result.W if stored.record["settings"]["weights"] is None else None)
        return model

    def fit(self, X: Any, y: None = None, W: Any = None, H: Any = None, weights: Any = None) -> NMF:
        """Learn H from X (n_samples, n_features), its entries with weights of that shape, if given."""
        self._fit(self._open(X, reset=True), W, H, weights)
        return self

    def fit_transform(
        self, X: Any, y: None = None, W: Any = None, H: Any = None, weights: Any = None
    ) -> Array | da.Array:
        """`fit`, and return W (n_samples, n_components)."""
        matrix = self._open(X, reset=True)
        return _outward(matrix, self._fit(matrix, W, H, weights).W)

    @available_if(_learns_from_batches)
    def partial_fit(self, X: Any, y: None = None, H: Any = None, weights: Any = None) -> NMF:
        """Go on learning H from a batch of rows, (n_rows, n_features), beside those of the calls before.

        The rows of a `fit`, or of a run that was loaded, count too where every entry counts: rows of its W H
        stand for them. Where some are missing or have weights, that fit gives the H to begin with, no more.

        The first call begins with a fit of its batch (not in ``store``), or with ``H``. A batch may have
        fewer rows than there are components, or be zero; one of which nothing is observed is counted in
        ``n_steps_`` and changes nothing. Beside H the estimator keeps sums of its size and a sample of the
        rows: 1000, or 50 a component, of at most 16 MiB (but 2 a component at least). With ``normalize`` the
        components have that norm, and stay in their order. ``reconstruction_err_`` and its like are those of
        the first fit, or missing: of a batch that is gone no error is known.
        """
        first = not hasattr(self, "components_") or H is not None
        matrix = self._open(X, reset=first, opening=partial(open_matrix, transposed=False))
        if first:
            self._begin_stream(None)
        if H is not None:
            self.components_ = np.array(read_factor(H, "H"), matrix.dtype)
        try:
            self._go_on(matrix, weights, H is None and first)
        except NothingObserved:
            if not hasattr(self, "components_"):
                self._know_nothing(matrix)
        self.n_components_ = len(self.components_)
        self.n_steps_ += 1
        return self

    def transform(self, X: Any) -> Array | da.Array:
        """The W (n_samples, n_components) that explains X best with the H that was learned.

        It is 0 for rows of which nothing is observed. `dask_nmf.transform` with ``means=model.means_`` also
        gives the means that tell which rows these are.
        """
        check_is_fitted(self)
        matrix = self._open(
            X,
            False,
            partial(open_for_transform, dtype=None, beta_loss=self.beta_loss, rank=len(self.components_)),
        )
        asked = {name: getattr(self, name) for name in ("missing", "alpha_W", "l1_ratio", "beta_loss")}
        w = transform(matrix, self.components_, **asked)
        assert isinstance(w, da.Array)
        return _outward(matrix, w)

    def inverse_transform(self, X: Any) -> Array | da.Array:
        """The product of W (n_samples, n_components) and the H that was learned, (n_samples, n_features).

        It is 0 in rows and columns of which nothing was observed. `dask_nmf.predict` and `recommend` have
        means in their place, with ``means=model.means_``.

        Parameters
        ----------
        X : W, as `transform` gives it or in any form that `open_matrix` takes.
        """
        check_is_fitted(self)
        W = opened_factor(X, "X")
        if len(W.shape) != 2 or W.shape[1] != self.n_components_:
            raise ValueError(
                f"X has shape {W.shape} and there are {self.n_components_} components; give a W with a "
                "column for each, as transform does"
            )
        if not isinstance(W, np.ndarray | da.Array):
            W = da.from_array(W, name=False)
        return W @ self.components_

    @property
    def means_(self) -> Means | None:
        """Means of the entries of X that counted in `fit`; None if all of them did."""
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

    def _fit(self, matrix: Matrix, W: Any, H: Any, weights: Any) -> Result:
        result = self._learn(matrix, W, H, weights, self.store)
        self._warn_unless_converged(result)
        self._begin_stream(result.W if weights is None else None)
        if self._fitted_W is not None and self.store is None:
            self._remember(self._fitted_W)  # or it would stay in memory
        return result

    def _go_on(self, matrix: Matrix, weights: Any, anew: bool) -> None:
        """Learn from a batch, which is fitted first if there is no H, or one of zeros."""
        if anew or not self.components_.any():  # from rows of zeros no step leads away
            self._learn(matrix, None, None, weights, None)
        if self._fitted_W is not None:
            self._remember(self._fitted_W)
        settings = self._settings(len(self.components_))
        job = Job(settings, weights=None if weights is None else open_entry_weights(matrix, weights))
        h = self.components_ if self._working_H is None else self._working_H
        h, self._stream = partial_fit(matrix, job, h, self._stream, self.forget_factor)
        self.components_, self._means = h, None
        if self.normalize is not None:
            self._working_H, self.components_ = h, with_unit_rows(h, self.normalize)

    def _know_nothing(self, matrix: Matrix) -> None:
        """Become the estimator that has seen rows, and no entry of them."""
        rank = self._settings(self._rank(matrix, None, None)).n_components
        self.components_ = np.zeros((rank, matrix.shape[1]), matrix.dtype)
        self.reconstruction_err_ = self.validation_error_ = float("nan")
        self.n_iter_, self.error_history_, self._means = 0, np.empty(0), None
        self.outcome_, self.message_ = Outcome.UNOBSERVED, "nothing was observed"

    def _begin_stream(self, W: da.Array | None) -> None:
        """Begin with no batch, and with the W of a fit, which is read when the first batch comes."""
        self.n_steps_, self._stream, self._fitted_W, self._working_H = 0, None, W, None

    def _remember(self, W: da.Array) -> None:
        """Let the rows of the fit that gave W count beside batches, if every entry of theirs counted."""
        self._fitted_W = None
        if learns_online(self.solver) and self.missing is None:
            self._stream = state_from_factors(W, self.components_, self._settings(self.n_components_))

    def _settings(self, rank: int) -> Settings:
        return Settings(rank, random_state=self._seed(), **{name: getattr(self, name) for name in OPTIONS})

    def _learn(self, matrix: Matrix, W: Any, H: Any, weights: Any, store: str | Path | None) -> Result:
        W, H = (
            None if factor is None else open_matrix(factor, transposed=False, name=name)
            for factor, name in ((W, "W"), (H, "H"))
        )
        settings = self._settings(self._rank(matrix, W, H))
        job = Job(
            settings,
            W=W,
            H=H,
            weights=weights,
            store=None if store is None else str(store),
            overwrite=self.overwrite,
            time_limit=self.time_limit,
            callback=self.callback,
        )
        with showing_progress(self.verbose):
            result = factorise(matrix, job)
        self._take(result)
        return result

    def _warn_unless_converged(self, result: Result) -> None:
        """Warn of a fit that ended early. A stream goes on from its first batch, and needs no such end."""
        at_end = result.outcome in (Outcome.MAX_ITER, Outcome.NOT_CONVERGED)
        if result.n_iter == self.max_iter and self.tol > 0 and at_end:
            warnings.warn(f"{result.message}; raise max_iter or tol", ConvergenceWarning, stacklevel=4)
        elif not result.outcome.converged and result.outcome is not Outcome.MAX_ITER:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=4)

    def _take(self, result: Result) -> None:
        """Become the estimator that has this result."""
        self.components_, self._working_H = np.asarray(result.H.compute()), None
        self.n_components_ = len(self.components_)
        self.reconstruction_err_ = result.reconstruction_err
        self.validation_error_ = result.validation_error
        self.n_iter_ = result.n_iter
        self.error_history_ = result.error_history
        self.outcome_, self.message_ = result.outcome, result.message
        means = result.means
        if means is not None:
            rows = means.rows if self.store is not None else np.asarray(means.rows)
            means = Means(rows, np.asarray(means.columns), means.overall)
        self._means = means

    def _open(self, X: Any, reset: bool, opening: Callable[[Any], Matrix] = open_matrix) -> Matrix:
        """Open X; only what is in memory goes through scikit-learn's checks, all else is read by panels."""
        held = in_memory_form(X, "X")
        matrix = opening(X if held is None else self._numbers(held))
        named = X if held is not None else getattr(X, "_meta", None)  # a Dask DataFrame has columns too
        if not hasattr(named, "columns"):
            named = np.broadcast_to(0.0, matrix.shape)
        validate_data(self, named, reset=reset, skip_check_array=True)
        return matrix

    def _numbers(self, held: Any) -> Any:
        """Return what is in memory, checked, integers as float64. The first read looks at the entries."""
        try:
            return check_array(
                held,
                accept_sparse=True,
                dtype=[np.float64, np.float32],
                ensure_all_finite=False,
                estimator=self,
                input_name="X",
            )
        except TypeError as error:
            raise TypeError(
                f"X has an entry that is no number ({error}); give NaN for what is missing"
            ) from error

    def _rank(self, matrix: Matrix, W: Matrix | None, H: Matrix | None) -> int:
        asked = plain(self.n_components)
        if isinstance(asked, int):
            return asked
        if asked not in (None, "auto"):
            raise ValueError(
                f"n_components is {self.n_components!r}; it must be an integer >= 1, 'auto' or None"
            )
        if H is not None:
            return H.shape[0]
        if W is not None:
            return W.shape[1]
        return min(matrix.shape)

    def _seed(self) -> int:
        asked = plain(self.random_state)
        if isinstance(asked, int):
            return asked
        if asked is None and self.store is not None:
            return 0  # or no fit could be resumed
        return int(check_random_state(asked).randint(2**31 - 1))


def _outward(matrix: Matrix, w: da.Array) -> Array | da.Array:
    """Return W as NumPy where X was in memory, else as a Dask array, chunked as the rows of a Dask X."""
    if matrix.in_memory:
        return np.asarray(w.compute())
    chunks = matrix.reader.dask_chunks
    return w if chunks is None else w.rechunk((chunks[matrix.transposed], w.shape[1]))
