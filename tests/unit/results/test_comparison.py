"""Components of two runs, matched and compared."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.pairwise import cosine_similarity
from support.matrices import low_rank
from support.named import write_named

from dask_nmf import Run, nmf
from dask_nmf.cli.app import app
from dask_nmf.results import compare

V = low_rank(40, 15, 3)


def fitted(place: Path, k: int, **options: object) -> Path:
    nmf(V, k, store=place, **{"max_iter": 4, **options})
    return place


def test_components_are_matched_by_the_assignment_of_most_alike_rows_of_h(tmp_path: Path) -> None:
    """The ranks differ, and both orders give the same pairs; the oracle is scikit-learn's cosines."""
    one, other = fitted(tmp_path / "one", 3), fitted(tmp_path / "other", 4, random_state=5)
    found, turned = compare(one, other), compare(str(other), str(one))
    cosines = cosine_similarity(*(Run.load_result(run).read("H") for run in (one, other)))
    best = dict(zip(*linear_sum_assignment(cosines, maximize=True), strict=True))
    assert {pair.first: pair.second for pair in found.pairs} == best
    assert sorted((pair.second, pair.first) for pair in turned.pairs) == sorted(best.items())
    for pair in found.pairs:
        assert pair.cosine == pytest.approx(cosines[pair.first, pair.second])
    assert [pair.cosine for pair in found.pairs] == sorted(
        (pair.cosine for pair in found.pairs), reverse=True
    )
    assert found.unmatched == ([], sorted({0, 1, 2, 3} - set(best.values())))
    assert found.settings == {"n_components": (3, 4), "random_state": (0, 5)}
    assert found.relative_errors[0] == pytest.approx(
        np.linalg.norm(V - np.matmul(*(Run.load_result(one).read(name) for name in "WH"))) / np.linalg.norm(V)
    )


def test_a_run_is_like_itself_whatever_the_scale_and_order_of_components(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scaled = fitted(tmp_path / "one", 3), fitted(tmp_path / "two", 3, normalize="l2")
    assert compare(run, scaled).mean_cosine == pytest.approx(1)
    app(["compare", str(run), str(scaled)], standalone_mode=False)
    text = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in text[:4]] == ["cosine", "1.0000", "1.0000", "1.0000"]
    assert text[-1] == "normalize is None in RUN1 and 'l2' in RUN2"
    app(["compare", str(run), str(scaled), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == compare(run, scaled).as_json()


def test_runs_of_other_columns_are_refused(tmp_path: Path) -> None:
    one = fitted(tmp_path / "one", 3)
    nmf(V[:, 1:], 3, store=tmp_path / "other", max_iter=1)
    with pytest.raises(ValueError, match=r"has 15 columns and .* has 14; give runs"):
        compare(one, tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="there is no run"):
        compare(one, tmp_path / "nothing")


def test_columns_are_compared_by_name_if_both_have_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second V has its columns in another order, without the first two, and with one more."""
    names, rows = [f"word {number}" for number in range(15)], [f"text {number}" for number in range(40)]
    order = np.arange(14, 1, -1)
    other = np.column_stack([V[:, order], V.sum(axis=1)])
    one = write_named(tmp_path / "one.zarr", V, rows, names)
    two = write_named(tmp_path / "other.zarr", other, rows, [*(names[at] for at in order), "all"])
    runs = [tmp_path / "run-one", tmp_path / "run-other"]
    for run, source in zip(runs, (one, two), strict=True):
        nmf(str(source), 3, store=run, max_iter=30)
    found = compare(*runs)
    H, turned = (Run.load_result(run).read("H") for run in runs)
    cosines = cosine_similarity(H[:, 2:], turned[:, :13][:, ::-1])
    assert found.columns == 13
    for pair in found.pairs:
        assert pair.cosine == pytest.approx(cosines[pair.first, pair.second])
    app(["compare", *map(str, runs)], standalone_mode=False)
    text = "over the 13 columns that have the same name in both, of 15 and 14"
    assert text in capsys.readouterr().out
