"""Components of two runs, matched and compared."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.pairwise import cosine_similarity
from support.matrices import low_rank

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
