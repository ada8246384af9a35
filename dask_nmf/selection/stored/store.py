"""A selection in a Zarr group: its models, committed after each shared pass, and its findings.

::

    select.zarr
      attributes["dask_nmf_selection"]   the record: options, matrix, models, the findings, the answer
      data/layout-…                      edges of the panels, digest of the content of V
      data/pass-…                        a commit: the states of the models that run, stacked by rows
      data/factors-…                     the best factors of models that ended with one pass, stacked
      data/result-…                      clusters of rows by model, the factor with which the final fit begins
      data/replicates-…                  the states of the bootstrap replicates of the final fit that run,
                                         and the factors of those that ended with one pass
      data/error-bars-…                  standard errors of its components, and their likeness
      fit/                               the run of the final fit
      components_stderr/                 a link to the standard errors under a plain name: see `links`

Commits are those of `commits`, as for a run.
The *findings* are those of the models of the record, once all of them have ended. They become the *answer*
when the run of the final fit has a result. The answer before it, of other models or of a selection that is
overwritten, stays until then, with its error bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.kernels.summary.digests import Digest, Hashes
from dask_nmf.runs.commits import FIT, is_free
from dask_nmf.runs.run import Run
from dask_nmf.selection.bootstrap import ErrorBars
from dask_nmf.selection.comparison import Findings
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.selection.stored.group import SelectionGroup
from dask_nmf.selection.stored.model_arrays import (
    FACTOR,
    Begin,
    factors_stacked,
    model_of,
    part_of,
    replicate_of,
    stacked,
)
from dask_nmf.selection.stored.record import (
    ENDED,
    ERRORS,
    FACTORS,
    NO_ERROR_BARS,
    PASS,
    REPLICATES,
    SELECTION,
    STDERR,
    kept_answer,
    new_record,
    of_error_bars,
)
from dask_nmf.storage.arrays.commits import Record, open_group
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array


class SelectionStore(SelectionGroup):
    """A selection in a Zarr group.

    Attributes
    ----------
    location : where the selection is
    record : the record of the last commit
    """

    @classmethod
    def find(
        cls, location: Location, identity: dict[str, Any], overwrite: bool, check_held: CheckHeld
    ) -> SelectionStore:
        """Return the selection to go on with, or one that begins with its first commit.

        The same call goes on with a selection that was begun to overwrite another one and has no answer yet.

        Raises
        ------
        RunMismatch
            If there is a selection with other options or of another V, and it may not be overwritten.
        InvalidRunError
            If there is something else, which is never overwritten.
        """
        if is_free(location):
            return cls(location, None, new_record(identity, overwrite), check_held)
        store = cls.load(location, check_held)
        stored = store.record["identity"]
        differing = [
            f"{name} is {ours!r}, it has {stored.get(name)!r}"
            for name, ours in identity.items()
            if name != "source" and stored.get(name) != ours
        ]
        goes_on = not differing and store.record["overwrites"] and not store.is_answered
        if overwrite and not goes_on:
            kept = kept_answer(store.record)
            return cls(location, store._commits.group, {**new_record(identity, True), **kept}, check_held)
        if differing:
            raise RunMismatch(
                f"{location.name} holds another selection: {'; '.join(differing)}; "
                "give another output, or ask to overwrite it (--overwrite)"
            )
        if not store._commits.group.read_only:
            store._commits.write_metadata()  # a command that was killed has not
        return store

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
        group, record = open_group(location, SELECTION)
        return cls(location, group, {**NO_ERROR_BARS, "encoding": 1, **record}, check_held)

    @property
    def is_answered(self) -> bool:
        """Whether the answer is that of the present models."""
        folders = self.record["folders"]
        return "answer" in folders and folders["answer"] == folders.get("findings")

    @property
    def is_finished(self) -> bool:
        """Whether the answer is that of the present models, and its fit has ended."""
        fit = self.location.within(FIT)
        if not self.is_answered or not fit.exists():
            return False
        try:
            return bool(Run.load(fit).record["finished"])
        except InvalidRunError:  # the final fit is made anew
            return False

    def commit_layout(self, edges: Sequence[int], digest: Digest, sample: tuple[int, int, int]) -> None:
        """Commit how V is cut, the digest of its content, and samples: largest rank, folds and rows of each.

        Nothing is written if they are committed already.
        """
        if "layout" not in self.record["folders"]:
            arrays = {"edges": np.asarray(edges, np.int64), "V": digest.sums.view(np.int64)}
            self._commit({"layout": ("layout", _whole(arrays))}, {"sample": list(sample)})
        elif self.sample_rows(*sample[:2]) is None:
            self._publish({**self.record, "sample": list(sample)})

    def sample_rows(self, rank: int, folds: int) -> int | None:
        """Return the rows of a sample for starts up to a rank in some folds; None if they are not known."""
        most_rank, most_folds, rows = self.record["sample"]
        return rows if rank <= most_rank and folds <= most_folds else None

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
        """Commit all models after a shared pass: states of those that run, factors of those that ended.

        Models that have not made a pass are without arrays, and so are those that ended before.
        """
        self._check_exists()
        running = [model for model in models if model.runs and model.passes]
        ended = [model for model in models if not model.runs and model.in_memory]
        before = {ModelKey(*part["key"]): part for part in self.record["models"]}
        kind = self._new_kind(FACTORS)
        states, factors = stacked(running), factors_stacked(ended)
        parts = {
            **{model.key: part_of(model) for model in models},
            **{model.key: before[model.key] for model in models if not model.runs and not model.in_memory},
            **{model.key: part_of(model, PASS, at) for model, at in zip(running, states.places, strict=True)},
            **{
                model.key: part_of(model.without_arrays(), kind, at)
                for model, at in zip(ended, factors.places, strict=True)
            },
        }
        folders = {PASS: (f"pass-{number}", states.pieces), kind: (kind, factors.pieces)}
        every = [parts[model.key] for model in models]
        self._commit(folders, {"models": every, "findings": None}, without=["findings"])

    def keys(self) -> list[ModelKey]:
        """Return which models there are."""
        return [ModelKey(*part["key"]) for part in self.record["models"]]

    def ended_keys(self) -> list[ModelKey]:
        """Return which models have ended."""
        return [ModelKey(*part["key"]) for part in self.record["models"] if part["ending"] is not None]

    def models(self, begin: Begin) -> dict[ModelKey, Model]:
        """Return the models of the last commit that have made a pass, without their arrays.

        ``begin`` makes a state of a model before its first pass.
        """
        parts = [part for part in self.record["models"] if part["history"]]
        return {ModelKey(*part["key"]): model_of(part, begin) for part in parts}

    def with_arrays(self, model: Model) -> Model:
        """Return a model of the last commit that runs, with its arrays."""
        part = self._part_of(model.key)
        return model_of(part, lambda key: model.state, self._arrays_of(part))

    def factor(self, key: ModelKey) -> Array:
        """Return the best factor of a model that has ended, (k, columns)."""
        return self._arrays_of(self._part_of(key))[FACTOR]

    def _part_of(self, key: ModelKey) -> Record:
        part: Record = next(part for part in self.record["models"] if part["key"] == list(key))
        return part

    def commit_findings(self, findings: Findings) -> None:
        """Commit the findings of models that have all ended."""
        arrays = {"clusters": findings.clusters + 1, "factor": findings.factor}  # a cluster may be -1
        self._commit({"findings": ("result", _whole(arrays))}, {"findings": findings.table})

    def commit_answer(self, listing: str | None) -> None:
        """Commit that the findings are the answer, with the listing of the files of V."""
        if self.is_answered:
            if self.record["listing"] != listing:
                self._publish({**self.record, "listing": listing})
            return
        parts = {"answer": self.record["findings"], "listing": listing, **NO_ERROR_BARS}
        same = {
            name: {
                **{kind: part for kind, part in self.record[name].items() if not of_error_bars(kind)},
                "answer": self.record[name]["findings"],
            }
            for name in ("folders", "arrays")
        }
        self._publish({**self.record, **parts, **same})

    def commit_replicates(self, number: int, replicates: Sequence[Model]) -> None:
        """Commit the bootstrap replicates after a shared pass: those that ended before are stored already.

        Replicates that have not made a pass are not stored, because they begin anew in the same way.
        """
        stored = {
            ModelKey(*part["key"]): part for part in self.record["replicates"] if part["kind"] != REPLICATES
        }
        new = [model for model in replicates if model.passes and model.key not in stored]
        running, ended = ([model for model in new if model.runs is runs] for runs in (True, False))
        states, factors, kind = stacked(running), factors_stacked(ended), self._new_kind(ENDED)
        parts = [part_of(model, REPLICATES, at) for model, at in zip(running, states.places, strict=True)]
        parts += [part_of(model, kind, at) for model, at in zip(ended, factors.places, strict=True)]
        purpose = f"replicates-{number}"
        folders = {REPLICATES: (purpose, states.pieces), kind: (purpose, factors.pieces)}
        self._commit(folders, {"replicates": [*stored.values(), *parts]})

    def replicates(self, first: Sequence[Model]) -> list[Model]:
        """Return bootstrap replicates as the last commit left them.

        Parameters
        ----------
        first : the replicates before their first pass, as those remain that have not been committed.
        """
        parts = {ModelKey(*part["key"]): part for part in self.record["replicates"]}
        stored = {key: self._arrays_of(part) for key, part in parts.items()}
        return [
            replicate_of(parts[model.key], model, stored[model.key]) if model.key in stored else model
            for model in first
        ]

    def commit_error_bars(self, bars: ErrorBars) -> None:
        """Commit the error bars of the answer, whose replicates are no longer needed."""
        arrays = {STDERR: bars.stderr, "likeness": bars.likeness}
        parts = {"error_bars": bars.replicates, "replicates": []}
        without = [kind for kind in self.record["folders"] if of_error_bars(kind)]
        self._commit({ERRORS: ("error-bars", _whole(arrays))}, parts, without)

    def error_bars(self) -> ErrorBars | None:
        """Return the error bars of the answer; None if there are none."""
        replicates = self.record["error_bars"]
        if replicates is None:
            return None
        stderr, likeness = (self._read(ERRORS, name) for name in (STDERR, "likeness"))
        return ErrorBars(stderr, likeness, replicates)

    def findings(self) -> Findings | None:
        """Return the findings of the models; None as long as some of them run."""
        table = self.record["findings"]
        if table is None:
            return None
        return Findings(table, self._read("findings", "clusters") - 1, self._read("findings", "factor"))


def _whole(arrays: dict[str, Array]) -> dict[str, list[Array]]:
    """Return arrays as stacks of one piece each."""
    return {name: [array] for name, array in arrays.items()}
