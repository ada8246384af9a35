"""Reports of runs: what they say, what they show, and that nothing from data becomes markup."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.matrices import low_rank
from support.named import write_named
from support.reports import Outline, report_of
from support.runs import OPTIONS

from dask_nmf import Run, nmf, select_rank
from dask_nmf.report import write
from dask_nmf.report.drawing.charts import Words, bar_chart
from dask_nmf.report.drawing.svg import report_style
from dask_nmf.report.facts import weights
from dask_nmf.report.facts.fit import facts_of
from dask_nmf.report.pages.page import Card, Page, Section, render
from dask_nmf.report.sections.models.other_run import cosines_between
from dask_nmf.results.comparison import compare
from dask_nmf.selection.stored.loading import load_selection
from dask_nmf.storage.locations import locate

EVIL = '<script>alert("x")</script>&$\\frac{1$'


class _Stored:
    """An array in memory, with chunks as an array of Zarr has."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.size, self.chunks = values, values.shape, values.size, values.shape

    def __getitem__(self, some: slice) -> np.ndarray:
        return self.values[some]


def test_a_report_is_one_well_formed_file_that_loads_nothing(run: Path, tmp_path: Path) -> None:
    html = report_of(run, tmp_path)
    outline = Outline(html)
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert outline.counts["svg"] == outline.counts["figure"] == outline.counts["desc"]
    assert "script" not in outline.counts
    assert not re.search(r"#(000000|ffffff|010203)", re.sub(r"<style>.*?</style>", "", html, flags=re.S))
    text = " ".join(outline.text)
    assert "40 rows and 12 columns in 3 components" in text
    assert "Component 2 is zero everywhere" in text
    assert "1 row of W is zero" in text
    assert re.search(r"From pass 0 on: \d+ workers? with \d+ threads?; dask_nmf \d", text)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert len(html.encode()) < 1_000_000


@pytest.mark.usefixtures("undrawn")
def test_a_report_replaces_only_a_report_and_only_if_asked(run: Path, tmp_path: Path) -> None:
    html = report_of(run, tmp_path)
    path = tmp_path / "report.html"
    with pytest.raises(FileExistsError, match="exists; give another output, or ask to overwrite it"):
        write(run, path)
    write(run, path, overwrite=True)
    assert path.read_text("utf-8") == html  # the same run gives the same bytes
    notes = tmp_path / "notes.txt"
    notes.write_text("<!DOCTYPE html><title>mine</title>")
    with pytest.raises(FileExistsError, match="not an output of dask-nmf report"):
        write(run, notes, overwrite=True)
    assert "mine" in notes.read_text()
    with pytest.raises(ValueError, match="inside of"):
        write(run, run / "report.html")
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        write(tmp_path / "none.zarr", tmp_path / "none.html")
    with pytest.raises(ValueError, match="URL"):
        write(run, "s3://bucket/report.html")


def test_names_from_data_are_text_in_html_and_in_drawings(run: Path) -> None:
    names = [f"{EVIL}{column}" for column in range(3)]
    with report_style():
        figure = bar_chart(names, np.array([3.0, 2.0, 1.0]), Words(EVIL, EVIL))
    section = Section("a", EVIL, [EVIL], cards=[Card(EVIL, EVIL, figure)])
    outline = Outline(render(Page(EVIL, EVIL, [(EVIL, EVIL)], [section])))
    assert "script" not in outline.counts
    assert "".join(outline.text).count("<script>") >= 10
    assert any("<script>" in text and "…" in text for text in outline.text)  # a tick of the chart


def test_shares_sparseness_and_top_rows_are_those_of_the_factors(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "STRIP", 7)
    stored = Run.load_result(run)
    facts = facts_of(stored)
    W, H = (stored.read(name).astype(np.float64) for name in "WH")
    model = W @ H
    parts = [np.vdot(np.outer(W[:, t], H[t]), model) for t in range(3)]
    np.testing.assert_allclose(facts.shares, np.array(parts) / (model**2).sum(), rtol=1e-6)
    assert facts.shares.sum() == pytest.approx(1)
    w = W[:, 0]
    hoyer = (np.sqrt(40) - w.sum() / np.linalg.norm(w)) / (np.sqrt(40) - 1)
    assert facts.w_sparseness[0] == pytest.approx(hoyer, rel=1e-6)
    np.testing.assert_array_equal(facts.weights.top_rows[0], np.argsort(-w, kind="stable")[:5])
    unit = W[:, :2] / np.linalg.norm(W[:, :2], axis=0)
    np.testing.assert_allclose(facts.w_cosines[:2, :2], unit.T @ unit, rtol=1e-6)
    assert weights.scan_rows(_Stored(W * 1e140), np.ones(3)).sample.max() == W.max() * 1e140  # beyond float32
    assert facts.dead == [2]
    assert facts.weights.top_rows[2].tolist() == [-1] * 5
    assert facts.weights.leading.sum() == facts.weights.rows == 40
    np.testing.assert_array_equal(facts.top_columns(0, 4), np.argsort(-H[0], kind="stable")[:4])
    assert facts.top_columns(2, 4) == []


