"""What `verify` finds: nothing in a sound run, and each kind of damage by the name of what is damaged."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from sklearn.decomposition import _nmf
from support.matrices import low_rank, sparse
from support.named import names, write_named

from dask_nmf import Run, nmf
from dask_nmf.cli.app import app
from dask_nmf.options.settings import Settings
from dask_nmf.results import recomputed, verify
from dask_nmf.results.recomputed import read_once
from dask_nmf.sources.registry import open_matrix
from dask_nmf.updates import forget, update

TALL, WIDE = low_rank(40, 15, 3, noise=1.0), low_rank(15, 40, 3, noise=1.0)


def fit_zarr(folder: Path, v: Any = TALL, **options: Any) -> tuple[Path, Path]:
    """Return the places of V, in chunks of ten rows, and of its run."""
    zarr.create_array(folder / "v.zarr", data=v, chunks=(10, v.shape[1]))
    nmf(str(folder / "v.zarr"), 3, store=folder / "run.zarr", **{"max_iter": 4, **options})
    return folder / "run.zarr", folder / "v.zarr"


def failed(run: Path, v: Any = None) -> set[str]:
    """Return the names of the checks that fail."""
    return {check.name for check in verify(run, v) if check.passed is False}


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.unlink()  # it may have another name, which stays as it is
    file.write_bytes(content)


@pytest.mark.parametrize("v", [TALL, WIDE, TALL.astype(np.float32), scipy.sparse.csr_array(sparse(30, 12))])
@pytest.mark.parametrize("beta", ["frobenius", "kullback-leibler", 1.5])
def test_a_sound_run_passes(v: Any, beta: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputed, "BUDGET", 900)  # bytes, so that there are several blocks
    solver = "mu" if beta == 1.5 else "hals"
    nmf(v, 3, store=tmp_path / "run", beta_loss=beta, solver=solver, max_iter=4)
    checks = verify(tmp_path / "run", v)
    assert all(check.passed for check in checks), checks
    assert {check.name for check in checks} >= {"record", "W", "H", "shown", "V", "error"}


@pytest.mark.parametrize("missing", ["nan", "unstored"])
def test_missing_entries_are_left_out(missing: str, tmp_path: Path) -> None:
    if missing == "nan":
        v: Any = np.where(np.random.default_rng(0).random(TALL.shape) < 0.3, np.nan, TALL)
    else:
        v = scipy.sparse.csr_array(sparse(30, 12))
    nmf(v, 2, store=tmp_path / "run", missing=missing, max_iter=4)
    assert failed(tmp_path / "run", v) == set()


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.0, 0.5, 3.0])
def test_the_error_is_that_of_the_definition(beta: float) -> None:
    """The oracle is scikit-learn's divergence."""
    random = np.random.default_rng(1)
    w, h = random.random((40, 3)), random.random((3, 15))
    settings = Settings(3, beta_loss=beta, solver="mu")
    found = read_once(open_matrix(TALL), (w, h), settings, []).terms.relative_error(beta)
    size = np.linalg.norm(TALL) ** 2 / 2
    if beta != 2:
        size = _nmf._beta_divergence(TALL, np.full((40, 1), TALL.mean()), np.ones((1, 15)), beta)
    assert found == pytest.approx(math.sqrt(_nmf._beta_divergence(TALL, w, h, beta) / size))


