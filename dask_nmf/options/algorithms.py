"""The registry of solvers: for each, everything that must be known before it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """The capabilities of a solver, as data.

    No code outside of `dask_nmf.solvers` depends on the name of a solver.

    Attributes
    ----------
    module : the module of its ``make(problem)``, see `dask_nmf.solvers.select`; a fit imports it first.
    betas : the β of the losses that it minimises; None means any.
    grid_betas : those β for which V may be cut into blocks, by rows and by columns.
    carries_w : W is stored between passes, instead of solved anew in each.
    by_strata : a pass goes over blocks, stratum by stratum, instead of over panels.
    extra_columns : the number of columns that its factors have between passes beyond those of the result.
    keeps_zeros : its updates cannot move an entry that is 0.
    column_grams : the sums of a pass have a Gram matrix for each column, whatever the loss.
    tries_starts : several starts are tried, because the best one is worth the time.
    learns_online : the sums of a pass suffice to continue with other rows.
    typical_passes : the fewest and the most passes of the fits in ``docs/measurements.md`` that converged
        with the default ``tol``; None if they depend too much on V.
    """

    module: str
    betas: tuple[float, ...] | None = None
    grid_betas: tuple[float, ...] = ()
    carries_w: bool = False
    by_strata: bool = False
    extra_columns: int = 0
    keeps_zeros: bool = False
    column_grams: bool = False
    tries_starts: bool = False
    learns_online: bool = False
    typical_passes: tuple[int, int] | None = None


SOLVERS = {
    "hals": Algorithm(
        "dask_nmf.solvers.hals",
        betas=(2.0, 1.0),
        grid_betas=(2.0,),
        column_grams=True,
        tries_starts=True,
        learns_online=True,
        typical_passes=(2, 20),
    ),
    "mu": Algorithm("dask_nmf.solvers.mu", carries_w=True, keeps_zeros=True),
    "sgd": Algorithm("dask_nmf.solvers.sgd", betas=(2.0,), carries_w=True, by_strata=True, extra_columns=1),
}


def learns_online(solver: str) -> bool:
    """Return whether a solver of this name exists and learns from batches of rows."""
    return solver in SOLVERS and SOLVERS[solver].learns_online


def panel_solvers() -> str:
    """Return the names of the solvers whose passes go over panels, joined for an error message."""
    return " and ".join(repr(name) for name, algorithm in SOLVERS.items() if not algorithm.by_strata)