def test_a_large_w_is_sampled_and_the_report_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rows:
        """A W of 10⁷ rows that counts how many are read."""

        shape, chunks, size, read = (10_000_000, 4), (50_000, 4), 40_000_000, 0

        def __getitem__(self, some: slice) -> np.ndarray:
            self.read += some.stop - some.start
            assert some.stop - some.start <= 50_000
            return np.ones((some.stop - some.start, 4), np.float32)

    monkeypatch.setattr(weights, "MOST_ENTRIES", 2_000_000)
    w = Rows()
    sums = weights.scan_rows(w, np.ones(4))
    assert sums.rows == w.read
    assert 250_000 <= w.read <= 500_000


@pytest.mark.usefixtures("undrawn")
def test_names_of_a_run_are_in_its_report_as_text(tmp_path: Path) -> None:
    V = low_rank(40, 12, 2)
    columns = [f"{EVIL} gene {j}" for j in range(12)]
    place = write_named(tmp_path / "V.zarr", V, [f"cell {i}" for i in range(40)], columns)
    nmf(place, **OPTIONS, store=tmp_path / "run.zarr")
    outline = Outline(report_of(tmp_path / "run.zarr", tmp_path))
    assert "script" not in outline.counts
    text = " ".join(outline.text)
    top = int(Run.load_result(tmp_path / "run.zarr").read("H")[0].argmax())
    assert columns[top] in text
    assert "cell " in text
    write_named(
        tmp_path / "S.zarr", V, [f"cell {i}" for i in range(40)], [str(400 + 2 * j) for j in range(12)]
    )
    nmf(tmp_path / "S.zarr" / "v", **OPTIONS, store=tmp_path / "run.zarr", overwrite=True)
    assert "Line over 12 columns; it is highest at 4" in report_of(
        tmp_path / "run.zarr", tmp_path, overwrite=True
    )


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_compared_with_another(run: Path, tmp_path: Path) -> None:
    nmf(low_rank(40, 12, 2), **{**OPTIONS, "n_components": 4}, store=tmp_path / "other.zarr")
    text = " ".join(Outline(report_of(run, tmp_path, against=tmp_path / "other.zarr")).text)
    found = compare(run, tmp_path / "other.zarr")
    assert f"the mean is {found.mean_cosine:.3f}" in text
    assert f"Components of the other run without a match: {found.unmatched[1][0]}" in text
    assert "solver mu hals" in " ".join(text.split())
    assert "of different losses" not in text
    h, other = (Run.load_result(place).read("H") for place in (run, tmp_path / "other.zarr"))
    cosines = cosines_between(h, other)
    assert [cosines[pair.first, pair.second] for pair in found.pairs] == pytest.approx(
        [pair.cosine for pair in found.pairs], abs=1e-6
    )
    nmf(low_rank(40, 12, 2), **OPTIONS, beta_loss="kullback-leibler", store=tmp_path / "kl.zarr")
    assert "of different losses" in report_of(run, tmp_path, against=tmp_path / "kl.zarr", overwrite=True)
    nmf(low_rank(40, 13, 2), **OPTIONS, store=tmp_path / "wider.zarr")
    with pytest.raises(ValueError, match="give runs of matrices with the same columns"):
        write(run, tmp_path / "none.html", against=tmp_path / "wider.zarr")


@pytest.mark.usefixtures("undrawn")
def test_a_selection_has_its_ranks_and_the_fit_of_the_recommended_one(tmp_path: Path) -> None:
    V = low_rank(40, 12, 2)
    place = tmp_path / "select.zarr"
    chosen = select_rank(V, "1:2", n_init=2, max_iter=4, holdout=0.2, error_bars=2, store=place)
    loaded = load_selection(locate(place))
    assert loaded.to_dict() == chosen.to_dict()
    np.testing.assert_array_equal(loaded.components_stderr, chosen.components_stderr)
    np.testing.assert_array_equal(loaded.result.H.compute(), chosen.result.H.compute())
    html = report_of(place, tmp_path)
    text = " ".join(Outline(html).text)
    assert f"Rank {chosen.n_components} is recommended: {chosen.reason}" in text
    assert f"{chosen.n_components}, recommended" in text
    assert "Consensus of the models" in text
    assert "standard error" in text
    assert "bootstrap stability" in text
