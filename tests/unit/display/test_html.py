"""What notebooks show of results: tables and curves, with everything from outside escaped."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dask_nmf import Result, Run, nmf, plan, select_rank
from dask_nmf.display.html import HEIGHT, MARGIN, MOST_POINTS, WIDTH, html_curve, html_table

LEFT, RIGHT, TOP, BOTTOM = MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN


def lines_of(html: str) -> list[list[tuple[float, ...]]]:
    """Return the points of the lines of a curve."""
    lines = parsed(html).findall("svg/polyline")
    return [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in lines
    ]


def parsed(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{html}</div>")


def cells(html: str) -> dict[str, str]:
    rows = parsed(html).iter("tr")
    return {str(row.findtext("th")): str(row.findtext("td")) for row in rows}


def test_the_curve_goes_from_the_largest_to_the_least_error() -> None:
    assert lines_of(html_curve([0.5, 0.3, 0.1], "error")) == [
        [(LEFT, TOP), (WIDTH / 2, HEIGHT / 2), (RIGHT, BOTTOM)]
    ]
    for place in ("div", "svg/title"):
        assert parsed(html_curve([0.5, 0.1], "a <b>")).findtext(place) == "a <b>: from 0.5 to 0.1"
    ((first, second, third),) = lines_of(html_curve([1.0, 1.0, 2.0], "error", [2, 3, 10]))
    assert (first[0], second[0], third[0]) == (LEFT, pytest.approx(LEFT + (RIGHT - LEFT) / 8, abs=0.1), RIGHT)


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
def test_errors_that_are_not_known_leave_gaps(unknown: Any) -> None:
    assert [len(line) for line in lines_of(html_curve([4.0, 3.0, unknown, 2.0, 1.0], "error"))] == [2, 2]
    assert not any(html_curve(few, "error") for few in ([], [1.0], [unknown, 1.0], [unknown] * 3))


def test_a_curve_is_small_whatever_it_shows() -> None:
    assert lines_of(html_curve([1.0, 1.0], "error")) == [[(LEFT, TOP), (RIGHT, TOP)]]
    (line,) = lines_of(html_curve(np.linspace(1, 0, 10_001).tolist(), "error"))
    assert len(line) <= MOST_POINTS + 1
    assert (line[0], line[-1]) == ((LEFT, TOP), (RIGHT, BOTTOM))


def test_text_from_outside_is_no_markup() -> None:
    name, value = "<script>alert(1)</script>", "a & b"
    assert cells(html_table([(name, value)])) == {name: value}


def test_fits_plans_runs_and_selections_show_themselves(tmp_path: Path) -> None:
    V = np.random.default_rng(0).random((40, 6))
    np.save(tmp_path / "V <&.npy", V)
    store = tmp_path / "run <i>.zarr"
    result: Result = nmf(tmp_path / "V <&.npy", 2, max_iter=4, tol=0, store=store)
    shown = result._repr_html_()
    assert cells(shown)["passes"] == "4"
    assert len(lines_of(shown[shown.index("<svg") :])[0]) == 4
    run = Run.load(store)._repr_html_()
    assert cells(run)["relative error"] == f"{result.relative_error:.6g}"
    assert cells(run)["run"].endswith("run <i>.zarr")
    assert "V <&.npy" in cells(run)["V"]
    assert run[run.index("<svg") :] == shown[shown.index("<svg") :]
    assert cells(plan(tmp_path / "V <&.npy", 2)._repr_html_())["V"] == "40 x 6 float64, dense"
    selection = select_rank(V, [1, 2, 4], n_init=1, holdout=0.2, max_iter=2)
    html = selection._repr_html_()
    _, *rows = parsed(html).findall("table/tr")
    marks = {row[1].text: row[0].text for row in rows}
    assert marks == {f"{rank}": "*" if rank == selection.n_components else None for rank in (1, 2, 4)}
    assert [x for x, _ in lines_of(html[html.index("<svg") :])[0]] == pytest.approx([4, 81.3, 236], abs=0.1)


def test_a_run_without_a_pass_shows_itself(tmp_path: Path) -> None:
    V = np.random.default_rng(0).random((20, 5))
    nmf(V, 2, max_iter=1, store=tmp_path / "run.zarr", time_limit=0)
    html = Run.load(tmp_path / "run.zarr")._repr_html_()
    assert "<svg" not in html
    assert cells(html)["passes"] in ("0", "1")
