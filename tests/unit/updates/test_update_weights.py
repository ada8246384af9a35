"""Rows with weights that are added to a run whose entries have weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from support.changed_runs import RANK, factors, fitted
from support.matrices import low_rank

from dask_nmf import Run, nmf, transform
from dask_nmf.cli.app import app
from dask_nmf.errors import DataError
from dask_nmf.results import verify
from dask_nmf.updates import forget, update

V, OLD = low_rank(400, 20, RANK, noise=1.0), 380
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "entries": RANDOM.random(V.shape) * (RANDOM.random(V.shape) < 0.7),  # some are 0
    "rows": np.repeat(np.exp(RANDOM.normal(size=(len(V), 1))), V.shape[1], axis=1),
}


def weighted_loss(weights: np.ndarray, W: np.ndarray, H: np.ndarray, beta: int) -> float:
    """Return the loss of the definition."""
    product = W @ H
    if beta == 2:
        return float((weights * (V - product) ** 2).sum())
    logs = np.where(V > 0, V * np.log(np.where(V > 0, V, 1) / product), 0)
    return 2 * float((weights * (logs - V + product)).sum())


@pytest.mark.parametrize("beta", [2, 1])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_loss_is_near_that_of_a_fit_of_all_rows(beta: int, kind: str, tmp_path: Path) -> None:
    weights = WEIGHTS[kind]
    run = fitted(tmp_path / "run", V[:OLD], weights=weights[:OLD], beta_loss=beta)
    new = weights[OLD:] if kind == "entries" else weights[OLD:, 0]
    found = update(run, V[OLD:], weights=new)
    W, H = factors(run)
    whole = nmf(V, RANK, random_state=0, weights=weights, beta_loss=beta)
    loss, best = (weighted_loss(weights, *pair, beta) for pair in ((W, H), (whole.W.compute(), whole.H)))
    kept = np.vstack([W[:OLD], transform(V[OLD:], H, weights=weights[OLD:], beta_loss=beta).compute()])
    np.testing.assert_allclose(W, kept, rtol=1e-4, atol=1e-8)
    assert loss < 1.005 * best
    result = Run.load_result(run)
    assert result.record["estimated"] is True
    assert found.relative_error == pytest.approx(whole.relative_error, rel=2e-3)
    np.testing.assert_allclose(result.read("column_weight"), weights.sum(axis=0))
    np.testing.assert_allclose(result.read("column_mean"), (weights * V).sum(axis=0) / weights.sum(axis=0))
    assert result.record["measures"]["mean"] == pytest.approx((weights * V).sum() / weights.sum())
    assert [check for check in verify(run, V) if check.passed is False] == []
    assert update(run, V[OLD:], weights=new).already
    assert update(run, V[:OLD], weights=weights[:OLD]).already
    assert not update(run, V[OLD:], weights=2 * new, keep_h=True).already


def test_weights_of_1_change_nothing(tmp_path: Path) -> None:
    """A fit with weights, all of them 1, gets the H of one with missing entries of which none is missing."""
    ones = np.ones(V.shape)
    found = []
    for name, options in {"weights": {"weights": ones[:OLD]}, "missing": {"missing": "nan"}}.items():
        run = fitted(tmp_path / name, V[:OLD], **options)
        update(run, V[OLD:], weights=ones[OLD:] if name == "weights" else None)
        found.append(factors(run)[1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


REFUSED: dict[str, tuple[bool, Any, str]] = {
    "none": (True, None, "was fitted with weights; give those of the new rows"),
    "some": (False, np.ones(len(V) - OLD), "was fitted without weights; leave those of the new rows out"),
    "too few": (True, np.ones(3), "weights has shape (3,) and V has 20 rows; give one weight for each"),
    "masked": (
        True,
        np.ma.masked_less(np.arange(len(V) - OLD), 1),
        "weights is nan for row 0; each",
    ),
    "negative": (True, -np.ones(V[OLD:].shape), "weights must be finite and"),
    "of another shape": (True, np.ones((20, 3)), "weights has shape (20, 3) and V (20, 20); they must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    weighted, new, text = REFUSED[case]
    run = fitted(tmp_path / "run", V[:OLD], **({"weights": WEIGHTS["rows"][:OLD]} if weighted else {}))
    before = run.joinpath("zarr.json").read_bytes()
    with pytest.raises((ValueError, DataError)) as refusal:
        update(run, V[OLD:], weights=new)
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert run.joinpath("zarr.json").read_bytes() == before


def test_weights_of_rows_in_another_order_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame(V, index=[f"text {number}" for number in range(len(V))])
    run = fitted(tmp_path / "run", frame[:OLD], weights=WEIGHTS["rows"][:OLD])
    weights = pd.Series(WEIGHTS["rows"][:, 0], index=frame.index)[OLD:]
    with pytest.raises(ValueError, match="weights has other names of rows than V: number 0 is text 399 in"):
        update(run, frame[OLD:], weights=weights[::-1])
    assert update(run, frame[OLD:], weights=weights).last == len(V)


def test_rows_are_not_taken_out_of_a_fit_with_weights(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V[:OLD], weights=WEIGHTS["entries"][:OLD])
    with pytest.raises(ValueError, match="was fitted with weights, so what rows added to its sums"):
        forget(run, [3], V[:OLD])


def test_the_command_takes_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path / "run", V[:OLD], weights=WEIGHTS["entries"][:OLD])
    for name, array in {"new": V, "weights": WEIGHTS["entries"]}.items():
        zarr.create_array(tmp_path / f"{name}.zarr", data=array[OLD:])
    words = ["update", str(run), str(tmp_path / "new.zarr"), "--weights", str(tmp_path / "weights.zarr")]
    assert app(words, standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith(f"{run}: rows 380 to 399 added; relative error 0.")
