"""The planted rank is chosen, whatever V is like and whenever the selection is killed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from support.matrices import Array
from support.selections import assert_same

from dask_nmf.errors import RunMismatch
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.options.settings import Settings
from dask_nmf.planning.model_groups import ModelGroups, Share
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.quality.matching import match_runs
from dask_nmf.runs.run import Run
from dask_nmf.selection import select
from dask_nmf.selection.batches import shared_passes
from dask_nmf.selection.comparison import Findings, Fits, compare
from dask_nmf.selection.models import Model, ModelKey, SelectionOptions, parse_ranks
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.select import Request, choose_rank
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.solvers.hals import HALS
from dask_nmf.storage.locations import locate
from dask_nmf.updates import update

RANK = 3
OPTIONS = SelectionOptions((2, 3, 4), n_init=2, folds=2, holdout=0.1, settings=Settings(4, max_iter=12))


def planted(rows: int = 150, columns: int = 40, seed: int = 0) -> Array:
    """Return a matrix of rank 3 with a tenth of noise."""
    rng = np.random.default_rng(seed)
    v = rng.gamma(0.5, 1, (rows, RANK)) @ rng.gamma(0.5, 1, (RANK, columns))
    return np.maximum(v + 0.1 * v.std() * rng.standard_normal(v.shape), 0)


def counts(rows: int = 300, columns: int = 60) -> Array:
    """Return counts whose means have rank 3."""
    rng = np.random.default_rng(1)
    return rng.poisson(rng.gamma(0.3, 1, (rows, RANK)) @ rng.gamma(0.3, 3, (RANK, columns))).astype(float)


@pytest.fixture
def v(tmp_path: Path) -> Path:
    place = tmp_path / "v.zarr"
    zarr.create_array(place, data=planted(), chunks=(30, 40))
    return place


def choose(
    v: object, options: SelectionOptions = OPTIONS, store: Path | None = None, overwrite: bool = False
) -> RankSelection:
    source = locate(v) if isinstance(v, Path) else v
    return choose_rank(source, options, Request(store=store and locate(store), overwrite=overwrite))


@pytest.mark.parametrize(
    "matrix",
    [planted(), np.ascontiguousarray(planted().T), scipy.sparse.csr_array(planted())],
    ids=["tall", "wide", "csr"],
)
def test_the_planted_rank_is_chosen(matrix: object) -> None:
    found = choose(matrix)
    assert found.n_components == RANK
    assert f"rank {RANK}" in found.reason
    assert found.result is not None
    assert found.result.H.shape[0] == RANK
    assert [row["n_components"] for row in found.ranks] == [2, 3, 4]
    of_rank = {row["n_components"]: row for row in found.ranks}
    assert of_rank[RANK]["stability"] > 0.99
    assert 0.9 < of_rank[RANK]["cophenetic"] <= 1
    assert len(found.models) == len(found.clusters) == 3 * 2 * 2


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
def test_models_that_do_not_fit_a_worker_together_are_passed_and_compared_in_groups(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, most = np.ascontiguousarray(planted().T) if wide else planted(), [0]
    whole, compute = choose(matrix), PanelEngine.compute

    def in_pairs(planned: PanelPlan, ranks: Sequence[int], share: Share) -> ModelGroups:
        numbers = range(len(ranks))
        return ModelGroups(tuple(tuple(numbers[first : first + 2]) for first in numbers[::2]), 0, 1)

    def counted(engine: PanelEngine, h: Array, reduction: Any, w: Any = None, more_h: Any = ()) -> Any:
        most[0] = max(most[0], 1 + len(more_h))
        return compute(engine, h, reduction, w, more_h)

    monkeypatch.setattr(select, "group_models", in_pairs)
    monkeypatch.setattr(shared_passes, "group_models", in_pairs)
    monkeypatch.setattr(PanelEngine, "compute", counted)
    assert_same(choose(matrix), whole)
    assert most == [2]


def test_the_planted_rank_of_counts_is_chosen() -> None:
    settings = replace(OPTIONS.settings, beta_loss="kullback-leibler", max_iter=30)
    assert choose(counts(), replace(OPTIONS, settings=settings)).n_components == RANK


def test_a_selection_that_is_killed_after_any_commit_ends_the_same(
    v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = choose(v, store=tmp_path / "whole.zarr")
    commit = SelectionStore.commit_models
    for passes in (0, 1, 3):

        def killed(store: SelectionStore, number: int, models: object, last: int = passes) -> None:
            if number > last:
                raise KeyboardInterrupt
            commit(store, number, models)  # type: ignore[arg-type]

        place = tmp_path / f"killed after {passes}.zarr"
        with monkeypatch.context() as patch:
            patch.setattr(SelectionStore, "commit_models", killed)
            with pytest.raises(KeyboardInterrupt):
                choose(v, store=place)
        assert_same(choose(v, store=place), whole)


def test_a_finished_selection_is_returned_as_it_is(v: Path, tmp_path: Path) -> None:
    first = choose(v, store=tmp_path / "s.zarr")
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    assert_same(choose(v, store=tmp_path / "s.zarr"), first)
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before


def test_models_are_added_to_a_finished_selection(v: Path, tmp_path: Path) -> None:
    few = choose(v, replace(OPTIONS, ranks=(2, 3), n_init=1, folds=1), store=tmp_path / "s.zarr")
    more = choose(v, store=tmp_path / "s.zarr")
    assert len(few.models) == 2
    assert len(more.models) == 12
    assert [row for row in more.models if row["start"] == row["fold"] == 0][:2] == few.models


def test_a_selection_of_another_v_or_other_options_is_refused(v: Path, tmp_path: Path) -> None:
    place = tmp_path / "s.zarr"
    choose(v, replace(OPTIONS, n_init=1, folds=1), store=place)
    with pytest.raises(RunMismatch, match=r"holdout is 0\.2, it has 0\.1"):
        choose(v, replace(OPTIONS, holdout=0.2), store=place)
    other = zarr.open_array(v, mode="r+")
    other[70] += 1
    with pytest.raises(RunMismatch, match="V is not the same in row 70"):
        choose(v, store=place)


@pytest.mark.parametrize(
    ("given", "ranks"), [("2:5", (2, 3, 4, 5)), ("2:8:3,4", (2, 4, 5, 8)), (7, (7,)), ([3, 1, 3], (1, 3))]
)
def test_ranks_are_parsed(given: str | int | list[int], ranks: tuple[int, ...]) -> None:
    assert parse_ranks(given) == ranks


@pytest.mark.parametrize("given", ["", "0:3", "5:2", "two", [2.5], [True], -1, "1:2:3:4"])
def test_ranks_that_are_none_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="give whole numbers ≥ 1 such as 2:30"):
        parse_ranks(given)  # type: ignore[arg-type]


def test_more_models_than_a_record_may_list_are_refused_before_they_are_listed() -> None:
    with pytest.raises(ValueError, match=r"999999999999 models is too large; give fewer ranks"):
        parse_ranks("2:1000000000000")
    with pytest.raises(ValueError, match=r"33333333333333333333334 models is too large"):
        parse_ranks("2:100000000000000000000000:3,7")
    with pytest.raises(ValueError, match=r"300000 models is too large"):
        SelectionOptions((2, 3, 4), n_init=1000, folds=100)


def test_a_selection_to_whose_fit_rows_were_added_is_not_fitted_anew(v: Path, tmp_path: Path) -> None:
    place, few = tmp_path / "s.zarr", replace(OPTIONS, ranks=(2, 3), n_init=1, folds=1)
    choose(v, few, store=place)
    update(place, planted()[:5])
    rows = Run.load_result(place).record["matrix"]["shape"][0]
    for options in (few, OPTIONS):
        with pytest.raises(RunMismatch, match=r"rows of .* were changed since its fit.*\(--overwrite\)"):
            choose(v, options, store=place)
    assert Run.load_result(place).record["matrix"]["shape"][0] == rows
    choose(v, few, store=place, overwrite=True)
    assert Run.load_result(place).record["matrix"]["shape"][0] == rows - 5


def compared(factors: Sequence[Array], errors: Sequence[float], labels: Sequence[Array]) -> Findings:
    """Return the comparison of models of one rank with these factors, fitted errors and clusters of rows."""
    models = [
        Model(ModelKey(RANK, start, 0), HALS().begin(h), (error,), (0.5,))
        for start, (h, error) in enumerate(zip(factors, errors, strict=True))
    ]
    fold: Any = SimpleNamespace(measures=SimpleNamespace(units=(1.0, 1.0)))
    return compare(Fits(models, lambda model: model.state.h), [fold], labels)


def test_a_start_that_failed_counts_neither_for_the_stability_nor_for_the_final_fit() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.gamma(0.5, 1, (2, RANK, 8))
    factors = [right * rng.uniform(0.9, 1.1, right.shape) for _ in range(4)] + [wrong]
    found = compared(factors, [0.1] * 4 + [0.2], [np.arange(6) % RANK] * 4 + [np.zeros(6, int)])
    (row,) = found.table["ranks"]
    assert row["stability"] == match_runs(factors[:4], [0.1] * 4).stability > 0.98
    assert (row["trials"], row["cophenetic"], row["dispersion"]) == (4, 1, 1)
    assert any(np.array_equal(found.factor, h) for h in factors[:4])
    assert len(found.table["models"]) == len(found.clusters) == 5


def test_two_starts_of_which_one_failed_both_count() -> None:
    factors = np.random.default_rng(0).gamma(0.5, 1, (2, RANK, 8))
    found = compared(factors, [0.1, 0.2], [np.arange(6) % RANK] * 2)
    assert found.table["ranks"][0]["stability"] == match_runs(factors, [0.1, 0.2]).stability < 0.9
