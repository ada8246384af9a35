"""`transform`: W of a V for a fixed H, returned or into a Zarr group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import zarr

from dask_nmf._version import __version__
from dask_nmf.errors import DataError, InvalidEntryError, InvalidRunError, readable
from dask_nmf.execution import partition
from dask_nmf.execution.graphs.passes import PassSpec, check_factor
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.fitting.settling import solve_h_for_w
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import Rule
from dask_nmf.kernels.summary.means import Means, divided
from dask_nmf.kernels.summary.row_sample import Draw
from dask_nmf.keywords import reject_unknown_keywords
from dask_nmf.planning import row_panels
from dask_nmf.progress import report_stage
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import NO_MEAN
from dask_nmf.settings import LOSSES, Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import ConvergedMU
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.penalties import Penalty, penalty_of
from dask_nmf.solvers.select import select_inference_solver
from dask_nmf.sources.factors_and_weights import open_entry_weights, open_for_fixed_factor, read_factor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage import locations
from dask_nmf.storage.arrays.factors import CURE, ZarrFactor, consolidate
from dask_nmf.types import Array

MARK = "dask_nmf_transform"
ENCODINGS = (("default", "/"), ("default", "."), ("v2", "."))  # how Zarr v3 names chunks: c/0/0, c.0.0, 0.0
LARGE = 2**18  # entries of an H that every worker should not have several times
LEAST = 1e-140  # that a divergence divides by, in float64: a number over the square of it is one
OPTIONS = ("beta_loss", "missing", "alpha_W", "l1_ratio")  # of a run, that its W of other rows depends on

Exact = HALS | KLNewton | ConvergedMU
Sink = Callable[[tuple[int, int], int, np.dtype[Any]], tuple[FactorStore, FactorStore | None]]


@reject_unknown_keywords
def transform(
    V: Any,
    H: Any,
    dtype: str | None = None,
    *,
    weights: Any = None,
    missing: str | None = None,
    alpha_W: float = 0.0,
    l1_ratio: float = 0.0,
    beta_loss: str | float = "frobenius",
    means: Means | None = None,
    into: Sink | None = None,
) -> da.Array | tuple[da.Array, Means] | None:
    """W of a V for a fixed H, (m, k): ``argmin_{W ≥ 0}`` of the loss, solved to tolerance.

    In one pass, unless V is stored by columns and the loss is not the squared error.

    Parameters
    ----------
    V : (m, n), whatever `open_matrix` takes.
    H : (k, n), ≥ 0, whatever `open_matrix` takes.
    weights, missing, alpha_W, l1_ratio, beta_loss : as in `nmf`.
    means : `Result.means` of the fit that H comes from. Then W is returned with the means for `predict` and
        `recommend`: of the rows of this V, NaN where nothing is observed and W is 0, beside those of the
        columns and of everything in the fit.
    into : makes, from the shape, the rows that one task writes and the dtype, the place where W goes panel
        by panel, and that of the means of its rows, if they are to be known. By default W is returned.

    Raises
    ------
    InvalidEntryError, ValueError, TypeError, MemoryError
        As for `nmf`.
    """
    h = np.asarray(read_factor(H, "H"), np.float64)
    matrix = opened(V, dtype, beta_loss, len(h))
    if matrix.shape[1] != h.shape[1]:
        raise ValueError(f"V has {matrix.shape[1]} columns and H has {h.shape[1]}; they must be equal")
    beside = None if weights is None else open_entry_weights(matrix, weights)
    asked: dict[str, Any] = {"missing": missing, "alpha_W": alpha_W, "l1_ratio": l1_ratio, "alpha_H": 0.0}
    settings = Settings(len(h), "mu", beta_loss, **asked)
    rule = Rule(missing, transposed=matrix.transposed, weighted=beside is not None, beta=settings.beta)
    _check_means(means, matrix, rule)
    grams = matrix.transposed and settings.beta in (1, 2)  # else no sums are needed
    panels, _ = partition.cut(matrix, len(h), beside, rule, grams=grams)
    turn = _weigh_columns if matrix.transposed else _weigh_rows
    try:
        w, rows = turn(panels, h, settings, into, means is not None)
    except InvalidEntryError as error:
        raise error.at(0, matrix.transposed) from None
    return w if means is None else (w, means._replace(rows=rows))


def _check_means(means: Means | None, matrix: Matrix, rule: Rule) -> None:
    """Refuse means that are no means of V's columns, or that nothing needs."""
    if means is None:
        return
    if not rule.needs_means:
        raise ValueError(
            "means are given and every entry of V counts, so no row is without a W; leave means out, or give "
            "missing or weights"
        )
    if np.shape(means.columns) != matrix.shape[1:]:
        raise ValueError(
            f"means are of {np.shape(means.columns)} columns and V has {matrix.shape[1]}; give the means of "
            "the fit that H comes from"
        )


