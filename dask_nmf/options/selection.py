"""Options of a selection of ranks that take less than those of a fit."""

from __future__ import annotations

from dask_nmf.options.algorithms import SOLVERS
from dask_nmf.options.option import Need, Option
from dask_nmf.options.settings import LOSSES

# Many models share a read of V, and a W of each that is kept between passes would be read and written too.
RANKED = tuple(name for name, algorithm in SOLVERS.items() if not algorithm.carries_w)
BETAS = tuple(beta for name in RANKED for beta in SOLVERS[name].betas or ())
NAMED = tuple(name for name, beta in LOSSES.items() if beta in BETAS)
SOLVER = Option(
    f"Algorithm: {', '.join(RANKED)}, which keeps no W for each model between passes.",
    choices=RANKED,
    metavar=f"[{'|'.join(RANKED)}]",
)
BETA_LOSS = Option(
    f"Loss to minimise: {' or '.join(NAMED)}.",
    Need(lambda value: value in BETAS, " or ".join(f"{beta:g}" for beta in sorted(BETAS))),
    NAMED,
    metavar="LOSS",
)
NARROWED = {"solver": SOLVER, "beta_loss": BETA_LOSS}  # by the names of the fields of `Settings`
