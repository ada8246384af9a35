"""`nmf`: every option of a fit, spelled out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask_nmf.display.lines import watched
from dask_nmf.execution.executor import Step
from dask_nmf.fitting.factorise import cache_bytes, factorise
from dask_nmf.fitting.finalize import Result
from dask_nmf.fitting.fit import Job
from dask_nmf.keywords import checked
from dask_nmf.settings import Settings


@checked
def nmf(
    V: Any,
    n_components: int,
    *,
    solver: str = "hals",
    beta_loss: str | float = "frobenius",
    init: str | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    random_state: int = 0,
    normalize: str | None = None,
    delta: float | None = None,
    inner_iter: int = 1,
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    missing: str | None = None,
    validation_fraction: float = 0.0,
    stop_below: float = 0.0,
    schedule: str = "adagrad",
    learning_rate: float | None = None,
    batch_size: int | None = None,
    W: Any = None,
    H: Any = None,
    fixed_W: Any = None,
    fixed_H: Any = None,
    weights: Any = None,
    dtype: str | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    time_limit: float | None = None,
    cache: int | str = "auto",
    callback: Callable[[Step], None] | None = None,
    verbose: int = 0,
) -> Result:
    """Factorise a non-negative V (m × n) as W H, with W (m × k) and H (k × n) non-negative.

    Runs on the active `distributed` client, or in the threads of this process if there is none. Two fits of
    one V with the same options give the same W and H.

    Parameters
    ----------
    V : whatever `open_matrix` takes: an array, a sparse matrix, a Dask array, or a path.
    n_components : number of components, k; from singular vectors at most min(m, n).
    solver : ``"hals"`` (few passes, W solved anew in each), ``"mu"`` (Lee & Seung's steps) or ``"sgd"``
        (minibatches; for V of which most is missing).
    beta_loss : what is to be small: ``"frobenius"`` (half of ‖V − W H‖²), ``"kullback-leibler"`` (for
        counts), ``"itakura-saito"`` (V > 0), or the β of a β-divergence (2, 1 and 0 are these). Solver hals
        takes the first two, mu takes any, sgd the first. A divergence is told as √(2 D), as ‖V − W H‖ is, and
        its relative error is √(D(V | W H) / D(V | mean of V)).
    init : ``"sample"`` (default; H of some rows, factorised in memory), ``"random"``, or ``"custom"`` (from
        given W and H, or from either). As in scikit-learn: ``"nndsvd"`` (from singular vectors, in two more
        reads of V, of which every entry must count), ``"nndsvda"`` (with the mean of V for its zeros),
        ``"nndsvdar"`` (with small random numbers, of a hundredth of the mean).
    max_iter : most passes over V.
    tol : stop when a pass lowers the loss by less than ``tol`` times itself, or ``tol`` times what is
        explained of ‖V‖² if that is less.
    stop_below : stop when ‖V − W H‖ (Frobenius) is below this.
    random_state : seed of the start, of the entries held out and of the order of minibatches.
    alpha_W, alpha_H : penalties, scaled as scikit-learn does: to the loss, ‖V − W H‖² or twice the
        divergence, is added ``alpha_W · n_i ((1 − l1_ratio) ‖w_i‖² + 2 l1_ratio |w_i|)`` for each row of W
        and ``alpha_H · m_j (…)`` for each column of H, n_i and m_j the number (or weight) of the entries that
        count in that row or column of V. ``alpha_H="same"`` is ``alpha_W``.
    l1_ratio : share of the L1 norm in the penalties, 0 to 1.
    missing : None: every entry of V counts; ``"nan"``: NaN is missing; ``"unstored"``: only the stored
        entries of a sparse V count, and a stored zero is a zero that was observed.
    validation_fraction : share of the entries that is held out. The fit ends when their error has not fallen
        for some passes, and its answer is the best of the passes by that error.
    normalize : ``"l1"`` or ``"l2"``: in the answer the rows of H have that norm 1, W is scaled so that W H
        stays, and the components are in the order of their weight, the norm of W's column, the largest first.
    delta : mu: added to denominators; by default a trifle relative to the scale of V.
    inner_iter : mu: steps on the products of a pass; 1 is Lee & Seung's.
    schedule : sgd: of the step. ``"adagrad"``: its own for each row and column, by the gradients so far
        (Duchi et al. 2011), free of scale; ``"bold-driver"``: grows by 5 % when the loss falls, halved when
        it rises; ``"constant"``; ``"inverse-time"``: divided by the number of the pass.
    learning_rate : sgd: for ``"adagrad"`` relative to the size of a factor's entries (by default 0.1 from a
        random start, else 0.03); absolute for the others (by default one that is safe at the scale of V).
    batch_size : sgd: rows of V in a minibatch (default 32); where entries are missing, stored entries (1).
    W, H : to begin with, both or either: arrays, or paths as V may be one; ``init`` is then ``"custom"``.
    fixed_W, fixed_H : one factor that is known (signatures, endmembers): the other is the best for it.
    weights : of the entries of V in the loss, (m, n), ≥ 0, whatever `open_matrix` takes; 0 is not looked at.
    dtype : of the computation, ``"float32"`` or ``"float64"``; see `open_matrix`.
    store : path of a Zarr group that holds the run: each pass is committed, an unfinished run is resumed,
        and W never is in memory.
    overwrite : whether a run that is in ``store`` may be replaced.
    time_limit : seconds, after which the pass in work is the last.
    cache : what each worker keeps of V from pass to pass: ``"auto"`` (what the plan leaves of its memory),
        ``"off"``, or at most so much of that, in bytes or as text (``"2GiB"``). The result stays the same.
    callback : called with the `Step` of each pass.
    verbose : 1 shows where the fit is: a bar on a terminal or in a notebook, elsewhere a line a pass.

    Returns
    -------
    Result

    Raises
    ------
    InvalidEntryError
        If V has a NaN (unless ``missing="nan"``), an infinity or a negative entry.
    ValueError, TypeError
        If V or an option is not as above.
    MemoryError
        If neither a panel of V nor a block does fit a worker.
    RunMismatch, RunLocked
        If ``store`` holds another fit, or is in use.
    """
    settings = Settings(
        n_components=n_components,
        solver=solver,
        beta_loss=beta_loss,
        init=init,
        max_iter=max_iter,
        tol=tol,
        random_state=random_state,
        normalize=normalize,
        delta=delta,
        inner_iter=inner_iter,
        alpha_W=alpha_W,
        alpha_H=alpha_H,
        l1_ratio=l1_ratio,
        missing=missing,
        validation_fraction=validation_fraction,
        stop_below=stop_below,
        schedule=schedule,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
    job = Job(
        settings,
        W=W,
        H=H,
        fixed_W=fixed_W,
        fixed_H=fixed_H,
        weights=weights,
        dtype=dtype,
        store=None if store is None else str(store),
        overwrite=overwrite,
        time_limit=time_limit,
        cache=cache_bytes(cache),
        callback=callback,
    )
    with watched(verbose):
        return factorise(V, job)