def opened(V: Any, dtype: str | None, beta_loss: str | float, rank: int) -> Matrix:
    """V as `transform` looks at it: by rows, but for the squared error and an H that is large.

    A row of W is most exact where the row of V is at hand; the squared error alone has sums that do without.
    """
    by_rows = open_for_fixed_factor(V, dtype, False)
    squared = LOSSES.get(str(beta_loss), beta_loss) == 2
    return open_matrix(V, dtype) if squared and rank * by_rows.shape[1] > LARGE else by_rows


@dataclass(frozen=True)
class Asked:
    """What is asked of the other factor for one that is given, whatever the scale of V."""

    beta: float
    penalty: Penalty  # on the user's factors
    dtype: np.dtype[Any]

    def at(self, scale: float, units: tuple[float, float]) -> Exact:
        """Return the solver for V at a scale, where the factors are in `units` (left, right)."""
        penalty = self.penalty.in_units(*units, self.beta * math.log2(scale))
        return select_inference_solver(self.beta, penalty, max(float(np.finfo(self.dtype).tiny), LEAST))


@dataclass(frozen=True)
class OfPanel:
    """W of a panel at the panel's own scale: that of V is not known before all of it is read."""

    asked: Asked
    unit: float  # of H

    def __call__(self, weighing: PassSpec, scale: float) -> PassSpec:
        units = 1 / (scale * self.unit), self.unit
        solver = self.asked.at(scale, units)
        return weighing._replace(solve_w=solver.solve_w_final, loss=solver, unit=units[0])


def asked_of(settings: Settings, matrix: Matrix) -> Asked:
    """What settings ask of the W of a matrix."""
    return Asked(settings.beta, penalty_of(settings, matrix.transposed), matrix.dtype)


def _weigh_rows(
    panels: PanelEngine, h: Array, settings: Settings, into: Sink | None, averages: bool
) -> tuple[da.Array | None, da.Array | None]:
    """Return W, and the means of its rows if they are asked for; neither where they go ``into`` places."""
    unit, asked = scaling.unit_of(h), asked_of(settings, panels.matrix)
    h = np.ascontiguousarray(scaling.times(h, 1 / unit), panels.matrix.dtype)
    solver = asked.at(1.0, (1.0, 1.0))
    weighing = PassSpec(solver.solve_w_final, solver, check=True, bare=True, averages=averages)
    weighing = weighing._replace(anew=OfPanel(asked, unit))
    w: da.Array | None = None
    rows: da.Array | None = None
    if into is None:
        w, totals, rows = panels.run_pass_keeping_w(h, weighing)
    else:
        after, means = into((panels.edges[-1], len(h)), row_panels.unit(panels.edges), h.dtype)
        weighing = weighing._replace(after=after, averages=means is not None, means=means)
        totals = panels.run_pass(h, weighing)
    if np.isinf(totals.residual):
        warnings.warn(
            "H is 0 in columns where V has entries > 0: W H is 0 there whatever W is, and the divergence is "
            "infinite; W explains the other columns",
            stacklevel=5,
        )
    return w, rows


def _weigh_columns(
    panels: PanelEngine, h: Array, settings: Settings, into: Sink | None, averages: bool
) -> tuple[da.Array | None, da.Array | None]:
    """Return the same where the panels are columns."""
    unit, asked = scaling.unit_of(h), asked_of(settings, panels.matrix)
    left = np.ascontiguousarray(scaling.times(h, 1 / unit).T, panels.matrix.dtype)
    scale, mean = 1.0, 1.0  # the sums of the squared error are float64, and so are their solutions
    if settings.beta != 2:
        mean = _mean(panels)
        scale = panels.scale = scaling.scale_of(mean, panels.matrix.dtype)
    units = unit, 1 / (scale * unit)
    right, totals = solve_h_for_w(panels, left, asked.at(scale, units), mean * scale, check=True)
    w = np.ascontiguousarray(scaling.times(right, units[1]).T)
    check_factor(w)
    place, place_of_means = (None, None) if into is None else into(w.shape, len(w), w.dtype)
    rows: da.Array | None = None
    if averages or place_of_means is not None:
        found = divided(*np.asarray(totals.column_totals)).astype(w.dtype)
        rows = da.from_array(found, chunks=found.shape)
        if place_of_means is not None:
            place_of_means.write(0, found)
    if place is None:
        return da.from_array(w, chunks=w.shape), rows
    place.write(0, w)
    return None, None


def _mean(panels: PanelEngine) -> float:
    """Return the mean of V over what counts, in a read of it."""
    summary = panels.summarize(Draw(panels.edges[-1], 0, 0))
    if summary.invalid is not None:
        raise summary.invalid
    mass = float(np.sum(np.broadcast_to(summary.column_weight, panels.matrix.layout.columns)))
    return summary.total / mass if mass else 0.0


