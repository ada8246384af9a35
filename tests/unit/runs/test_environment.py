"""The environments that a run keeps: one for each change of versions or of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import Client
from support.matrices import low_rank

from dask_nmf import Run, nmf
from dask_nmf.runs import commits

V = low_rank(60, 12, 3, noise=1)


def test_a_run_keeps_each_environment_that_worked_on_it(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    for limit in (0, 0):  # two passes, each in a call of its own
        nmf(V, 3, tol=0, max_iter=4, time_limit=limit, store=path)
    (known,) = Run.load(path).record["environments"]
    assert (known["from_pass"], known["workers"], known["threads"]) == (0, 2, 2)
    monkeypatch.setattr(commits, "environment", lambda: {"versions": {}, "workers": 9, "threads": 18})
    nmf(V, 3, tol=0, max_iter=4, store=path)
    assert Run.load(path).record["environments"] == [
        known,
        {"from_pass": 3, "versions": {}, "workers": 9, "threads": 18},
    ]
    assert len(Run.load(path).record["history"]["seconds"]) == 4
