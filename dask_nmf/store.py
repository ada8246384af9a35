"""A run: one Zarr v3 group that holds a fit, from its first pass to its answer.

::

    run.zarr
      attributes["dask_nmf"]   format, settings, matrix, plan, the last commit, the outcome
      H (component, column)    of the last commit, until it is that of the answer
      W (row, component)       likewise where the panels are columns; else of the answer alone
      history_loss (pass), history_seconds (pass)
      digests/V, weights       of their content, by spans of rows: see `digests`
      checkpoint/edges, checkpoint/0, checkpoint/1 (even and odd passes), checkpoint/w0, w1, w2
      checkpoint/cuts    where V is cut both ways, instead of 0 and 1; H is in pieces then

A commit writes the idle slot and then the group's attributes: one small object that is replaced whole.
Whoever looks, at any moment, sees the last whole commit. The consolidated metadata in the same object
lists H and the histories of that commit (see `commits`), and the answer only when all of it is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from dask_nmf import __version__, commits, plan, record
from dask_nmf.claims import check_chunks, check_stored
from dask_nmf.digests import Digest, Hashes
from dask_nmf.errors import DataError, readable
from dask_nmf.fit import Step
from dask_nmf.kernels import Array
from dask_nmf.means import Means
from dask_nmf.places import at
from dask_nmf.settings import Settings
from dask_nmf.solvers import SLOTS, State

FORMAT = 3
KEY = "dask_nmf"
NOTHING = -1.0  # the fill value of means, of which all may be NaN
CURE = "restore it, or remove it and begin anew"
ANSWER = ("H", "W", "history_loss", "history_seconds")
MEANS = ("row_mean", "column_mean")  # a part of the answer where not every entry is observed
PARTS = (*ANSWER, *MEANS, "checkpoint", "digests")


class NotARun(ValueError):
    """What is at the path is not a run that this version can read."""


@dataclass(frozen=True)
class StoredWeights:
    """A W in Zarr, by rows of the panels; ``transposed`` where the array holds its transpose (H)."""

    array: zarr.Array[Any]
    transposed: bool = False

    def read(self, first: int, last: int) -> Array:
        with readable(getattr(self.array, "store_path", "a factor"), CURE):
            block = np.asarray(self.array[:, first:last] if self.transposed else self.array[first:last])
        return block.T if self.transposed else block

    def write(self, first: int, w: Array) -> None:
        last = first + len(w)
        if self.transposed:
            self.array[:, first:last] = w.T
        else:
            self.array[first:last] = w


class Run:
    """A fit in a Zarr group."""

    def __init__(self, path: str, group: zarr.Group) -> None:
        self.path = path
        self.group = group

    @classmethod
    def create(cls, path: str, settings: dict[str, Any], matrix: dict[str, Any]) -> Run:
        """Begin a run at a place where there is none, or in the stead of the one that is there."""
        told = {
            "format": FORMAT,
            "version": __version__,
            "settings": settings,
            "matrix": matrix,
            "pass": None,
            "outcome": None,  # of the last pass: why it is the last
            "final": False,  # no pass is to follow
            "answered": False,  # H and W are there
            "finished": False,  # nothing is left to do
        }
        if at(path).exists():
            old = cls.load(path)
            old._publish(told)
            return old
        return cls(path, zarr.create_group(at(path).store(), zarr_format=3, attributes={KEY: told}))

    @classmethod
    def load(cls, path: str) -> Run:
        """Open a run.

        Raises
        ------
        FileNotFoundError
            If there is nothing at the path.
        NotARun
            If there is something else.
        """
        place = at(path)
        if not place.exists():
            raise FileNotFoundError(f"there is no run at {path}")
        try:
            with readable(path, CURE):
                group = zarr.open_group(place.store(), mode="r+" if place.writable() else "r")
                told = dict(group.attrs).get(KEY)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, DataError) as error:
            raise NotARun(f"{path} is not a run of dask-nmf; give another path or remove it") from error
        if not isinstance(told, dict):
            raise NotARun(f"{path} is a Zarr group, but not a run of dask-nmf; give another path")
        if told.get("format") != FORMAT:
            raise NotARun(
                f"{path} is a run of format {told.get('format')}, made by version {told.get('version')}; "
                f"this version reads format {FORMAT}; use that version for it, or give another path"
            )
        run = cls(path, group)
        with run.sound():
            record.check(told)
        return run

    @classmethod
    def load_answered(cls, path: str) -> Run:
        """Open a run that has its W and H; raises as `load` does, and ValueError where it has none yet."""
        run = cls.load(path)
        if not run.record["answered"]:
            raise ValueError(f"{path} has no W and H yet; finish it with dask-nmf fit first")
        return run

    @property
    def record(self) -> dict[str, Any]:
        """The attributes of the last commit."""
        told: dict[str, Any] = self.group.attrs[KEY]  # type: ignore[assignment]
        return told

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Call a run damaged of which some part cannot be read, or is not as the others have it.

        Raises
        ------
        NotARun
        """
        try:
            with readable(self.path, CURE):
                yield
        except (FileNotFoundError, DataError) as error:
            raise NotARun(f"{self.path} is damaged: {error.__cause__ or error}; {CURE}") from error

    def summary(self) -> dict[str, Any]:
        """What a person wants to know of the run, as JSON holds it."""
        return {"run": self.path, **record.summary(self.record)}

    @property
    def settings(self) -> Settings:
        """Of the fit."""
        return record.settings(self.record)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the factors."""
        dtype: np.dtype[Any] = np.dtype(self.record["matrix"]["dtype"])
        return dtype

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
        """Of the panels."""
        return self._edges("checkpoint/edges", record.across(self.record)[0])

    @property
    def cuts(self) -> tuple[int, ...] | None:
        """Edges of the pieces of columns, where V is cut both ways."""
        name = "checkpoint/cuts"
        return self._edges(name, record.across(self.record)[1]) if name in self._unlisted() else None

    @property
    def factors(self) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
        """W and H, which are there."""
        w, h = self.array("W"), self.array("H")
        with self.sound():
            for array in (w, h):
                _check_stored(array)
        return w, h

    def begin(self, edges: Sequence[int], settings: Settings, dtype: np.dtype[Any], carries: bool) -> None:
        """Lay out the checkpoint of a fit over these panels, with a carried W if asked."""
        m, n = self.record["matrix"]["shape"]
        columns = m if self.transposed else n
        self._clear()
        _put(self.group, "checkpoint/edges", np.asarray(edges, np.int64), ("edge",))
        for slot in "01":
            for name in record.STORED:
                shape = (settings.carried, columns)
                self._empty(f"checkpoint/{slot}/{name}", shape, shape, dtype, None)
        if carries:
            for place in range(SLOTS):
                width = settings.carried
                chunks = (plan.unit(edges), width)
                self._empty(f"checkpoint/w{place}", (edges[-1], width), chunks, dtype, None)
        self._list()

    def begin_pieces(
        self, edges: Sequence[int], cuts: Sequence[int], rank: int, dtype: np.dtype[Any]
    ) -> None:
        """Lay out the checkpoint of a fit over blocks: no factor is whole in any process."""
        self._clear()
        _put(self.group, "checkpoint/edges", np.asarray(edges, np.int64), ("edge",))
        _put(self.group, "checkpoint/cuts", np.asarray(cuts, np.int64), ("edge",))
        self._empty("checkpoint/w0", (edges[-1], rank), (plan.unit(edges), rank), dtype, None)
        self._list()

    def commit_start(
        self, state: State, measures: dict[str, Any], digests: Sequence[Digest], listing: dict[str, Any]
    ) -> None:
        """Commit the start as pass 0, with what V and its weights were: their content and their files."""
        for name, digest in zip(record.SOURCES, digests, strict=False):
            _put(self.group, f"digests/{name}", digest.sums.view(np.int64), ("span",))
        self._commit_state(0, state, measures=measures, listing=listing, history={"loss": [], "seconds": []})

    def sums(self, name: str) -> Hashes:
        """The digest of V or its weights at the first read, whole: see `digests.Digest`."""
        return self.read(f"digests/{name}").view(np.uint64)

    def note_listing(self, listing: dict[str, Any]) -> None:
        """Commit how the files of V and its weights are now, whose content is known to be the same."""
        if listing != self.record["listing"] and not self.group.read_only:
            self._publish({**self.record, "listing": listing})

    def commit(self, step: Step) -> None:
        """Make a pass the last one done."""
        history = self.record["history"]
        self._commit_state(
            step.number,
            step.state,
            history={
                "loss": [*history["loss"], _or_none(step.loss)],
                "seconds": [*history["seconds"], step.seconds],
            },
            outcome=step.outcome,
            final=step.final,
        )

    def state(self) -> State:
        """The state of the last commit."""
        scalars, place = self.record["state"], f"checkpoint/{self.record['pass'] % 2}"
        nothing = np.empty((self.settings.rank, 0), self.record["matrix"]["dtype"])
        factors: dict[str, Any] = {"h": nothing, "entering": nothing} | {
            name: self._read_factor() if name == "h" else self.read(f"{place}/{name}")
            for name in self.record["factors"]
        }
        known = {name: value for name, value in scalars.items() if value is not None}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return State(**factors, **known | lists)

    def weights(self, slot: int) -> StoredWeights:
        """The carried W of a slot."""
        return StoredWeights(self.array(f"checkpoint/w{slot}"))

    def pieces(self, slot: int) -> StoredWeights:
        """The Hᵀ of a slot, in pieces."""
        cuts = self.cuts
        assert cuts is not None
        return StoredWeights(commits.pieces(self.group, self.record, cuts, slot))

    def reopen(self) -> None:
        """Take back an answer that more passes will replace."""
        self._publish({**self.record, "outcome": None, "answered": False})

    def answer(self) -> StoredWeights:
        """Lay out W and H, and return the one that the panels write."""
        m, n = self.record["matrix"]["shape"]
        rank = self.settings.rank
        rows = plan.unit(self.edges)
        dtype = self.dtype
        for name in (*ANSWER, *MEANS):
            commits.make_room(self.group, name)
        across = (m, n) if not self.transposed else (n, m)
        cuts = self.cuts
        piece = across[1] if cuts is None else plan.unit(cuts)
        if record.partial(self.record):
            for name, size, chunk in (
                ("row_mean", m, piece if self.transposed else rows),
                ("column_mean", n, rows if self.transposed else piece),
            ):
                self._empty(name, (size,), (chunk,), dtype, (name.removesuffix("_mean"),), NOTHING)
        panels, whole = (rows, rank), (rank, piece)
        if self.transposed:
            self._empty("W", (m, rank), (piece, rank), dtype, ("row", "component"))
            h = self._empty("H", (rank, n), panels[::-1], dtype, ("component", "column"))
            return StoredWeights(h, transposed=True)
        self._empty("H", (rank, n), whole, dtype, ("component", "column"))
        return StoredWeights(self._empty("W", (m, rank), panels, dtype, ("row", "component")))

    def place_of_means(self) -> StoredWeights | None:
        """Where the panels write the means of their rows, laid out by `answer`; None if none are taken."""
        if not record.partial(self.record):
            return None
        return StoredWeights(self.array(MEANS[self.transposed]))

    def write_means(self, across: Array) -> None:
        """Write the means of the other side, (columns,)."""
        StoredWeights(self.array(MEANS[not self.transposed])).write(0, across)

    @property
    def means(self) -> Means | None:
        """Means of what the fit observed of rows and columns, if not all of V is, and of everything."""
        if not record.partial(self.record):
            return None
        rows, columns = self.array("row_mean"), self.array("column_mean")
        with self.sound():
            for array in (rows, columns):
                _check_stored(array)
        return Means(rows, columns, self.record["measures"]["mean"])

    def given(self) -> StoredWeights:
        """The factor of the answer that the panels do not write, laid out by `answer`, by rows of columns."""
        name = "W" if self.transposed else "H"
        return StoredWeights(self.array(name), transposed=not self.transposed)

    def finish(
        self, given: Array | None, loss: float, held: float, finished: bool, outcome: str | None
    ) -> None:
        """Add the factor that the panels did not write, (k, columns), if it is needed; and the histories."""
        if given is not None:
            self.given().write(0, given.T)
        for key, values in self.record["history"].items():
            _put(self.group, f"history_{key}", np.asarray(values, np.float64), ("pass",))
        told = {"finished": finished, "answered": True, "loss": _or_none(loss), "held": _or_none(held)}
        self._publish({**self.record, **told, "outcome": outcome})
        if finished:
            commits.delete(self.group, ["checkpoint"])
            commits.delete_slots(self.group, ANSWER)
            self._list()

    def _commit_state(self, number: int, state: State, **fields: Any) -> None:
        slot = number % 2
        self.array("checkpoint/edges")  # or nothing is written: the run was deleted under the fit
        present = (name for name in record.FACTORS if getattr(state, name) is not None)
        factors = {name: getattr(state, name) for name in present if getattr(state, name).size}
        for name, factor in factors.items():
            if name == "h":
                commits.factor(self.group, self.record, slot)[...] = factor.T if self.transposed else factor
            else:
                self.array(f"checkpoint/{slot}/{name}")[...] = factor
        scalars = {name: _as_json(getattr(state, name)) for name in State.SCALARS}
        told = {**self.record, "pass": number, "state": scalars, "factors": list(factors), **fields}
        commits.write_histories(self.group, told)
        self._publish(told)

    def _publish(self, told: dict[str, Any]) -> None:
        """Replace the record, and list what belongs to it, in one write."""
        if told["answered"]:
            names = (*ANSWER, *MEANS) if record.partial(told) else ANSWER
            shown = {name: self.array(name) for name in names}
        else:
            in_pieces = told["pass"] is not None and "h" not in told["factors"]
            shown = commits.shown(self.group, told, self.cuts if in_pieces else None)
        commits.publish(self.group, (*ANSWER, *MEANS), shown, {KEY: told})

    def _read_factor(self) -> Array:
        """The h of the last commit."""
        array = commits.factor(self.group, self.record, self.record["pass"] % 2)
        with self.sound():
            _check_stored(array)
            factor = np.asarray(array[...])
        return np.ascontiguousarray(factor.T) if self.transposed else factor

    def _clear(self) -> None:
        """Delete what an earlier run left."""
        commits.delete(self.group, PARTS)

    def _unlisted(self) -> zarr.Group:
        """The group by the metadata of each part, whatever its consolidated metadata says."""
        with self.sound():
            return zarr.open_group(
                self.group.store, mode="r" if self.group.read_only else "r+", use_consolidated=False
            )

    def _list(self) -> None:
        with self.sound():
            self.group = consolidate(self.group)

    def array(self, name: str) -> zarr.Array[Any]:
        """An array of the group, listed or not; `NotARun` if it is not of the shape that the record tells."""
        mode = "r" if self.group.read_only else "r+"
        with self.sound():
            array = zarr.open_array(self.group.store, path=name, mode=mode)
            record.check_array(self.record, name, array.shape, check_chunks(array, name), array.dtype)
        return array

    def read(self, name: str) -> Array:
        """A small array of the group, whole."""
        array = self.array(name)
        with self.sound():
            _check_stored(array)
            return np.asarray(array[...])

    def _edges(self, name: str, size: int) -> tuple[int, ...]:
        edges = tuple(self.read(name).tolist())
        with self.sound():
            record.check_edges(edges, size)
        return edges

    def _empty(
        self,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: np.dtype[Any],
        names: tuple[str, ...] | None,
        nothing: float = np.nan,
    ) -> zarr.Array[Any]:
        return self.group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            dimension_names=names,
            fill_value=nothing,  # zarr leaves out chunks of the fill value: so all are there, or lost
        )


def _as_json(value: Any) -> Any:
    """A scalar of a state as JSON holds it."""
    return list(value) if isinstance(value, tuple) else _or_none(value)


def _or_none(number: float) -> float | None:
    """A number as JSON holds it: what is infinite or NaN is left out, and comes back as it was by default."""
    return number if np.isfinite(number) else None


def _check_stored(array: zarr.Array[Any]) -> None:
    """Refuse an array of which a chunk is lost, as far as can be told."""
    check_stored(array, array.name, whole=bool(array.fill_value != 0))


def consolidate(group: zarr.Group) -> zarr.Group:
    """List the group's arrays in its own metadata, as xarray wants it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        return zarr.consolidate_metadata(group.store)


def _put(group: zarr.Group, name: str, values: Array, names: tuple[str, ...]) -> None:
    shape = tuple(max(size, 1) for size in values.shape)
    array = group.create_array(
        name, shape=values.shape, chunks=shape, dtype=values.dtype, dimension_names=names
    )
    array[...] = values