def transform_to(
    run: str, V: Any, output: str, overwrite: bool, connect: Callable[[Matrix], AbstractContextManager[Any]]
) -> tuple[int, int]:
    """W of ``V`` for the H of a run into ``W`` of a Zarr group, which appears only when it is whole.

    The loss, what is missing, and the penalty on W, are as in the run. Where entries may be missing the group
    also has ``row_mean``, NaN where nothing of a row is observed, and W is zero for that.

    Returns
    -------
    (m, k), its shape.

    Raises
    ------
    FileExistsError
        If there is an output already, and it may not be overwritten, or was not made by this function.
    """
    found = Run.load_result(locations.absolute(run))
    asked = found.settings
    H = found.read("H")
    matrix = opened(V, found.record["matrix"]["dtype"], asked.beta_loss, len(H))
    locations.check_apart(output, V=matrix.source, run=locations.absolute(run))
    report_stage("W of V2")
    place = locations.locate(output)
    check = partial(locations.check_replaceable, place, overwrite, _is_ours, "transform")
    shape = (matrix.shape[0], len(H))
    options = {name: getattr(asked, name) for name in OPTIONS}
    mark = {
        "version": __version__,
        "run": locations.absolute(run),
        "source": matrix.source,
        "settings": options,
    }
    with place.atomic_output(check) as made, connect(matrix):
        partition.check_shared(place.name)
        encoding = _unused_encoding(place.store())
        transform(matrix, H, **options, into=lambda *layout: _new_weights(made, mark, encoding, *layout))
    return shape


def summary(path: str) -> dict[str, Any]:
    """What a person wants to know of a run, or of an output of `transform_to`, as JSON holds it.

    Raises
    ------
    FileNotFoundError, InvalidRunError
        As `Run.load` does; if an output of `transform_to` is damaged.
    """
    name = locations.absolute(path)
    try:
        mark = _mark(name)
    except Exception:  # whatever it is, it is no output of ours
        mark = None
    return Run.load(path).summary() if mark is None else _summary(name, mark)


def _summary(name: str, mark: Any) -> dict[str, Any]:
    """What an output of `transform_to` holds, and what it was made from."""
    try:
        with readable(name, CURE):
            array = zarr.open_group(locations.locate(name).store(), mode="r")["W"]
            assert isinstance(array, zarr.Array)
            rows, rank = array.shape
            made = {key: str(mark[key]) for key in ("run", "source", "version")}
            options = {key: mark["settings"][key] for key in OPTIONS}
    except (FileNotFoundError, DataError, KeyError, TypeError, ValueError) as error:
        raise InvalidRunError(f"{name} is a damaged output of dask-nmf transform; make it again") from error
    return {
        "transform": name,
        "state": "finished",
        "run": made["run"],
        "source": made["source"],
        "shape": [rows, rank],
        "dtype": str(array.dtype),
        "n_components": rank,
        "version": made["version"],
        "settings": options,
    }


def _is_ours(name: str) -> bool:
    return _mark(name) is not None


def _mark(name: str) -> Any:
    """What an output of `transform_to` says of itself; None if it is something else."""
    return zarr.open_group(locations.locate(name).store(), mode="r").attrs.get(MARK)


def _unused_encoding(store: locations.ZarrStore) -> tuple[str, str]:
    """Return how chunks are named, other than those of the output that is there, if there is one.

    So none of them stands in the place of an old one before the root says so, and who goes on to read the old
    output finds nothing, which is NaN, and no numbers of the new one.
    """
    used = set()
    for listed in (True, False):  # they differ where a process was killed between the two
        with suppress(Exception):  # whatever it is, it has no arrays
            group = zarr.open_group(store, mode="r", use_consolidated=listed)
            for _, array in group.arrays():
                named: Any = array.metadata.to_dict()["chunk_key_encoding"]
                used.add((named["name"], named["configuration"]["separator"]))
    return next(encoding for encoding in ENCODINGS if encoding not in used)


def _new_weights(
    store: locations.ZarrStore,
    mark: dict[str, Any],
    encoding: tuple[str, str],
    shape: tuple[int, int],
    rows: int,
    dtype: np.dtype[Any],
) -> tuple[ZarrFactor, ZarrFactor | None]:
    group = zarr.create_group(store, zarr_format=3, attributes={MARK: mark})
    layout: dict[str, Any] = {"W": (shape, (rows, shape[1]), ("row", "component"), np.nan)}
    if mark["settings"]["missing"] is not None:
        layout["row_mean"] = (shape[:1], (rows,), ("row",), NO_MEAN)
    arrays = {
        name: group.create_array(
            name,
            shape=whole,
            chunks=chunks,
            dtype=dtype,
            dimension_names=names,
            fill_value=nothing,  # zarr leaves out chunks of the fill value: so all are there, or lost
            chunk_key_encoding={"name": encoding[0], "separator": encoding[1]},
        )
        for name, (whole, chunks, names, nothing) in layout.items()
    }
    consolidate(group)
    made = {name: ZarrFactor(array) for name, array in arrays.items()}
    return made["W"], made.get("row_mean")
