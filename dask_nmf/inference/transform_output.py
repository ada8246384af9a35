"""`transform_to`: W of new rows for the H of a run, as a Zarr group that appears only when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import zarr

from dask_nmf._version import __version__
from dask_nmf.cluster import sharing
from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.inference.transform import open_for_transform, transform
from dask_nmf.progress import report_stage
from dask_nmf.runs.record.layouts import NO_MEAN
from dask_nmf.runs.run import Run
from dask_nmf.sources.formats.stored.conversions import check_same_recipe
from dask_nmf.sources.labels.names import PIECE, Names, check_same_columns, copy_names
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage import locations
from dask_nmf.storage.arrays.factors import CURE, TRANSFORMED, ZarrFactor, consolidate
from dask_nmf.storage.arrays.write_once import TEXT
from dask_nmf.storage.locations import Location

ENCODINGS = (("default", "/"), ("default", "."), ("v2", "."))  # names of chunks in Zarr v3: c/0/0, c.0.0, 0.0
OPTIONS = (
    "beta_loss",
    "missing",
    "alpha_W",
    "l1_ratio",
)  # settings of a run that W of other rows depends on


def transform_to(
    run: Location,
    V: Any,
    output: Location,
    overwrite: bool,
    connect: Callable[[Matrix], AbstractContextManager[Any]],
) -> tuple[int, int]:
    """Write W of ``V`` for the H of a run as ``W`` of a Zarr group, which appears only when it is whole.

    The loss, the missing entries and the penalty on W are as in the run. Where entries may be missing, the
    group also has ``row_mean``. It is NaN, and the row of W is zero, where nothing of a row is observed.

    Returns
    -------
    The shape of W, (m, k).

    Raises
    ------
    FileExistsError
        If there is an output already, and it may not be overwritten, or was not made by this function.
    ValueError
        If conversions made ``V`` and the V of the run in different ways.
    """
    result = Run.load_result(run)
    settings = result.settings
    H = result.read("H")
    matrix = open_for_transform(V, result.record["matrix"]["dtype"], settings.beta_loss, len(H))
    check_same_recipe(matrix.recipe, matrix.source, result.record["matrix"])
    check_same_columns(matrix.labels.columns, result.labels.columns)
    locations.check_apart(output, V=matrix.location, run=run)
    report_stage("W of V2")
    check = partial(locations.check_replaceable, output, overwrite, _is_ours, "transform")
    shape = (matrix.shape[0], len(H))
    options = {name: getattr(settings, name) for name in OPTIONS}
    mark = {
        "version": __version__,
        "run": run.address,
        "source": matrix.source,
        "settings": options,
    }
    with output.atomic_output(check) as new_store, connect(matrix):
        sharing.check_shared(output)
        form = OutputForm(mark, _unused_encoding(output.store()), matrix.labels.rows)
        create = partial(_create_factors, new_store, form)
        transform(matrix, H, **options, into=create)
    return shape


def summary(location: Location) -> dict[str, Any]:
    """Return the summary of a run, or of an output of `transform_to`, as values of JSON.

    Raises
    ------
    FileNotFoundError, InvalidRunError
        As `Run.load` does; if an output of `transform_to` is damaged.
    """
    try:
        mark = _read_mark(location)
    except Exception:  # an unreadable group is not an output of `transform_to`
        mark = None
    return Run.load(location).summary() if mark is None else _summary(location, mark)


def _summary(location: Location, mark: Any) -> dict[str, Any]:
    """Return the shape of an output of `transform_to`, and the run, V and settings that it was made from."""
    name = location.address
    try:
        with readable(name, CURE):
            group = zarr.open_group(location.store(), mode="r")
            array = group["W"]
            assert isinstance(array, zarr.Array)
            rows, rank = array.shape
            origin = {key: str(mark[key]) for key in ("run", "source", "version")}
            names = {"names": ["row"]} if "row" in group else {}
            options = {key: mark["settings"][key] for key in OPTIONS}
    except (FileNotFoundError, DataError, KeyError, TypeError, ValueError) as error:
        raise InvalidRunError(f"{name} is a damaged output of dask-nmf transform; make it again") from error
    return {
        "transform": name,
        "state": "finished",
        "run": origin["run"],
        "source": origin["source"],
        "shape": [rows, rank],
        "dtype": str(array.dtype),
        "n_components": rank,
        **names,
        "version": origin["version"],
        "settings": options,
    }


def _is_ours(location: Location) -> bool:
    return _read_mark(location) is not None


def _read_mark(location: Location) -> Any:
    """Return the mark of an output of `transform_to`; None if the group is something else."""
    return zarr.open_group(location.store(), mode="r").attrs.get(TRANSFORMED)


def _unused_encoding(store: locations.ZarrStore) -> tuple[str, str]:
    """Return a naming of chunks that the present output, if there is one, does not use.

    So no new chunk replaces an old one before the metadata of the root does. A process that still reads the
    old output then finds no chunk, which it reads as NaN, and never a number of the new output.
    """
    used = set()
    for listed in (True, False):  # they differ where a process was killed between the two
        with suppress(Exception):  # an unreadable group has no arrays
            group = zarr.open_group(store, mode="r", use_consolidated=listed)
            for _, array in group.arrays():
                encoding: Any = array.metadata.to_dict()["chunk_key_encoding"]
                used.add((encoding["name"], encoding["configuration"]["separator"]))
    return next(names for names in ENCODINGS if names not in used)


class OutputForm(NamedTuple):
    """The form of an output: its mark, the names of its chunks, and the names of the rows of W."""

    mark: dict[str, Any]
    encoding: tuple[str, str]
    names: Names | None


def _create_factors(
    store: locations.ZarrStore,
    form: OutputForm,
    shape: tuple[int, int],
    rows: int,
    dtype: np.dtype[Any],
) -> tuple[ZarrFactor, ZarrFactor | None]:
    """Create the arrays of W, of the means of its rows where entries may be missing, and of their names."""
    mark, encoding, names = form
    group = zarr.create_group(store, zarr_format=3, attributes={TRANSFORMED: mark})
    layout: dict[str, Any] = {"W": (shape, (rows, shape[1]), ("row", "component"), np.nan, dtype)}
    if mark["settings"]["missing"] is not None:
        layout["row_mean"] = (shape[:1], (rows,), ("row",), NO_MEAN, dtype)
    if names is not None:
        layout["row"] = (shape[:1], (min(shape[0], PIECE),), ("row",), "", TEXT)
    arrays = {
        name: group.create_array(
            name,
            shape=size,
            chunks=chunks,
            dtype=kind,
            dimension_names=dimensions,
            fill_value=unwritten,  # no result: Zarr leaves out chunks of the fill value
            chunk_key_encoding={"name": encoding[0], "separator": encoding[1]},
        )
        for name, (size, chunks, dimensions, unwritten, kind) in layout.items()
    }
    if names is not None:
        copy_names(names, arrays["row"])
    consolidate(group)
    factors = {name: ZarrFactor(array) for name, array in arrays.items()}
    return factors["W"], factors.get("row_mean")
