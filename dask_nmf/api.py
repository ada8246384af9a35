"""The functions `nmf` and `select_rank`, with every option written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dask_nmf.display.lines import showing_progress
from dask_nmf.fitting.factorise import cache_bytes, factorise
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.result import Result
from dask_nmf.iteration.loop import Step
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.options.settings import Settings
from dask_nmf.selection.models import SelectionOptions
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.select import Request, choose_rank
from dask_nmf.sources.labelled.registry import aligned_weights, check_factors, form_of, labels_of
from dask_nmf.storage.locations import locate, located
from dask_nmf.types import SampleDims


@reject_unknown_keywords
def nmf(
    V: Any,
    n_components: int,
    *,
    solver: str = "hals",
    beta_loss: str | float = "frobenius",
    init: str | None = None,
    n_init: int = 1,
    max_iter: int = 200,
    tol: float = 1e-4,
    stop_below: float = 0.0,
    random_state: int = 0,
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
    W: Any = None,
    H: Any = None,
    fixed_W: Any = None,
    fixed_H: Any = None,
    weights: Any = None,
    sample_dims: SampleDims = None,
    dtype: str | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    time_limit: float | None = None,
    cache: int | str = "auto",
    callback: Callable[[Step], None] | None = None,
    verbose: int = 0,
) -> Result:
    """Factorise a non-negative matrix V (m × n) as W H, with W (m × k) and H (k × n) non-negative.

    The fit runs on the active `distributed` client, or in the threads of this process if there is none. Two
    fits of the same V with the same options give the same W and H.

    Parameters
    ----------
    V : the matrix, in any form that `open_matrix` accepts: an array, a sparse matrix, a Dask array, or a
        path.
    n_components : number of components, k. If ``init`` uses singular vectors, it is at most min(m, n).
    solver : ``"hals"`` solves for W anew in each pass and needs few passes; ``"mu"`` takes the multiplicative
        steps of Lee & Seung; ``"sgd"`` takes gradient steps over minibatches, for a V whose entries are
        mostly missing.
    beta_loss : the loss to minimise: ``"frobenius"`` (½ ‖V − W H‖²), ``"kullback-leibler"`` (for counts),
        ``"itakura-saito"`` (V > 0), or the β of a β-divergence (these three have β = 2, 1 and 0). Solver
        ``"hals"`` takes the first two, ``"mu"`` takes any, ``"sgd"`` takes the first. The error of a
        divergence D is reported as √(2 D), which is ‖V − W H‖ if β = 2, and its relative error is
        √(D(V | W H) / D(V | mean of V)).
    init : ``"sample"`` (the default) factorises a sample of the rows in memory and starts from its H;
        ``"random"``; ``"custom"`` starts from the W, the H, or both, that are given. The others are those of
        scikit-learn: ``"nndsvd"`` uses singular vectors, which takes two more reads of V and needs every
        entry of it; ``"nndsvda"`` replaces their zeros by the mean of V; ``"nndsvdar"`` replaces them by
        random numbers of about a hundredth of that mean.
    n_init : number of starts. They share each read of V until each has converged, and the one with the least
        objective is kept: see `Result.objectives`. Start i is that of ``random_state + i * 2**32``. A start
        that no seed changes (``"nndsvd"``, ``"nndsvda"``, given factors) and solver ``"sgd"`` take 1.
    max_iter : largest number of passes over V.
    tol : stop when a pass lowers the loss by less than ``tol`` times the loss, or ``tol`` times the part of
        ‖V‖² that is explained, if that is less.
    stop_below : stop when ‖V − W H‖ (Frobenius) falls below this number.
    random_state : seed of the start, of the choice of held-out entries and of the order of minibatches.
    missing : None if every entry of V counts; ``"nan"`` if NaN marks a missing entry; ``"unstored"`` if only
        the stored entries of a sparse V count, in which case a stored zero is an observed zero.
    alpha_W, alpha_H : strengths of the penalties, scaled as in scikit-learn: ‖V − W H‖², or twice the
        divergence, is increased by ``alpha_W · n_i ((1 − l1_ratio) ‖w_i‖² + 2 l1_ratio |w_i|)`` for each row
        of W and by ``alpha_H · m_j (…)`` for each column of H, where n_i and m_j are the number (or the sum
        of the weights) of the entries that count in that row or column of V. ``alpha_H="same"`` means
        ``alpha_W``.
    l1_ratio : share of the L1 norm in the penalties, from 0 to 1.
    normalize : ``"l1"`` or ``"l2"`` scales the rows of H of the result to norm 1 in that norm, scales W so
        that W H stays the same, and sorts the components by the norms of the columns of W, largest first.
    validation_fraction : share of the entries that is held out. The fit ends when their error has not fallen
        for some passes, and its result is that of the pass with the lowest held-out error.
    delta : solver ``"mu"``: number that is added to denominators. By default it is far below the scale of V.
    inner_iter : solver ``"mu"``: number of update steps on the products of each pass; 1 is the method of Lee
        & Seung.
    schedule : solver ``"sgd"``: how the step size changes. ``"adagrad"`` gives each row and column its own
        step, from the gradients so far (Duchi et al. 2011), which does not depend on the scale of V;
        ``"bold-driver"`` grows the step by 5 % when the loss falls and halves it when the loss rises;
        ``"constant"``; ``"inverse-time"`` divides the first step by the number of the pass.
    learning_rate : solver ``"sgd"``: size of the first steps. For ``"adagrad"`` it is relative to the size of
        the entries of the factor (by default 0.1 from a random start, else 0.03); for the other schedules it
        is absolute (by default a step that is safe at the scale of V).
    batch_size : solver ``"sgd"``: number of rows of V in a minibatch (by default 32) or, where entries are
        missing, of stored entries (by default 1).
    W, H : initial factors, both or one, as arrays or paths; ``init`` is then ``"custom"``.
    fixed_W, fixed_H : one factor that is known, such as signatures or endmembers; only the other is fitted.
    weights : weights ≥ 0 of the entries of V in the loss, (m, n), in any form that `open_matrix` accepts. An
        entry of weight 0 does not count.
    sample_dims : for a `DataArray` of xarray, the dimension or dimensions that make the rows of V; the others
        make the columns. By default the first one makes the rows.
    dtype : floating-point type used for the computation, ``"float32"`` or ``"float64"``; see `open_matrix`.
    store : path of a Zarr group for the run. Each pass is committed to it, an unfinished run is resumed, and
        W is never held in memory.
    overwrite : whether a run that is in ``store`` may be replaced.
    time_limit : seconds after which the pass that is running is the last one.
    cache : what each worker keeps of V between passes: ``"auto"`` (as much as the plan leaves of its memory),
        ``"off"``, or a limit below that, in bytes or as text (``"2GiB"``). The result does not depend on it.
    callback : function that is called with the `Step` of each pass, of each start in turn.
    verbose : 1 shows the progress: a bar on a terminal or in a notebook, elsewhere one line for each pass.

    Returns
    -------
    Result, whose W and H are Dask arrays, or in the form of V if it has labels: DataFrames for a DataFrame of
    pandas, polars or Dask (then H is one of pandas) and for an AnnData, tables of pyarrow for one of pyarrow,
    and `DataArray` with coordinates for a `DataArray`.

    Raises
    ------
    InvalidEntryError
        If V has a NaN (unless ``missing="nan"``), an infinity or a negative entry.
    ValueError, TypeError
        If V or an option is not as described above.
    MemoryError
        If neither a panel nor a block of V fits the memory of a worker.
    RunMismatch, RunLocked
        If ``store`` holds another fit, or is in use.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> W, H = nmf([[1.0, 2.0], [3.0, 6.0]], 1)
    >>> W.shape, H.shape
    ((2, 1), (1, 2))
    """
    settings = Settings(
        n_components=n_components,
        solver=solver,
        beta_loss=beta_loss,
        init=init,
        n_init=n_init,
        max_iter=max_iter,
        tol=tol,
        stop_below=stop_below,
        random_state=random_state,
        missing=missing,
        alpha_W=alpha_W,
        alpha_H=alpha_H,
        l1_ratio=l1_ratio,
        normalize=normalize,
        validation_fraction=validation_fraction,
        delta=delta,
        inner_iter=inner_iter,
        schedule=schedule,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
    check_factors(V, W=W, H=H, fixed_W=fixed_W, fixed_H=fixed_H)
    matrix, form = form_of(located(V), sample_dims)
    request = FitRequest(
        settings,
        W=located(W),
        H=located(H),
        fixed_W=located(fixed_W),
        fixed_H=located(fixed_H),
        weights=aligned_weights(located(weights), V, sample_dims),
        dtype=dtype,
        store=None if store is None else locate(store),
        overwrite=overwrite,
        time_limit=time_limit,
        cache=cache_bytes(cache),
        callback=callback,
        labels=labels_of(None if store is None else form),
    )
    with showing_progress(verbose):
        return factorise(matrix, request).labelled(form)


@reject_unknown_keywords
def select_rank(
    V: Any,
    ranks: str | int | Iterable[int],
    *,
    n_init: int = 5,
    folds: int = 1,
    holdout: float = 0.03,
    error_bars: int = 0,
    random_state: int = 0,
    solver: str = "hals",
    beta_loss: str | float = "frobenius",
    max_iter: int = 200,
    tol: float = 1e-4,
    missing: str | None = None,
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    dtype: str | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    time_limit: float | None = None,
    cache: int | str = "auto",
    verbose: int = 0,
) -> RankSelection:
    """Choose the number of components of V (m × n) by the error of held-out entries, and fit V with it.

    Models of all ranks, starts and folds are fitted, and share each read of V, as many as fit the memory of a
    worker. The recommended rank is the least one whose held-out error is within one standard error of the
    lowest one; a rank whose error has clearly risen gets no further passes. That rank is then fitted to all
    entries, from the model that is most like the others of its rank. The result does not depend on where it
    is computed, nor on how often it was interrupted.

    Parameters
    ----------
    V : the matrix, as in `nmf`.
    ranks : the numbers of components to compare: numbers, or text such as ``"2:30"``, ``"2:30:2"`` or
        ``"2,4,8"``; the last number of a range belongs to it.
    n_init : number of starts of each rank in each fold. They are drawn from a sample of the rows.
    folds : number of sets of held-out entries. Errors of two ranks are compared in the same fold.
    holdout : share of the entries that is held out in a fold. Zeros of a sparse V are held out, too.
    error_bars : number of bootstrap samples of the rows of V, 0 or at least 2, from which the components of
        the final fit get standard errors, see `RankSelection.components_stderr`. 30 are enough; this takes 30
        more passes of as many models.
    random_state : seed of the starts, of the held-out entries, of the rows that are compared, and of the
        bootstrap samples.
    solver : ``"hals"``, the only solver that keeps no W for each model between passes.
    beta_loss : ``"frobenius"`` or ``"kullback-leibler"``, as in `nmf`.
    max_iter, tol : the rules that end each model, and the final fit, as in `nmf`. A model also ends when its
        held-out error has not fallen for some passes.
    missing, alpha_W, alpha_H, l1_ratio, dtype, cache : as in `nmf`.
    store : path of a Zarr group for the selection, whose models are committed after each pass. The same call
        resumes it. More ranks, starts or folds add models to it, and the fit is ``fit`` below it, a run.
    overwrite : whether another selection that is in ``store`` may be replaced. Its answer stays until there
        is a newer one.
    time_limit : seconds after which the pass that is running is the last one; without a ``store`` it leaves a
        result from the models as they are, with a ``result`` of None.
    verbose : 1 shows the progress: a bar on a terminal or in a notebook, elsewhere one line for each pass.

    Returns
    -------
    RankSelection

    Raises
    ------
    InvalidEntryError, ValueError, TypeError, MemoryError
        As for `nmf`.
    DataError
        If V is so small that no entry is held out.
    RunMismatch, RunLocked
        If ``store`` holds another selection, or is in use.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import select_rank
    >>> V = np.random.default_rng(0).random((60, 3)) @ np.random.default_rng(1).random((3, 20))
    >>> select_rank(V, "1:4", n_init=2).n_components
    3
    """
    options = SelectionOptions.of(
        ranks,
        n_init,
        folds,
        holdout,
        random_state=random_state,
        solver=solver,
        beta_loss=beta_loss,
        max_iter=max_iter,
        tol=tol,
        missing=missing,
        alpha_W=alpha_W,
        alpha_H=alpha_H,
        l1_ratio=l1_ratio,
    )
    place = None if store is None else locate(store)
    matrix, form = form_of(located(V))
    labels = labels_of(None if store is None else form)
    request = Request(dtype, place, overwrite, time_limit, cache_bytes(cache), error_bars, labels)
    with showing_progress(verbose):
        return choose_rank(matrix, options, request).labelled(form)
