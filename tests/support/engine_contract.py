"""The contract of an engine as inheritable tests: see `EngineContract`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import pytest
from support.matrices import Array, low_rank

from dask_nmf.execution.engine import Engine, Model, Sink
from dask_nmf.execution.tasks.factor_store import InMemoryFactor
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

V = low_rank(60, 24, 3, noise=1)
RANK = 3
LOCK = Lock()


class CountingReader(ReaderDefaults):
    """A reader of `V` that counts how often each box of rows and columns is read."""

    shape, dtype = V.shape, V.dtype

    def __init__(self) -> None:
        self.reads: Counter[tuple[int, ...]] = Counter()

    def __getitem__(self, box: tuple[slice, slice]) -> Array:
        rows, columns = (part.indices(size) for part, size in zip(box, V.shape, strict=True))
        with LOCK:
            self.reads[rows[0], rows[1], columns[0], columns[1]] += 1
        return V[box]


def counted_matrix() -> tuple[Matrix, Counter[tuple[int, ...]]]:
    """Return a matrix over `V`, and the count of its reads."""
    reader = CountingReader()
    return Matrix(V.shape, V.dtype, "here", Orientation.ROWS, Layout(*V.shape, 8), reader), reader.reads


@dataclass(frozen=True)
class EngineCase:
    """An engine over `V`, and models for it.

    Attributes
    ----------
    model : makes a model before its first pass from a seed, with slots of its own at each call.
    loss : the loss of a pass, without penalties, from its totals.
    right : the H of the next pass, (k, n), from the model and the totals of its pass.
    reads : how often each box of `V` was read; an engine over blocks in memory reads none.
    """

    engine: Engine
    model: Callable[[int], Model]
    loss: Callable[[Any], float]
    right: Callable[[Model, Any], Array]
    reads: Counter[tuple[int, ...]] = field(default_factory=Counter)


def dense(left: Any) -> Array:
    """Return a left factor, (rows, k), as an array."""
    return np.asarray(left.read(0, len(V)) if hasattr(left, "read") else left)


def new_sink() -> Sink:
    return Sink(InMemoryFactor(len(V), RANK, V.dtype), InMemoryFactor(V.shape[1], RANK, V.dtype))


class EngineContract:
    """Tests that every engine passes. A subclass has a fixture ``case``, which returns an `EngineCase`."""

    @pytest.fixture
    def case(self) -> EngineCase:
        raise NotImplementedError("a subclass gives the case")

    def test_the_summary_is_that_of_v(self, case: EngineCase) -> None:
        summary = case.engine.summarize(SampleSpec(len(V), 0, 0))
        assert summary.total == pytest.approx(V.sum(), rel=1e-12)
        assert summary.sumsq == pytest.approx(np.square(V).sum(), rel=1e-12)
        assert (summary.stored, summary.empty_rows, summary.invalid) == (V.size, 0, None)
        assert len(summary.digests) == 1

    def test_a_pass_takes_the_loss_of_v(self, case: EngineCase) -> None:
        model = case.model(0)
        (totals,) = case.engine.sweep([model])
        assert 0 < case.loss(totals) < np.square(V).sum()
        assert case.right(model, totals).shape[-1] == V.shape[1]

    def test_a_model_has_the_same_totals_beside_others_as_alone(self, case: EngineCase) -> None:
        seeds = (0, 1, 2)
        together = [case.model(seed) for seed in seeds]
        totals = case.engine.sweep(together)
        for seed, model, beside in zip(seeds, together, totals, strict=True):
            alone = case.model(seed)
            (own,) = case.engine.sweep([alone])
            assert case.loss(own) == case.loss(beside)
            np.testing.assert_array_equal(case.right(alone, own), case.right(model, beside))

    def test_v_is_read_as_often_for_several_models_as_for_one(self, case: EngineCase) -> None:
        case.reads.clear()
        case.engine.sweep([case.model(0)])
        alone = case.reads.copy()
        case.reads.clear()
        case.engine.sweep([case.model(seed) for seed in (0, 1, 2)])
        assert case.reads == alone

    def test_the_loss_of_the_answer_is_that_of_its_factors(self, case: EngineCase) -> None:
        model = case.model(0)
        for _ in range(3):
            (totals,) = case.engine.sweep([model])
            state = model.solver.update(model.state, totals, float(np.square(V).sum()))
            model = model._replace(state=state)
        found = case.engine.finalize(model, new_sink)
        right = found.right if isinstance(found.right, np.ndarray) else found.right.read(0, V.shape[1]).T
        loss = np.square(V - dense(found.left) @ right).sum()
        assert found.sums.residual == pytest.approx(loss, rel=1e-6)

    def test_it_is_closed_twice(self, case: EngineCase) -> None:
        case.engine.close()
        case.engine.close()
