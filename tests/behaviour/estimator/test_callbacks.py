"""scikit-learn's callbacks, which version 1.9 brought: each pass is a task of the fit."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.matrices import low_rank

from dask_nmf import NMF

X = low_rank(60, 12, 3, noise=1)


class Record:
    """A callback that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.calls.append(("setup", context.task_name, context.max_subtasks))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.calls.append(("teardown", context.task_name, None))

    def on_fit_task_begin(self, estimator: Any, context: Any, *, X: Any = None) -> None:
        self.calls.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator: Any, context: Any, *, X: Any = None) -> bool:
        self.calls.append(("end", context.task_name, context.task_id))
        return False


EXPECTED = [
    ("setup", "fit", 5),
    ("begin", "fit", 0),
    *((kind, "pass", number) for number in range(5) for kind in ("begin", "end")),
    ("end", "fit", 0),
    ("teardown", "fit", None),
]


def test_callbacks_are_there_where_scikit_learn_has_them() -> None:
    assert hasattr(NMF, "set_callbacks") == (find_spec("sklearn.callback") is not None)


if hasattr(NMF, "set_callbacks"):

    @pytest.mark.parametrize("n_init", [1, 3])
    def test_each_pass_is_a_task(n_init: int) -> None:
        record, numbers = Record(), []
        options: dict[str, Any] = {"tol": 0, "max_iter": 5, "n_init": n_init, "random_state": 0}
        model = NMF(3, callback=lambda step: numbers.append(step.number), **options).set_callbacks(record)
        model.fit(X)
        assert record.calls == EXPECTED
        assert numbers == [number for number in range(1, 6) for _ in range(n_init)]
        np.testing.assert_array_equal(model.components_, NMF(3, **options).fit(X).components_)

    def test_a_fit_that_fails_ends_its_callbacks() -> None:
        record = Record()
        with pytest.raises(ValueError, match="Negative values"):
            NMF(3).set_callbacks(record).fit(-X)
        assert record.calls[-1] == ("teardown", "fit", None)

    def test_a_progress_bar_of_scikit_learn_follows_a_pipeline(capfd: pytest.CaptureFixture[str]) -> None:
        bar = import_module("sklearn.callback").ProgressBar()
        model = NMF(3, tol=0, max_iter=5, random_state=0)
        make_pipeline(StandardScaler(with_mean=False), model).set_callbacks(bar).fit(X)
        assert "NMF" in capfd.readouterr().out
