"""A run: one Zarr v3 group that holds a fit, from its first pass to its answer.

::

    run.zarr
      attributes["dask_nmf"]   the record: settings, matrix, the last commit and the one before, the answer
      data/pass-…              of a commit: H (W where panels are columns), what extrapolates it, histories
      data/weights-…           a W or an H in pieces, carried from pass to pass
      data/layout-…            edges of the panels, digests of the content of V and its weights
      data/answer-…            W, H, histories, means
      H, W, error_history …     what is to be seen of these: see `view`

Each folder of data is written once (see `generations`). A commit writes new folders, waits until the disk has
them, and then replaces the group's metadata object whole, which names those that are current; only then what
is named no more is deleted. Whoever looks, at any moment, sees the last whole commit. The record also tells
the commit before, whose data stay: if the last one is damaged the fit goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from zarr.storage import LocalStore

from dask_nmf._version import __version__
from dask_nmf.cluster import config
from dask_nmf.errors import ConcurrentCommitError, DataError, InvalidRunError, readable
from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending
from dask_nmf.kernels.summary.digests import Digest, Hashes
from dask_nmf.planning import row_panels
from dask_nmf.runs import schema, stored_result
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.settings import Settings
from dask_nmf.solvers.solver import State
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.storage.arrays import chunks, links, write_once
from dask_nmf.storage.arrays.factors import CURE, ZarrFactor, reporting_damage
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA, INTEGER_FILL, Layout
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.local.filesystem import sync_folder, sync_trees
from dask_nmf.storage.locations import locate
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

FORMAT = 5
KEY = "dask_nmf"
VISIBLE = ("H", "W", "error_history", "seconds_history", "row_mean", "column_mean")


class Run:
    """A fit in a Zarr group.

    Attributes
    ----------
    path : where it is
    record : what it tells of itself: of the last commit, but for what this process is about to commit
    check_held : raises `RunLocked` where another process has taken over the place; called by every commit,
        and before anything is deleted
    """

    def __init__(
        self,
        path: str,
        group: zarr.Group,
        told: dict[str, Any],
        check_held: CheckHeld = always_held,
        synced: bool = True,
    ) -> None:
        self.path = path
        self.record = told
        self.check_held = check_held
        self._group = group
        self._name = write_once.folder_namer()
        self._made: set[str] = set()  # folders of data, since the last commit
        self._carried: dict[int, str] = {}  # where the W of each slot is that was made since then
        self._answer = ""  # the folder of the answer that is being written
        self._synced = synced and config.read().fsync
        self._on_disk: set[str] = set()  # folders of data that are known to be

    @classmethod
    def create(
        cls,
        path: str,
        settings: dict[str, Any],
        matrix: dict[str, Any],
        *,
        overwrite: bool = False,
        check_held: CheckHeld = always_held,
        synced: bool = True,
    ) -> Run:
        """Begin a run at a place where there is none.

        Parameters
        ----------
        overwrite : whether it would have overwritten one: the same call then goes on with it.
        check_held : raises `RunLocked` where another process has taken the place over.
        synced : commits wait until a disk has them, unless the configuration says that they need not.

        Raises
        ------
        ConcurrentCommitError
            If another process has made something there meanwhile.
        """
        told = _new_record(settings, matrix, overwrite)
        check_held()
        if not is_free(path):
            raise ConcurrentCommitError(path)
        waits = synced and config.read().fsync
        group = links.create_group(locate(path).store(), {KEY: told}, waits)
        run = cls(path, group, told, check_held, synced)
        run._sweep(run._left_behind())
        return run

    def replace_fit(self, settings: dict[str, Any], matrix: dict[str, Any]) -> None:
        """Begin another fit in the place of this one, whose answer stays until there is a newer one."""
        kept = {name: self.record[name] for name in ("answer", "turn")}
        self._publish({**_new_record(settings, matrix, True), **kept})
        self._sweep(self._left_behind())

    @classmethod
    def load(cls, path: str, check_held: CheckHeld = always_held) -> Run:
        """Open a run.

        Parameters
        ----------
        check_held : raises `RunLocked` where another process has taken the run over: who writes needs it.

        Raises
        ------
        FileNotFoundError
            If there is nothing at the path.
        InvalidRunError
            If there is something else.
        """
        place = locate(path)
        if not place.exists():
            raise FileNotFoundError(f"there is no run at {path}")
        try:
            with readable(path, CURE):
                group = zarr.open_group(place.store(), mode="r+" if place.is_writable() else "r")
                told = dict(group.attrs).get(KEY)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, DataError) as error:
            raise InvalidRunError(
                f"{path} is not a run of dask-nmf; give another path or remove it"
            ) from error
        if not isinstance(told, dict):
            raise InvalidRunError(f"{path} is a Zarr group, but not a run of dask-nmf; give another path")
        if told.get("format") != FORMAT:
            raise InvalidRunError(
                f"{path} is a run of format {told.get('format')}, made by version {told.get('version')}; "
                f"this version reads format {FORMAT}; use that version for it, or give another path"
            )
        with reporting_damage(path):
            schema.validate(told)
        return cls(path, group, told, check_held)

    @classmethod
    def load_result(cls, path: str) -> StoredResult:
        """Open the answer of a run; raises as `load` does, and ValueError where it has none yet."""
        result = cls.load(path).result
        if result is None:
            raise ValueError(f"{path} has no W and H yet; finish it with dask-nmf fit first")
        return result

    @property
    def result(self) -> StoredResult | None:
        """The last answer, which may be of a fit before the one in progress; None if there is none."""
        told = self.record["answer"]
        return None if told is None else StoredResult(self.path, self._group, told)

    def summary(self) -> dict[str, Any]:
        """What a person wants to know of the run, as JSON holds it."""
        return {"run": self.path, **schema.summarize(self.record)}

    @property
    def settings(self) -> Settings:
        """Those of the fit."""
        return schema.settings_of(self.record)

    @property
    def transposed(self) -> bool:
        """Whether the panels are columns of V."""
        return bool(self.record["matrix"]["transposed"])

    @property
    def passes(self) -> int | None:
        """Passes committed; None before the start is."""
        done: int | None = self.record["pass"]
        return done

    @property
    def edges(self) -> tuple[int, ...]:
        """Edges of the panels."""
        return self._edges("edges", schema.panel_shape(self.record)[0])

    @property
    def cuts(self) -> tuple[int, ...] | None:
        """Edges of the pieces of columns, where V is cut both ways."""
        if self.record["layout"] is None or not self.record["layout"]["pieces"]:
            return None
        return self._edges("cuts", schema.panel_shape(self.record)[1])

    def set_layout(self, edges: Sequence[int], cuts: Sequence[int] | None = None) -> None:
        """Lay out a fit over panels, or over blocks where V is cut both ways; `commit_start` commits it."""
        told: dict[str, Any] = {
            "folder": self._new_folder("layout"),
            "panels": len(edges) - 1,
            "pieces": 0 if cuts is None else len(cuts) - 1,
            "units": [row_panels.unit(edges), 0 if cuts is None else row_panels.unit(cuts)],
        }
        self.record = {**self.record, "layout": told}
        for name, values in (("edges", edges), ("cuts", cuts)):
            if values is not None:
                self._array(told["folder"], name)[...] = np.asarray(values, np.int64)

    def commit_start(
        self, state: State, measures: dict[str, Any], digests: Sequence[Digest], listing: dict[str, Any]
    ) -> None:
        """Commit the start as pass 0, with what V and its weights were: their content and their files."""
        folder = self.record["layout"]["folder"]
        for name, digest in zip(schema.SOURCES, digests, strict=False):
            self._array(folder, name)[...] = digest.sums.view(np.int64)
        self._commit_state(
            0, state, measures=measures, listing=listing, history={"relative_error": [], "seconds": []}
        )

    def digest(self, name: str) -> Hashes:
        """Return the digest of V or its weights at the first read, whole: see `digests.Digest`."""
        return self._read(self.record["layout"]["folder"], name).view(np.uint64)

    def update_listing(self, listing: dict[str, Any]) -> None:
        """Commit how the files of V and its weights are now, whose content is known to be the same."""
        if listing != self.record["listing"] and not self._group.read_only:
            self._publish({**self.record, "listing": listing})

    def commit(self, step: Step) -> None:
        """Make a pass the last one done."""
        history = self.record["history"]
        self._commit_state(
            step.number,
            step.state,
            history={
                "relative_error": [*history["relative_error"], _or_none(step.relative_error)],
                "seconds": [*history["seconds"], step.seconds],
            },
            outcome=step.outcome,
            message=step.message,
            final=step.final,
        )

    def state(self) -> State:
        """Return the state of the last commit."""
        scalars, folder = self.record["state"], self.record["commit"]
        nothing = np.empty((self.settings.n_components, 0), self.record["matrix"]["dtype"])
        factors: dict[str, Any] = {"h": nothing, "entering": nothing}
        for name in self.record["factors"]:
            found = self._read(folder, self._stored_name(name))
            turned = name == "h" and self.transposed
            factors[name] = np.ascontiguousarray(found.T) if turned else found
        known = {name: value for name, value in scalars.items() if value is not None}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return State(**factors, **known | lists)

    def factor(self, slot: int) -> ZarrFactor:
        """Return the W (or H in pieces) that is in a slot, to be read."""
        path = self._carried.get(slot) or self.record["weights"][str(slot)]
        return self._weights(path)

    def new_factor(self, slot: int) -> ZarrFactor:
        """Return a new place for the W of a slot: what is there stays until the next commit."""
        self._carried[slot] = f"{DATA}/{self._new_folder('weights')}/left"
        return self._weights(self._carried[slot])

    def new_h_pieces(self, slot: int) -> ZarrFactor:
        """Return a new place for the H of a slot, in pieces."""
        self._carried[slot] = f"{DATA}/{self._new_folder('weights')}/pieces"
        return self._weights(self._carried[slot])

    def temporary_w(self) -> ZarrFactor:
        """Return a new place for a W that no commit is to name."""
        return self._weights(f"{DATA}/{self._new_folder('weights')}/left")

    def recover(self) -> None:
        """Take the run over from whoever wrote it last, and mend what commands that were killed have left.

        A fit goes back to the commit before the last one if a part of that is damaged.

        Raises
        ------
        InvalidRunError
            If neither is whole.
        RunLocked, ConcurrentCommitError
            If another process has taken it over meanwhile.
        """
        if self._group.read_only:
            return
        left = self._left_behind()
        if left or not self.record["finished"]:  # first, so that who comes late cannot commit what is deleted
            self._publish({**self.record, "writer": uuid4().hex})
        self._sweep(left)
        if self.record["answer"] is not None:
            links.write_metadata(self._group, VISIBLE, self._synced)
        if self.record["finished"] or self.passes is None:
            return
        try:
            self._check_whole()
        except InvalidRunError as damage:
            if self.record["previous"] is None:
                raise
            done = self.record["previous"]["pass"]
            history = {name: values[:done] for name, values in self.record["history"].items()}
            told = {**self.record, **self.record["previous"], "history": history, "previous": None}
            self.record, last = told, self.record
            try:
                self._check_whole()
            except InvalidRunError:
                self.record = last
                raise damage from None
            logger.warning("pass %d of %s is damaged; going on after pass %d", last["pass"], self.path, done)
            self._publish(told)

    def create_factors(self) -> dict[str, ZarrFactor]:
        """Lay out an answer. Return the places of its factors and means, by rows, by their names."""
        self._answer = self._new_folder("answer")
        return self._answer_places(self._answer)

    def temporary_factor(self, name: str) -> ZarrFactor:
        """Return a place for what becomes a factor of the answer, and is changed before it is one."""
        return self._answer_places(self._new_folder("answer"))[name]

    def _answer_places(self, folder: str) -> dict[str, ZarrFactor]:
        told = {**self.record, "units": stored_result.units(self.record)}
        return {
            name: ZarrFactor(
                write_once.open_array(self._group, f"{DATA}/{folder}/{name}", layout), transposed=name == "H"
            )
            for name, layout in stored_result.layouts(told).items()
            if name not in schema.HISTORIES
        }

    def commit_result(self, loss: float, held: float, ending: Ending | None) -> StoredResult:
        """Commit the answer that was laid out last, and written since; what is not there is refused."""
        outcome, message = ending or (None, None)
        finished = outcome is not None and outcome.final
        copied = {name: self.record[name] for name in ("settings", "matrix", "measures", "history", "pass")}
        told = {
            **copied,
            "folder": self._answer,
            "units": stored_result.units(self.record),
            "finished": finished,
            "outcome": outcome,
            "message": message,
            "loss": _or_none(loss),
            "held": _or_none(held),
        }
        self._check_there()
        self._write_histories(self._answer, self.record)
        result = StoredResult(self.path, self._group, told)
        shown = {
            name: (f"{DATA}/{self._answer}/{name}", layout)
            for name, layout in stored_result.layouts(told).items()
        }
        for name in shown:
            result.array(name)
        after = {"answer": told, "finished": finished, "outcome": outcome, "message": message}
        ended: dict[str, Any] = {"commit": None, "weights": {}, "previous": None} if finished else {}
        self._publish({**self.record, **after, **ended}, shown)
        links.write_metadata(self._group, VISIBLE, self._synced)
        return result

    def _commit_state(self, number: int, state: State, **fields: Any) -> None:
        if number > 0:
            self._check_there()
        folder = self._new_folder(f"pass-{number}")
        present = (name for name in schema.FACTORS if getattr(state, name) is not None)
        factors = {name: getattr(state, name) for name in present if getattr(state, name).size}
        for name, factor in factors.items():
            turned = name == "h" and self.transposed
            self._array(folder, self._stored_name(name))[...] = factor.T if turned else factor
        known = {**self.record["weights"], **{str(slot): path for slot, path in self._carried.items()}}
        slots = {str(getattr(state, name)) for name in schema.SLOT_NAMES}
        before = {name: self.record[name] for name in schema.COMMIT} if number > 0 else None
        told = {
            **self.record,
            "pass": number,
            "state": {name: _as_json(getattr(state, name)) for name in State.SCALARS},
            "factors": list(factors),
            "commit": folder,
            "weights": {slot: path for slot, path in known.items() if slot in slots},
            "previous": before,
            **fields,
        }
        shown = None
        if told["answer"] is None:
            self._write_histories(folder, told)
            shown = self._shown(told)
        self._publish(told, shown)

    def _shown(self, told: dict[str, Any]) -> VisibleArrays:
        """Return what is to be seen of a commit: histories, and the factor that panels are given.

        Nothing is known of that where a factor is fixed, or where it comes from a part of the columns so far.
        """
        folder, name = told["commit"], self._stored_name("h")
        shown = {key: (f"{DATA}/{folder}/{key}", self._layout(key, told)) for key in schema.HISTORIES}
        slot = str(told["state"]["slot"])
        if any(told["settings"].get(fixed) is not None for fixed in ("fixed_W", "fixed_H")):
            return shown
        if "h" in told["factors"]:
            return {name: (f"{DATA}/{folder}/{name}", self._layout(name, told)), **shown}
        if told["layout"]["pieces"] and slot in told["weights"]:
            return {name: (told["weights"][slot], self._layout("pieces", told)), **shown}
        return shown

    def _write_histories(self, folder: str, told: dict[str, Any]) -> None:
        for name, key in schema.HISTORIES.items():
            values = told["history"][key]
            array = write_once.open_array(self._group, f"{DATA}/{folder}/{name}", self._layout(name, told))
            array[...] = np.asarray(values, np.float64)

    def _publish(self, told: dict[str, Any], shown: VisibleArrays | None = None) -> None:
        """Commit a record, show these arrays, or those that are shown already, and delete what is old."""
        self.check_held()
        named = schema.current_folders(told)
        self._sync(f"{DATA}/{name}" for name in named - self._on_disk)
        listed = self._group.metadata.consolidated_metadata
        metadata = {} if listed is None else listed.metadata
        if shown is not None:
            told = {**told, "turn": 1 - told["turn"]}
            metadata = links.link_arrays(self._group, shown, told["turn"], VISIBLE)
            if told["answer"] is not None:
                self._sync(shown)
        self.check_held()
        self._group = links.publish(self._group, metadata, {KEY: told}, self._synced)
        made, before = self._made, schema.current_folders(self.record)
        self.record, self._made, self._carried, self._on_disk = told, set(), {}, named
        self._delete((made | before) - named)

    def _sync(self, names: Iterable[str]) -> None:
        """Wait until the disk has what is below these names, if there is one and that is asked for."""
        root = self._folder
        if root is None or not self._synced:
            return
        sync_trees(place for place in (root / name for name in names) if place.exists())  # or has no entries
        if not self._on_disk:  # the folder of all data may be new
            sync_folder(root)

    @property
    def _folder(self) -> Path | None:
        """The folder of the run, where it is on a disk."""
        store = self._group.store
        return Path(store.root) if isinstance(store, LocalStore) else None

    def _left_behind(self) -> set[str]:
        """Return the folders of data that commands which were killed, and late workers, have left."""
        return write_once.list_folders(self._group) - schema.current_folders(self.record)

    def _delete(self, folders: Iterable[str]) -> None:
        self.check_held()
        write_once.delete_folders(self._group, folders)

    def _sweep(self, left: set[str]) -> None:
        self._delete(left)
        write_once.delete_partials(self._group, VISIBLE)

    def _check_there(self) -> None:
        """Refuse to go on where the run was deleted under the fit."""
        with reporting_damage(self.path):
            check_stored(self._array(self.record["layout"]["folder"], "edges"), self.path, whole=True)

    def _check_whole(self) -> None:
        """Refuse a commit of which a part is lost."""
        folder = self.record["commit"]
        for name in self.record["factors"]:
            self._read(folder, self._stored_name(name))
        with reporting_damage(self.path):
            for path in self.record["weights"].values():
                array = self._weights(path).array
                check_chunks(array, array.name)
                check_stored(array, array.name, whole=True)
                if chunks.has_empty_chunk(array):
                    raise DataError(f"{array.name} has a chunk without content")

    def _new_folder(self, purpose: str) -> str:
        name = self._name(purpose)
        self._made.add(name)
        return name

    def _stored_name(self, factor: str) -> str:
        """Return the name of the array that a factor of a state is in."""
        return factor if factor != "h" else "W" if self.transposed else "H"

    def _weights(self, path: str) -> ZarrFactor:
        layout = self._layout(path.rpartition("/")[2], self.record)
        return ZarrFactor(write_once.open_array(self._group, path, layout), whole=True)

    def _array(self, folder: str, name: str) -> zarr.Array[Any]:
        return write_once.open_array(self._group, f"{DATA}/{folder}/{name}", self._layout(name, self.record))

    def _read(self, folder: str, name: str) -> Array:
        """Return a small array of the run, whole."""
        array = self._array(folder, name)
        with reporting_damage(self.path):
            check_chunks(array, name)
            check_stored(array, name, whole=True)
            return np.asarray(array[...])

    def _layout(self, name: str, told: dict[str, Any]) -> Layout:
        """Return how an array of a commit is stored."""
        rows, columns = schema.panel_shape(told)
        rank, width, dtype = (
            told["settings"]["n_components"],
            schema.carried_columns(told),
            told["matrix"]["dtype"],
        )
        sides = ("column", "row") if self.transposed else ("row", "column")
        if name in schema.HISTORIES:
            return stored_result.history(told)
        if name in schema.PANEL_FACTORS:
            return Layout((width, columns), (width, columns), dtype, ("component", sides[1]))
        if name in schema.SOURCES:
            return _integers(schema.digest_spans(told), "span")
        laid = told["layout"]
        return {
            "H": Layout((rank, columns), (rank, columns), dtype, ("component", "column")),
            "W": Layout((columns, rank), (columns, rank), dtype, ("row", "component")),
            "left": Layout((rows, width), (laid["units"][0], width), dtype, (sides[0], "component")),
            "pieces": Layout((columns, rank), (laid["units"][1], rank), dtype, (sides[1], "component")),
            "edges": _integers(laid["panels"] + 1, "edge"),
            "cuts": _integers(laid["pieces"] + 1, "edge"),
        }[name]

    def _edges(self, name: str, size: int) -> tuple[int, ...]:
        edges = tuple(self._read(self.record["layout"]["folder"], name).tolist())
        with reporting_damage(self.path):
            schema.check_edges(edges, size)
        return edges


def is_free(path: str) -> bool:
    """Return whether a run may begin at a place: at most data of a run that was deleted are there."""
    place = locate(path)
    return not place.exists() or write_once.is_abandoned(place.store())


def _new_record(settings: dict[str, Any], matrix: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return the record of a fit that is about to begin."""
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": settings,
        "matrix": matrix,
        "writer": uuid4().hex,  # of the process that writes, or has written last
        "overwrites": overwrite,  # whether it was begun so: then the same call goes on with it
        "pass": None,
        "outcome": None,  # of the last pass: why it is the last, an `Outcome`
        "message": None,  # the same as a sentence
        "final": False,  # no pass is to follow
        "finished": False,  # nothing is left to do
        "layout": None,
        "commit": None,  # the folder of the last commit
        "weights": {},  # where the W of each slot is
        "previous": None,  # the commit before
        "answer": None,
        "turn": 1,  # by which of the encodings of `view` arrays are shown
    }


def _integers(size: int, dimension: str) -> Layout:
    return Layout((size,), (size,), "int64", (dimension,), INTEGER_FILL)


def _as_json(value: Any) -> Any:
    """Return a scalar of a state as JSON holds it."""
    return list(value) if isinstance(value, tuple) else _or_none(value)


def _or_none(number: float) -> float | None:
    """Return a number as JSON holds it: what is infinite or NaN is left out, and comes back as by default."""
    return number if np.isfinite(number) else None
