"""A selection in a Zarr group: its models, committed after each shared pass, and its table.

::

    select.zarr
      attributes["dask_nmf_selection"]   the record: options, matrix, measures, models, the table
      data/layout-…                      edges of the panels, digests of the content of V
      data/pass-…                        a commit: the arrays of the states of all models, stacked by rows
      fit/                               the run of the final fit

A commit writes a new folder, waits until the disk has it, and then replaces the root, as those of a run do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_nmf._version import __version__
from dask_nmf.cluster import config
from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.summary.digests import Digest, Hashes
from dask_nmf.runs.record import states
from dask_nmf.runs.record.states import or_none
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.storage.arrays import links, write_once
from dask_nmf.storage.arrays.factors import CURE, reporting_damage
from dask_nmf.storage.arrays.write_once import DATA, INTEGER_FILL, Layout
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.local.filesystem import sync_folder, sync_trees
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

KEY = "dask_nmf_selection"  # the attribute of the group that holds the record
FORMAT = 1
FIT = "fit"  # the run of the final fit, below the group
ROWS = 1024  # rows of a stored array in a chunk, at most


class SelectionStore:
    """A selection in a Zarr group.

    Attributes
    ----------
    location : where the selection is
    record : the record of the last commit
    """

    def __init__(
        self, location: Location, group: zarr.Group, record: dict[str, Any], check_held: CheckHeld
    ) -> None:
        self.location = location
        self.record = record
        self._group = group
        self._check_held = check_held
        self._new_name = write_once.folder_namer()
        self._synced = config.read().fsync

    @classmethod
    def create(
        cls, location: Location, options: dict[str, Any], matrix: dict[str, Any], check_held: CheckHeld
    ) -> SelectionStore:
        """Begin a selection at a location where there is none."""
        check_held()
        record = _new_record(options, matrix)
        group = links.create_group(location.store(), {KEY: record}, config.read().fsync)
        return cls(location, group, record, check_held)

    @classmethod
    def load(cls, location: Location, check_held: CheckHeld = always_held) -> SelectionStore:
        """Open a selection.

        Raises
        ------
        FileNotFoundError
            If there is nothing at the path.
        InvalidRunError
            If there is something else.
        """
        if not location.exists():
            raise FileNotFoundError(f"there is no selection at {location.name}")
        refusal = f"{location.name} is not a selection of dask-nmf; give another path or remove it"
        try:
            with readable(location.name, CURE):
                group = zarr.open_group(location.store(), mode="r+" if location.is_writable() else "r")
                record = dict(group.attrs).get(KEY)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, DataError) as error:
            raise InvalidRunError(refusal) from error
        if not isinstance(record, dict):
            raise InvalidRunError(refusal)
        if record.get("format") != FORMAT:
            raise InvalidRunError(
                f"{location.name} is a selection of format {record.get('format')}; "
                f"this version reads format {FORMAT}"
            )
        return cls(location, group, record, check_held)

    def restart(self, options: dict[str, Any], matrix: dict[str, Any]) -> None:
        """Begin another selection in place of this one."""
        self._publish(_new_record(options, matrix))

    def commit_layout(self, edges: Sequence[int], digest: Digest) -> None:
        """Commit how V is cut, and the digest of its content."""
        arrays = {"edges": np.asarray(edges, np.int64), "V": digest.sums.view(np.int64)}
        self._commit("layout", arrays, {})

    @property
    def edges(self) -> tuple[int, ...] | None:
        """The edges of the panels of V; None before the first read is committed."""
        if "layout" not in self.record["folders"]:
            return None
        return tuple(self._read("layout", "edges").tolist())

    def digest(self) -> Hashes:
        """Return the digest of V at the first read."""
        return self._read("layout", "V").view(np.uint64)

    def commit_models(self, number: int, models: Sequence[Model]) -> None:
        """Commit all models after a shared pass."""
        self._check_exists()
        stacked, parts = _stacked(models)
        self._commit(f"pass-{number}", stacked, {"models": parts, "table": None})

    def keys(self) -> list[ModelKey]:
        """Return which models there are."""
        return [ModelKey(*part["key"]) for part in self.record["models"]]

    def models(self, begin: Callable[[ModelKey], State[Any]]) -> list[Model]:
        """Return the models of the last commit; ``begin`` makes a state of a model before its first pass."""
        found = {name: self._read("pass", name) for name in self.record["arrays"].get("pass", {})}
        return [_model(part, found, begin) for part in self.record["models"]]

    def commit_table(self, table: dict[str, Any], clusters: Array, listing: str | None) -> None:
        """Commit the findings of a finished selection, with the listing of the files of V."""
        self._commit("result", {"clusters": clusters}, {"table": table, "listing": listing})

    def clusters(self) -> Array:
        """Return the largest component in some rows of V by each model, (models, rows)."""
        return self._read("result", "clusters")

    def _commit(self, purpose: str, arrays: dict[str, Array], parts: dict[str, Any]) -> None:
        kind, folder = purpose.partition("-")[0], self._new_name(purpose)
        layouts = {name: _layout(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            write_once.open_array(self._group, f"{DATA}/{folder}/{name}", layouts[name])[...] = array
        described = {name: [list(layout.shape), layout.dtype] for name, layout in layouts.items()}
        self._publish(
            {
                **self.record,
                **parts,
                "folders": {**self.record["folders"], kind: folder},
                "arrays": {**self.record["arrays"], kind: described},
            }
        )

    def _publish(self, record: dict[str, Any]) -> None:
        self._check_held()
        before, named = set(self.record["folders"].values()), set(record["folders"].values())
        if isinstance(self._group.store, LocalStore) and self._synced:
            root = Path(self._group.store.root)
            sync_trees(root / DATA / name for name in named - before)
            sync_folder(root)
        self._check_held()
        self._group = links.publish(self._group, {}, {KEY: record}, self._synced)
        self.record = record
        self._check_held()
        write_once.delete_folders(self._group, write_once.list_folders(self._group) - named)

    def _read(self, kind: str, name: str) -> Array:
        shape, dtype = self.record["arrays"][kind][name]
        path = f"{DATA}/{self.record['folders'][kind]}/{name}"
        array = write_once.open_array(self._group, path, _layout(np.empty(shape, dtype)))
        with reporting_damage(self.location.name):
            check_chunks(array, name)
            check_stored(array, name, whole=True)
            return np.asarray(array[...])

    def _check_exists(self) -> None:
        """Refuse to go on if the selection was deleted meanwhile."""
        if "layout" in self.record["folders"]:
            self._read("layout", "edges")


def _new_record(options: dict[str, Any], matrix: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": __version__,
        "options": options,
        "matrix": matrix,
        "folders": {},
        "arrays": {},
        "models": [],
        "table": None,  # the findings, once all models have ended
        "listing": None,  # of the files of V: see `Matrix.listing`
    }


def _layout(array: Array) -> Layout:
    chunks = (min(len(array), ROWS), *array.shape[1:])
    names = ("row", "column")[: array.ndim]
    integers = array.dtype.kind == "i"
    return Layout(array.shape, chunks, array.dtype.name, names, INTEGER_FILL if integers else np.nan)


def _stacked(models: Sequence[Model]) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Return the arrays of all states, each stacked over the models, and the rest of the models as JSON."""
    parts: list[dict[str, Any]] = []
    arrays: dict[str, list[Array]] = {}
    rows: dict[str, int] = {}
    for model in models:
        scalars, own = states.to_record(model.state)
        places = {}
        for name, array in own.items():
            first = rows.get(name, 0)
            places[name] = [first, first + len(array)]
            rows[name] = first + len(array)
            arrays.setdefault(name, []).append(array)
        ending = model.ending
        parts.append(
            {
                "key": list(model.key),
                "state": scalars,
                "places": places,
                "history": [or_none(error) for error in model.history],
                "validation_error": or_none(model.validation_error),
                "ending": None if ending is None else [str(ending.outcome), ending.message],
            }
        )
    return {name: np.concatenate(each) for name, each in arrays.items()}, parts


def _model(part: dict[str, Any], arrays: dict[str, Array], begin: Callable[[ModelKey], State[Any]]) -> Model:
    own = {name: np.ascontiguousarray(arrays[name][slice(*place)]) for name, place in part["places"].items()}
    key = ModelKey(*part["key"])
    state = states.from_record(begin(key), part["state"], own)
    nan = float("nan")
    history = tuple(nan if error is None else error for error in part["history"])
    held = nan if part["validation_error"] is None else part["validation_error"]
    ending = part["ending"] and Ending(Outcome(part["ending"][0]), part["ending"][1])
    return Model(key, state, history, held, ending)
