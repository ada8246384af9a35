"""Parts of reports by themselves: names, views, measures, wording, and pictures made smaller."""

from pathlib import Path

import numpy as np
import pytest
from support.matrices import low_rank

from dask_nmf import select_rank
from dask_nmf.report import write
from dask_nmf.report.drawing.reduction import block_means
from dask_nmf.report.facts.columns import column, percents
from dask_nmf.report.facts.names import Names
from dask_nmf.report.facts.words import about_changes, size
from dask_nmf.report.pages.page import Page, render
from dask_nmf.report.sections.components import sorted_columns
from dask_nmf.report.sections.rows import effective_numbers, size_classes
from dask_nmf.sources.labels.names import Labels, in_memory


def test_changes_of_rows_since_a_fit_are_told() -> None:
    when = {"when": "2026-01-02", "source": "new.zarr"}
    lineage = [
        {"kind": "update", "rows": [250, 311], "keep_h": True, **when},
        {"kind": "forget", "count": 3, **when},
    ]
    assert list(about_changes({"lineage": lineage})) == [
        "Rows 250 to 310 were added from new.zarr (2026-01-02), and H was left as it was.",
        "3 rows were taken out (2026-01-02).",
    ]
    assert list(about_changes({})) == []


def test_measures_of_parts() -> None:
    np.testing.assert_allclose(effective_numbers(np.array([[1.0, 1, 0], [0, 0, 0], [3, 0, 0]])), [2, 1])
    classes = size_classes(np.array([[8.0, 0.0], [4.0, 8.0]]))
    assert classes.shape == (2, 24)
    assert classes[0, 23] == classes[0, 21] == classes[1, 0] == classes[1, 23] == 0.5
    h = np.array([[1.0, 0, 2, 0.5], [0.1, 3, 0, 0]])
    np.testing.assert_allclose(sorted_columns(h)[0], [1, 0.5, 0.25, 0])
    wide = sorted_columns(np.random.default_rng(0).random((3, 5000)))
    assert wide.shape == (3, 600)
    assert wide.max() == 1


def named(names: list[str]) -> Names:
    return Names(Labels(columns=in_memory(names, "var")))


def test_columns_are_a_spectrum_if_their_names_are_numbers_in_order() -> None:
    np.testing.assert_array_equal(named(["400", "410.5", "1e3"]).positions(), [400, 410.5, 1000])
    assert named(["3", "2", "1"]).positions() is not None
    for names in (["1", "2"], ["1", "3", "2"], ["1", "2", "gene"], ["1", "2", "nan"], ["1", "2", "inf"]):
        assert named(names).positions() is None
    assert Names().positions() is None


def test_names_of_few_places_are_read_in_few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_nmf.report.facts.names.PIECE", 10)
    reads = []

    class Many:
        place = "obs"

        def __len__(self) -> int:
            return 95

        def read(self, first: int, last: int) -> np.ndarray:
            reads.append((first, last))
            return np.array([f"n{i}" for i in range(first, last)])

    names = Names(Labels(rows=Many())).reading([94, 3, 7, 3], [1])
    assert [names.row(place) for place in (3, 7, 94, 5)] == ["n3", "n7", "n94", "row 5"]
    assert names.column(1) == "column 1"
    assert reads == [(0, 10), (90, 95)]


def test_large_pictures_and_heat_maps_are_made_smaller() -> None:
    matrix = np.random.default_rng(0).random((700, 350))
    means = block_means(matrix, 100)
    assert means.shape == (100, 50)
    assert means[0, 0] == pytest.approx(matrix[:7, :7].mean())
    assert means[-1, -1] == pytest.approx(matrix[-7:, -7:].mean())
    assert block_means(matrix[:1], 100).shape == (1, 100)
    assert block_means(matrix, 700) is matrix


def test_control_characters_are_escaped() -> None:
    html = render(Page("gene\x1b[31m\x9b", "a\tb", (), ()))
    assert "<title>gene\\x1b[31m\\x9b" in html
    assert "a\tb" in html
    assert not {*"\x00\x1b\x7f\x9b"} & {*html}


def test_a_selection_without_an_answer_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "select.zarr"
    select_rank(low_rank(40, 12, 2), "1:2", n_init=2, holdout=0.2, time_limit=0, store=place)
    with pytest.raises(ValueError, match="has no answer yet; finish it with dask-nmf select first"):
        write(place, tmp_path / "report.html")


@pytest.mark.parametrize(
    ("numbers", "digits", "texts"),
    [
        ([0.47, 0.4585, None, 0.0], 4, ["0.4700", "0.4585", "–", "0.0000"]),
        ([45.3, 0.2054], 3, ["45.300", "0.205"]),
        ([1234.5, 12.345], 4, ["1,234.50", "12.35"]),
        ([0.3, -6e-8, 0.0, 12345.6], 2, ["0.30", "-6.0e-08", "0", "12,346"]),
        ([6.8e-5, 1.4e-6], 4, ["6.800e-05", "1.400e-06"]),
        ([3, 1234567, 0], 4, ["3", "1,234,567", "0"]),
        ([np.inf, 0.5], 2, ["inf", "0.50"]),
        ([None, np.nan], 4, ["–", "–"]),
    ],
)
def test_numbers_of_a_column_have_equal_digits(
    numbers: list[float | None], digits: int, texts: list[str]
) -> None:
    assert column(numbers, digits) == texts


def test_shares_and_sizes_have_equal_digits() -> None:
    assert percents([0.002, 0.00205, None]) == ["0.200 %", "0.205 %", "–"]
    assert [size(count) for count in (1023, 1 << 20, 1023 << 20)] == ["1,023 bytes", "1 MiB", "1,023 MiB"]
