"""Updates that go to another place, while the run stays as it is."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.changed_runs import NEW, OLD, V, factors, fitted
from support.runs import Crash, files

from dask_nmf import Run
from dask_nmf.cli.app import app
from dask_nmf.errors import ConcurrentCommitError, DataError, RunLocked
from dask_nmf.results import verify
from dask_nmf.runs.commits import Commits
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.runs.rows.copies import copied_run
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import locate
from dask_nmf.updates import forget, update


def test_the_output_is_what_an_update_in_place_makes_and_the_run_stays(
    tmp_path: Path, several_panels: None
) -> None:
    run, output = fitted(tmp_path / "run"), tmp_path / "output"
    before = files(run)
    found = update(run, NEW, output=output)
    assert files(run) == before
    assert all(check.passed for check in verify(run, OLD))
    assert [check for check in verify(output, V) if check.passed is False] == []
    assert update(run, NEW, output=output).already
    assert not update(run, NEW).already
    for mine, theirs in zip(factors(output), factors(run), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    group = zarr.open_group(output, mode="r")
    for name, factor in zip("WH", factors(output), strict=True):
        np.testing.assert_array_equal(group[name][...], factor)
    assert found.first == 190


def test_the_output_does_not_need_the_run(tmp_path: Path) -> None:
    run, output = fitted(tmp_path / "run", V[:180]), tmp_path / "output"
    update(run, V[180:190], output=output)
    shutil.rmtree(run)
    update(output, NEW)
    assert forget(output, [3, 185], V).left == 198


@pytest.mark.parametrize(
    ("owner", "stage"), [(Commits, "publish"), (ChangedResult, "write_w"), (ChangedResult, "commit")]
)
def test_after_a_crash_the_same_call_goes_on(
    owner: Any, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, output = fitted(tmp_path / "run"), tmp_path / "output"

    def crash(*given: Any, **named: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, stage, crash)
        with pytest.raises(Crash):
            update(run, NEW, output=output)
    assert not update(run, NEW, output=output).already
    assert [check for check in verify(output, V) if check.passed is False] == []
    assert len(list((output / "data").glob("result-*"))) == 1


def test_rows_that_are_there_already_leave_a_copy(tmp_path: Path) -> None:
    run, output = fitted(tmp_path / "run"), tmp_path / "output"
    assert update(run, OLD, output=output).already
    assert all(check.passed for check in verify(output, OLD))


def test_an_output_that_is_no_copy_is_refused_and_bad_rows_leave_none(tmp_path: Path) -> None:
    run, other = fitted(tmp_path / "run"), fitted(tmp_path / "other", random_state=1)
    with pytest.raises(FileExistsError, match=r"other exists and is not .*run with more rows; give another"):
        update(run, NEW, output=other)
    with pytest.raises(ValueError, match="inside of"):
        update(run, NEW, output=run / "data" / "output")
    with pytest.raises(DataError, match="NMF takes entries >= 0"):
        update(run, -NEW, output=tmp_path / "output")
    assert not (tmp_path / "output").exists()
    update(run, V[190:195], output=tmp_path / "output")
    update(run, V[195:])
    with pytest.raises(FileExistsError, match=r"is not .*run with more rows"):
        update(run, V[190:195], output=tmp_path / "output")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_left_of_a_copy_whose_loss_overflows(made: bool, tmp_path: Path) -> None:
    """Of float32, so that W of the new rows is infinite; a folder that was there before stays, empty."""
    run, output = fitted(tmp_path / "run", OLD.astype(np.float32)), tmp_path / "output"
    if made:
        output.mkdir()
    with pytest.raises(DataError, match="has entries so large that W, H or the error is not finite"):
        update(run, np.full((2, 20), 1e38, np.float32), output=output, keep_h=True)
    assert output.exists() == made
    assert not made or not any(output.iterdir())
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "output", ".run.lock", ".output.lock"}
    assert update(run, NEW.astype(np.float32), output=output).last == 200


def test_an_output_of_a_run_that_another_process_changes_is_not_made(tmp_path: Path) -> None:
    run, output = fitted(tmp_path / "run"), tmp_path / "output"

    def change(matrix: Matrix) -> AbstractContextManager[None]:
        update(run, V[190:195])
        return nullcontext()

    with pytest.raises(ConcurrentCommitError, match="run was changed by another process"):
        update(run, NEW, output=output, connect=change)
    assert update(run, NEW, output=output).last == 205


def test_a_copy_that_is_committed_is_there_whoever_has_the_lease_then(tmp_path: Path) -> None:
    """As where a lease ends right after the commit; an uncommitted copy is another's by then, and stays."""
    run, lost = fitted(tmp_path / "run"), []

    def check_held() -> None:
        if lost:
            raise RunLocked("another process works on it")

    with copied_run(Run.load(run), locate(tmp_path / "output"), check_held) as copy:
        copy.change_rows(190).keep()
        lost.append(True)
    assert all(check.passed for check in verify(tmp_path / "output", OLD))
    lost.clear()
    with (
        pytest.raises(RunLocked),
        copied_run(Run.load(run), locate(tmp_path / "other"), check_held),
    ):
        lost.append(True)
    assert any((tmp_path / "other" / "data").iterdir())


def test_the_command_writes_to_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, output = fitted(tmp_path / "run"), tmp_path / "output"
    zarr.create_array(tmp_path / "new.zarr", data=NEW)
    words = ["update", str(run), str(tmp_path / "new.zarr"), "--output", str(output)]
    assert app(words, standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith(f"{output}: rows 190 to 199 added; relative error 0.")
    assert Run.load(run).summary()["shape"] == [190, 20]
    assert Run.load(output).summary()["shape"] == [200, 20]