@pytest.mark.parametrize("v", [TALL, WIDE, scipy.sparse.csr_array(TALL), scipy.sparse.csr_array(WIDE)])
def test_rows_that_were_added_are_compared_too(
    v: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if V is read in several blocks, and for a wide V, whose panels are columns."""
    monkeypatch.setattr(recomputed, "BUDGET", 600)
    rows, run = v.shape[0], tmp_path / "run"
    nmf(v[: rows - 5], 2, store=run, max_iter=4)
    update(run, v[rows - 5 : rows - 2])
    update(run, v[rows - 2 :])
    (content,) = (check for check in verify(run, v) if check.name == "V")
    assert content.passed
    assert content.text.endswith("every entry is as in the fit or in the rows that were added since")
    for row in (1, rows - 4, rows - 1):
        other = v.copy() if scipy.sparse.issparse(v) else np.array(v)
        other[row, 2] += 1
        (content,) = (check for check in verify(run, other) if check.name == "V")
        by_columns = v is not TALL and row == 1 and v.shape[0] < v.shape[1]
        assert content.passed is False
        assert f"the same in {'column 2' if by_columns else f'row {row}'}; give the V that" in content.text
    forget(run, [1], v)
    (content,) = (check for check in verify(run, v[np.delete(np.arange(rows), 1)]) if check.name == "V")
    assert content.passed
    assert "not compared, because rows were taken out" in content.text


def test_a_changed_bit_of_w_or_h_is_found(tmp_path: Path) -> None:
    run, v = fit_zarr(tmp_path)
    folder = next((run / "data").glob("result-*"))
    for name in ("W", "H"):
        chunk = next((folder / name).iterdir())
        kept = chunk.read_bytes()
        flip(chunk)
        assert failed(run, v) >= {name}
        chunk.write_bytes(kept)
    assert failed(run, v) == set()
    flip(next(path for path in (run / "W").rglob("c*") if path.is_file()))
    assert failed(run) == {"shown"}


def test_a_lost_chunk_is_found(tmp_path: Path) -> None:
    run, _ = fit_zarr(tmp_path)
    next(next((run / "data").glob("result-*/W")).iterdir()).unlink()
    assert "W" in failed(run)


@pytest.mark.parametrize("damage", ["flip", "lose", "change"])
def test_another_v_is_found_and_its_rows_are_named(damage: str, tmp_path: Path) -> None:
    run, v = fit_zarr(tmp_path)
    chunk = v / "c" / "1" / "0"
    if damage == "change":
        zarr.open_array(v, mode="r+")[17, 3] += 1e-9
    else:
        {"flip": flip, "lose": Path.unlink}[damage](chunk)
    checks = {check.name: check for check in verify(run, v)}
    assert checks["V"].passed is False
    assert checks["W"].passed
    if damage != "flip":  # which cannot be decoded, or gives other numbers
        rows = {"lose": "rows 10 to 19", "change": "row 17"}[damage]
        assert f"V is not the same in {rows};" in checks["V"].text
    assert failed(run, TALL[1:]) == {"V"}


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the record of a run."""
    root = run / "zarr.json"
    content = json.loads(root.read_text())
    change(content["attributes"]["dask_nmf"])
    root.write_text(json.dumps(content))


def test_a_wrong_record_is_found(tmp_path: Path) -> None:
    run, v = fit_zarr(tmp_path)
    edit(run, lambda record: record["result"].update(loss=record["result"]["loss"] * 1.5))
    assert failed(run) == {"record"}  # the last pass cannot have had a smaller error
    edit(run, lambda record: record["result"].update(loss=record["result"]["loss"] / 1.6))
    assert failed(run) == set()
    assert failed(run, v) == {"error"}  # which only V shows
    edit(run, lambda record: record["result"]["history"]["seconds"].__setitem__(0, 7.0))
    assert "seconds_history" in failed(run)
    edit(run, lambda record: record.update(finished="perhaps"))
    assert failed(run) == {"record"}


def test_what_cannot_be_computed_again_is_said(tmp_path: Path) -> None:
    nmf(TALL, 2, store=tmp_path / "run", weights=np.full(TALL.shape, 2.0), max_iter=2)
    (error,) = (check for check in verify(tmp_path / "run", TALL) if check.name == "error")
    assert (error.passed, error.text) == (None, "not recomputed, because the fit had weights")


def test_the_command_prints_a_line_for_each_check_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, v = fit_zarr(tmp_path)
    assert app(["verify", str(run), str(v)], standalone_mode=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", name]
        for name in ("record", "W", "H", "error_history", "seconds_history", "shown", "V", "error")
    ]
    flip(next(next((run / "data").glob("result-*/H")).iterdir()))
    assert app(["verify", str(run), "--json"], standalone_mode=False) == 3
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["passed"] for check in checks if check["name"] == "H"] == [False]
    with pytest.raises(FileNotFoundError, match="there is no run"):
        app(["verify", str(tmp_path / "nothing")], standalone_mode=False)


def test_an_unfinished_run_has_nothing_to_verify(tmp_path: Path) -> None:
    def stop(step: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nmf(TALL, 2, store=tmp_path / "run", callback=stop)
    with pytest.raises(ValueError, match="has no W and H yet"):
        verify(tmp_path / "run")
    assert Run.load(tmp_path / "run").result is None


def test_damaged_names_are_found(tmp_path: Path) -> None:
    run, index = tmp_path / "run.zarr", (names("r", 40), names("c", 15))
    nmf(write_named(tmp_path / "V.zarr", TALL, *index), 3, max_iter=4, store=run)
    checks = {check.name: check for check in verify(run)}
    assert checks["row names"].text == "40 names, 1 chunk decoded"
    assert "row, column as zarr" in checks["shown"].text
    flip(next(path for path in (run / "row").rglob("*0")))
    assert failed(run) == {"shown"}
    flip(next((run / "data").glob("labels-*/column/*")))
    assert failed(run) == {"column names", "shown"}
