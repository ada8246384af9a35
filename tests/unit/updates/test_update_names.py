"""Names of the rows and columns of a run to which rows are added."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from support.changed_runs import NEW, OLD, fitted
from support.named import write_named
from support.runs import files

from dask_nmf import Run
from dask_nmf.errors import DataError
from dask_nmf.updates import update


def test_names_of_rows_follow_and_those_of_columns_must_be_the_same(tmp_path: Path) -> None:
    columns, rows = [f"word {number}" for number in range(20)], [f"text {number}" for number in range(200)]
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "old.zarr", OLD, rows[:190], columns)))
    turned = write_named(tmp_path / "turned.zarr", NEW, rows[190:], columns[::-1])
    with pytest.raises(ValueError, match="column 0 is 'word 19' in"):
        update(run, str(turned))
    update(run, str(write_named(tmp_path / "new.zarr", NEW[:5], rows[190:195], columns)))
    update(run, NEW[5:])  # which has no names
    result = Run.load_result(run)
    assert result.row_names is not None
    assert result.column_names is not None
    assert list(result.row_names[188:]) == [*rows[188:195], "195", "196", "197", "198", "199"]
    assert list(result.column_names[:]) == columns


def test_a_row_with_a_name_that_the_run_has_is_refused(tmp_path: Path) -> None:
    """Empty names are those of rows without one, and may repeat; nothing is left at an output."""
    columns, rows = [f"word {number}" for number in range(20)], [f"text {number}" for number in range(200)]
    rows[7] = rows[198] = ""
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "old.zarr", OLD, rows[:190], columns)))
    again = [*rows[190:196], "text 5", *rows[197:]]
    new = str(write_named(tmp_path / "again.zarr", NEW, again, columns))
    before = files(run)
    with pytest.raises(DataError, match=r"row 6 of .*again.zarr.* is named 'text 5', as row 5 of .*run is"):
        update(run, new, output=tmp_path / "output")
    assert files(run) == before
    assert not (tmp_path / "output").exists()
    assert update(run, str(write_named(tmp_path / "new.zarr", NEW, rows[190:], columns))).last == 200


def test_rows_without_names_are_refused_if_the_run_has_their_number_for_a_name(tmp_path: Path) -> None:
    rows, columns = [str(number + 5) for number in range(190)], [f"word {number}" for number in range(20)]
    run = fitted(tmp_path / "run", str(write_named(tmp_path / "old.zarr", OLD, rows, columns)))
    before = files(run)
    with pytest.raises(DataError, match=r"row 0 of .* has no name, and row 185 of .*run is named '190'"):
        update(run, NEW)
    assert files(run) == before


def named_frame(v: Any, first: int, columns: list[str]) -> pd.DataFrame:
    """Return rows whose names count from a number on."""
    return pd.DataFrame(v, index=[f"text {first + number}" for number in range(len(v))], columns=columns)


@pytest.mark.parametrize(
    "form", [lambda frame: frame, lambda frame: xr.DataArray(frame, dims=("text", "word"))]
)
def test_names_of_tables_and_arrays_in_memory_are_those_of_the_rows(form: Any, tmp_path: Path) -> None:
    columns = [f"word {number}" for number in range(20)]
    run = fitted(tmp_path / "run", form(named_frame(OLD, 0, columns)))
    with pytest.raises(
        ValueError, match=r"column 0 is 'word 19' in .*the names are the same in another order"
    ):
        update(run, form(named_frame(NEW, 190, columns[::-1])))
    assert update(run, form(named_frame(NEW, 190, columns))).first == 190
    assert update(run, form(named_frame(NEW, 190, columns))).already
    other_names = update(run, form(named_frame(NEW, 200, columns)))
    assert (other_names.first, other_names.already) == (200, False)
    names = Run.load_result(run).row_names
    assert names is not None
    assert list(names[:]) == [f"text {number}" for number in range(210)]
