"""The registry of solvers: a line for each, with all that must be known about one before it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """What a solver can do, as data: no code outside of `dask_nmf.solvers` asks for a solver by its name.

    Attributes
    ----------
    module : where its ``make(problem)`` is, see `dask_nmf.solvers.select`; it is imported when a fit begins.
    betas : the β of the losses that it minimises; None: any.
    grid_betas : those of them for which V may be cut both ways.
    carries_w : W is kept from pass to pass, instead of solved anew in each.
    by_strata : a pass goes over blocks, in strata, instead of over panels.
    extra_columns : columns that its factors have between passes beside those of the result.
    keeps_zeros : its updates cannot move an entry that is 0.
    column_grams : the sums of a pass have a gram matrix for each column, whatever the loss.
    tries_starts : the best of several starts is worth the time that they take.
    learns_online : the sums of a pass are all that is needed to go on with other rows.
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


SOLVERS = {
    "hals": Algorithm(
        "dask_nmf.solvers.hals",
        betas=(2.0, 1.0),
        grid_betas=(2.0,),
        column_grams=True,
        tries_starts=True,
        learns_online=True,
    ),
    "mu": Algorithm("dask_nmf.solvers.mu", carries_w=True, keeps_zeros=True),
    "sgd": Algorithm("dask_nmf.solvers.sgd", betas=(2.0,), carries_w=True, by_strata=True, extra_columns=1),
}


def learns_online(solver: str) -> bool:
    """Return whether there is such a solver, and it learns from batches of rows."""
    return solver in SOLVERS and SOLVERS[solver].learns_online


def panel_solvers() -> str:
    """Return the names of the solvers that go over panels, as an error message lists them."""
    return " and ".join(repr(name) for name, algorithm in SOLVERS.items() if not algorithm.by_strata)
