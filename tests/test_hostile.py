"""Files that lie, files that are damaged, and names that steer terminals; see docs/security.md."""

import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import fuzz
import numcodecs.pickles
import numpy as np
import pytest
import scipy.sparse
import zarr
from commands import Forks
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Array, anndata_group, low_rank, sparse

from dask_nmf import Run, nmf
from dask_nmf.errors import DataError
from dask_nmf.opening import open_matrix
from dask_nmf.predictions import predict_to
from dask_nmf.project import transform_to
from dask_nmf.record import MEASURES
from dask_nmf.start import Measures
from dask_nmf.store import KEY, NotARun
from dask_nmf.text import visible

ROOT = Path(__file__).resolve().parents[1]
MOST = 100 * 2**20  # bytes that a refusal may take
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\nlevel=error forged\u202e"


# No pickle is loaded.


class Marker:
    """What leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def objects(marker: Marker) -> Array:
    return np.array([[marker, 1.0], [2.0, 3.0]], object)


def npy_of_objects(folder: Path, marker: Marker) -> Path:
    np.save(folder / "v.npy", objects(marker), allow_pickle=True)
    return folder / "v.npy"


def npz_of_objects(folder: Path, marker: Marker) -> Path:
    np.savez(folder / "v.npz", X=objects(marker), allow_pickle=True)
    return folder / "v.npz"


def npz_csr(name: str) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        parts: dict[str, Any] = dict.fromkeys(("data", "indices", "indptr"), np.array([0, 1, 2]))
        parts |= {"shape": np.array([2, 3]), "format": np.array(b"csr"), name: np.array([marker], object)}
        np.savez(folder / "v.npz", **parts)
        return folder / "v.npz"

    return make


def only_a_pickle(name: str) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        (folder / name).write_bytes(pickle.dumps(marker))
        return folder / name

    return make


def zarr_v2(**metadata: Any) -> Callable[[Path, Marker], Path]:
    def make(folder: Path, marker: Marker) -> Path:
        path = folder / "v.zarr"
        array = zarr.create_array(
            path, shape=(2, 2), chunks=(2, 2), dtype="f8", zarr_format=2, compressors=None
        )
        array[...] = 1
        told = json.loads((path / ".zarray").read_text())
        (path / ".zarray").write_text(json.dumps({**told, **metadata}))
        (path / "0.0").write_bytes(pickle.dumps(objects(marker)))
        return path

    return make


def zarr_v3(folder: Path, marker: Marker) -> Path:
    path = folder / "v.zarr"
    zarr.create_array(path, shape=(2, 2), chunks=(2, 2), dtype="f8", compressors=None)[...] = 1
    told = json.loads((path / "zarr.json").read_text())
    told["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"id": "pickle"}}]
    (path / "zarr.json").write_text(json.dumps(told))
    (path / "c" / "0" / "0").write_bytes(pickle.dumps(objects(marker)))
    return path


def group_with(folder: Path, marker: Marker) -> Path:
    path = folder / "v.zarr"
    anndata_group(np.eye(3), path, "csr_matrix")
    shutil.rmtree(path / "data")
    shutil.copytree(zarr_v3(folder / "other", marker), path / "data")
    return path


PICKLES: dict[str, Callable[[Path, Marker], Path]] = {
    "npy of objects": npy_of_objects,
    "npz of objects": npz_of_objects,
    "pickle as npy": only_a_pickle("v.npy"),
    "pickle as npz": only_a_pickle("v.npz"),
    **{f"scipy {name}": npz_csr(name) for name in ("data", "indices", "indptr", "shape", "format")},
    "zarr v2 filter": zarr_v2(filters=[{"id": "pickle"}]),
    "zarr v2 compressor": zarr_v2(compressor={"id": "pickle"}),
    "zarr v2 of objects": zarr_v2(dtype="|O", filters=[{"id": "pickle"}], fill_value=None),
    "zarr v3 codec": zarr_v3,
    "csr in zarr": group_with,
}


@pytest.mark.parametrize("way", ["V", "weights", "H", "fixed_W"])
@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_is_loaded(kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    (tmp_path / "other").mkdir()
    source = PICKLES[kind](tmp_path, Marker(tmp_path / "marker"))
    v = np.ones((2, 2))
    asked: dict[str, Any] = {} if way == "V" else {way: str(source)}
    if way == "H":
        asked["init"] = "custom"
    with pytest.raises(DataError) as refused:
        nmf(str(source) if way == "V" else v, 1, **asked)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "marker").exists()


def test_the_pickles_of_these_tests_do_leave_a_marker(tmp_path: Path) -> None:
    source = only_a_pickle("p")(tmp_path, Marker(tmp_path / "marker"))
    pickle.loads(source.read_bytes())
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["zarr v2 filter", "zarr v3 codec"])
def test_no_pickle_is_loaded_from_a_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
    run = fuzz.a_run(tmp_path, "finished")
    source = PICKLES[kind](tmp_path, Marker(tmp_path / "marker"))
    shutil.rmtree(run / "H")
    shutil.copytree(source, run / "H")
    for outcome in fuzz.checked_run(run).split()[1:4]:
        assert outcome == "NotARun"
    assert not (tmp_path / "marker").exists()


def test_no_worker_loads_a_pickle(client: Client, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((20, 3)))
    opened = open_matrix(tmp_path / "v.npy")
    panels = opened.panels((0, 10, 20))
    npy_of_objects(tmp_path, Marker(tmp_path / "marker"))
    with pytest.raises(DataError, match="cannot be read"):
        panels.compute()
    assert not (tmp_path / "marker").exists()


# Nothing is allocated for what is only claimed.


def npy_claiming(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with (folder / "v.npy").open("wb") as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "<f8", "fortran_order": False, "shape": shape}
            )
            file.write(b"\0" * 800)
        return folder / "v.npy"

    return make


def npz_claiming(shape: tuple[int, ...], size: int = 800, lie: int = 0) -> Callable[[Path], Path]:
    """A member that says its shape, has ``size`` bytes, and in the archive's directory ``lie`` more."""

    def make(folder: Path) -> Path:
        npy = npy_claiming(shape)(folder).read_bytes()[:-800]
        with zipfile.ZipFile(folder / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("X.npy", "w") as member:
                member.write(npy)
                for _ in range(size // 2**20):
                    member.write(b"\0" * 2**20)
                member.write(b"\0" * (size % 2**20))
            archive.getinfo("X.npy").file_size += lie
        return folder / "v.npz"

    return make


def csr_npz(**parts: Any) -> Callable[[Path], Path]:
    """The 3 × 3 identity as SciPy saves it, with other parts."""

    def make(folder: Path) -> Path:
        held = {
            "data": np.ones(3),
            "indices": np.arange(3, dtype=np.int32),
            "indptr": np.arange(4, dtype=np.int32),
            "shape": np.array([3, 3]),
            "format": np.array(b"csr"),
        }
        np.savez(folder / "v.npz", **{**held, **parts})
        return folder / "v.npz"

    return make


def zarr_claiming(
    version: int, shape: Any, chunks: Any, one: bool = True, **more: Any
) -> Callable[[Path], Path]:
    """An array of which there is one chunk, or none."""

    def make(folder: Path) -> Path:
        path = folder / "v.zarr"
        array = zarr.create_array(
            path,
            shape=(4, 4),
            chunks=(2, 2),
            dtype="f8",
            compressors=None,
            zarr_format=version,
            **more,  # type: ignore[arg-type]
        )
        if one:
            array[:2, :2] = 1
        file = path / ("zarr.json" if version == 3 else ".zarray")
        told = json.loads(file.read_text())
        told["shape"] = shape
        if version == 2:
            told["chunks"] = chunks
        elif not more:
            told["chunk_grid"]["configuration"]["chunk_shape"] = chunks
        file.write_text(json.dumps(told))
        return path

    return make


def group_claiming(
    lengths: dict[str, int], shape: list[int], kind: str = "csr_matrix"
) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "v.zarr"
        anndata_group(np.eye(4), path, "csr_matrix")
        for name, length in lengths.items():
            told = json.loads((path / name / "zarr.json").read_text())
            told["shape"] = [length]
            (path / name / "zarr.json").write_text(json.dumps(told))
        zarr.open_group(path, mode="r+").attrs["shape"] = shape
        return path

    return make


def metadata(text: str, name: str = "zarr.json") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "v.zarr").mkdir()
        (folder / "v.zarr" / name).write_text(text)
        return folder / "v.zarr"

    return make


CLAIMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "npy": (npy_claiming((10**12, 10)), "at most"),
    "npy overflow": (npy_claiming((2**32, 2**32)), "at most"),
    "npy negative": (npy_claiming((-1, -100)), "shape"),
    "npz": (npz_claiming((10**12, 10)), "at most 9"),
    "npz lies": (npz_claiming((10**7, 10), lie=8 * 10**8), "at most"),
    "npz bomb": (npz_claiming((2**28, 10)), "at most"),
    "csr columns": (csr_npz(shape=np.array([3, 10**15])), "3 entries; leave out"),
    "csr rows": (csr_npz(shape=np.array([10**15, 3])), "indptr does not fit"),
    "csr shape": (csr_npz(shape=np.array(3)), "cannot be read"),
    "csr negative shape": (csr_npz(shape=np.array([3, -3])), "cannot be read"),
    "csr column outside": (csr_npz(indices=np.array([0, 1, 3])), "cannot be read"),
    "csr column negative": (csr_npz(indices=np.array([0, -1, 2])), "cannot be read"),
    "csr column huge": (csr_npz(indices=np.array([0, 1, 2**62])), "cannot be read"),
    "csc row outside": (csr_npz(indices=np.array([0, 1, 10**8]), format=np.array("csc")), "cannot be read"),
    "csr pointer outside": (csr_npz(indptr=np.array([0, 1, 2, 10**9])), "indptr does not fit"),
    "csr pointer back": (csr_npz(indptr=np.array([0, 3, 1, 3])), "indptr does not fit"),
    "csr pointer back, unsigned": (csr_npz(indptr=np.array([0, 3, 1, 3], np.uint64)), "indptr does not fit"),
    "csr pointer late": (csr_npz(indptr=np.array([1, 1, 2, 3])), "indptr does not fit"),
    "csr pointer of floats": (csr_npz(indptr=np.array([0, 1, 2, 3.0])), "indptr does not fit"),
    "csr fewer indices": (csr_npz(indices=np.array([0, 1])), "cannot be read"),
    "zarr v2 rows": (zarr_claiming(2, [10**12, 4], [2, 2]), "1 are there"),
    "zarr v3 rows": (zarr_claiming(3, [10**12, 4], [2, 2]), "1 are there"),
    "zarr shards": (zarr_claiming(3, [10**12, 4], None, shards=(2, 4)), "1 are there"),
    "zarr beyond integers": (zarr_claiming(3, [10**30, 4], [2, 2]), "1 are there"),
    "zarr with no chunk": (zarr_claiming(3, [4, 4], [2, 2], one=False), "0 are there"),
    "zarr v2 chunk": (zarr_claiming(2, [10**12, 4], [10**12, 4]), "GiB"),
    "zarr v3 chunk": (zarr_claiming(3, [10**9, 10**9], [10**9, 10**9]), "GiB"),
    "zarr v2 chunk of nothing": (zarr_claiming(2, [4, 4], [0, 2]), "chunks of shape"),
    "zarr v3 chunk of nothing": (zarr_claiming(3, [4, 4], [2, 0]), "chunks of shape"),
    "zarr negative": (zarr_claiming(3, [-4, 4], [2, 2]), "cannot be read"),
    "group rows": (group_claiming({"indptr": 10**12 + 1}, [10**12, 4]), "indptr has shape"),
    "group rows alone": (group_claiming({}, [10**12, 4]), "indptr does not fit"),
    "group columns": (group_claiming({}, [4, 10**12]), "4 entries"),
    "group entries": (group_claiming({"data": 10**12}, [4, 4]), "data has shape"),
    "deep": (metadata("[" * 10**5), "cannot be read"),
    "deep v2": (metadata('{"a":' * 10**5, ".zarray"), "cannot be read"),
    "no object": (metadata("[]"), "cannot be read"),
    "no text": (metadata("\0"), "cannot be read"),
    "long number": (metadata('{"zarr_format":' + "9" * 10**4 + "}"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS)
def test_what_is_only_claimed_is_refused_before_it_is_allocated(case: str, tmp_path: Path) -> None:
    make, words = CLAIMS[case]
    source = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words) as refused:
            open_matrix(source)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)


def test_an_archive_that_would_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = npz_claiming((2**20, 8), size=2**26)(tmp_path)
    assert source.stat().st_size < 2**19
    monkeypatch.setattr("dask_nmf.claims.MEMORY_LIMIT", 2**25)
    with pytest.raises(DataError, match=r"takes 0\.0625 GiB in memory, and this machine has 0\.0312 GiB"):
        open_matrix(source)


def test_of_an_archive_only_what_is_asked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "v.npz", X=np.ones((3, 3)), other=np.ones((500, 500)))
    read = []
    real = np.lib.format.read_array

    def counted(file: Any, **more: Any) -> Array:
        read.append(file.name)
        return real(file, **more)

    monkeypatch.setattr(np.lib.format, "read_array", counted)
    open_matrix(tmp_path / "v.npz")
    assert read == ["X.npy"]


def test_a_factor_of_another_shape_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "w.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10)}
        )
        file.truncate(8 * 10**10 + 1000)  # no disk is used
    with pytest.raises(ValueError, match="W has shape"):
        nmf(np.ones((5, 4)), 2, init="custom", W=str(tmp_path / "w.npy"))


def test_a_chunk_of_more_than_it_says_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "v.zarr", shape=(4, 4), chunks=(4, 4), dtype="f8", zarr_format=2)
    array[...] = 1
    codec = array.metadata.compressor  # type: ignore[union-attr]
    (tmp_path / "v.zarr" / "0.0").write_bytes(codec.encode(np.ones(10**6).tobytes()))
    with pytest.raises(DataError, match="cannot be read"):
        nmf(str(tmp_path / "v.zarr"), 2)


TWICE = {
    "npz csr": lambda held, path: csr_npz(**parts(held), shape=np.array(held.shape))(path),
    "npz csc": lambda held, path: csr_npz(
        **parts(held.T), shape=np.array(held.shape[::-1]), format=np.array(b"csc")
    )(path),
    "in memory": lambda held, path: held,
    "dask": lambda held, path: da.from_array(held, chunks=(-1, -1), asarray=False),
    "csr in zarr": lambda held, path: group_of(held, path / "v.zarr"),
}


def parts(held: Any) -> dict[str, Array]:
    return {name: getattr(held, name) for name in ("data", "indices", "indptr")}


def group_of(held: Any, path: Path) -> str:
    attributes = {"encoding-type": "csr_matrix", "shape": list(held.shape)}
    group = zarr.create_group(path, attributes=attributes)
    for name, values in parts(held).items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(64,))[...] = values
    return str(path)


@pytest.mark.parametrize("kind", ["npz csr", "in memory", "dask", "csr in zarr"])
def test_entries_that_are_stored_twice_or_in_disorder_are_summed(kind: str, tmp_path: Path) -> None:
    v = sparse(40, 12)
    once = scipy.sparse.csr_array(v)
    order = np.concatenate(
        [np.arange(b - 1, a - 1, -1).repeat(2) for a, b in zip(once.indptr, once.indptr[1:], strict=False)]
    )
    twice = scipy.sparse.csr_array((once.data[order] / 2, once.indices[order], 2 * once.indptr), v.shape)
    before = twice.data.copy()
    result = nmf(TWICE[kind](twice, tmp_path), 3, max_iter=3)
    np.testing.assert_allclose(result.loss_history, nmf(v, 3, max_iter=3).loss_history, rtol=1e-9)
    np.testing.assert_array_equal(twice.data, before)


@pytest.mark.parametrize("scale", [1e-200, 1e160, 1e300])
def test_a_v_whose_squares_are_no_numbers_is_refused(scale: float) -> None:
    with pytest.raises(DataError, match="brings them near 1"):
        nmf(scale * low_rank(30, 10, 2), 2)


# Runs that lie.

RECORDS: dict[str, tuple[tuple[str, ...], Any]] = {
    "rank": (("settings", "rank"), 10**9),
    "rank of text": (("settings", "rank"), "2"),
    "solver": (("settings", "solver"), "\x1b[31m"),
    "loss": (("settings", "beta_loss"), [2]),
    "no settings": (("settings",), None),
    "shape of one": (("matrix", "shape"), [30]),
    "dtype": (("matrix", "dtype"), "|O"),
    "transposed": (("matrix", "transposed"), "no"),
    "pass": (("pass",), 10**12),
    "pass of text": (("pass",), "3"),
    "history": (("history",), []),
    "losses": (("history", "loss"), {"0": 1}),
    "seconds": (("history", "seconds"), ["1", "1", "1"]),
    "measures": (("measures", "baseline"), None),
    "outcome": (("outcome",), {"a": 1}),
    "answered": (("answered",), 1),
    "state": (("state", "slot"), 9),
    "factors": (("factors",), ["../../h"]),
}


def put(run: Path, keys: tuple[str, ...], value: Any) -> None:
    told = json.loads((run / "zarr.json").read_text())
    part = told["attributes"][KEY]
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    (run / "zarr.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs to copy."""
    return {
        state: fuzz.a_run(tmp_path_factory.mktemp(state), state)
        for state in ("finished", "stopped", "broken")
    }


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run.parent, folder / "it")) / run.name


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_no_commit_made_is_damaged(case: str, sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    put(run, *RECORDS[case])
    with pytest.raises(NotARun, match=r"run\.zarr is damaged: .*; restore it, or remove it") as refused:
        Run.load(str(run))
    assert "\n" not in str(refused.value)


def test_the_measures_of_a_record_are_those_of_a_fit() -> None:
    assert Measures._fields == MEASURES


@pytest.mark.parametrize("name", ["W/c/0/0", "H/c/0/0", "W/zarr.json", "H/zarr.json"])
def test_a_lost_part_of_an_answer_is_missed(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    (run / name).unlink()
    with pytest.raises(NotARun, match="damaged"):
        predict_to(str(run), str(run.parent / "cells.csv"), str(tmp_path / "out.csv"), False)


def test_a_run_whose_arrays_are_of_another_size_is_damaged(sound: dict[str, Path], tmp_path: Path) -> None:
    run = copied(sound["finished"], tmp_path)
    told = json.loads((run / "H" / "zarr.json").read_text())
    told["shape"] = [2, 10**12]
    (run / "H" / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(NotARun, match="H has shape"):
        transform_to(str(run), str(run.parent / "v.npy"), str(tmp_path / "w.zarr"), False, lambda _: None)  # type: ignore[arg-type, return-value]


def test_a_run_whose_chunks_are_larger_than_its_arrays_is_damaged(
    sound: dict[str, Path], tmp_path: Path
) -> None:
    run = copied(sound["broken"], tmp_path)
    for slot in "01":
        file = run / "checkpoint" / slot / "h" / "zarr.json"
        told = json.loads(file.read_text())
        told["chunk_grid"]["configuration"]["chunk_shape"] = [10**7, 20]
        file.write_text(json.dumps(told))
    with pytest.raises(NotARun, match="in chunks of shape"):
        fuzz.fitted(run)


def test_a_line_of_cells_without_an_end_is_refused(sound: dict[str, Path], tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="line 1"):
            predict_to(str(sound["finished"]), "/dev/zero", str(tmp_path / "out.csv"), False)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


# What is shown.


def test_visible_text_is_one_line_that_can_be_printed() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert visible(everything).isprintable()
    plain = "".join(char for char in everything if char.isprintable())
    assert visible(plain) == plain
    assert visible("a\nb\x1b[0m\udcff") == r"a\nb\x1b[0m\udcff"


@pytest.fixture
def shown(forks: Forks, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command; checks that what it says steers nothing."""

    def call(*words: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
        answer = forks.call(words, tmp_path)
        for text in (answer.stdout, answer.stderr):
            assert all(line.isprintable() for line in text.split("\n")), text
            assert "\nlevel=error" not in text
        assert answer.returncode == code, answer.stderr
        return answer

    return call


def test_names_and_attributes_steer_no_terminal(
    shown: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    v, run = tmp_path / f"{ESCAPES}.npy", tmp_path / f"run{ESCAPES}.zarr"
    np.save(v, low_rank(30, 20, 2))
    shown("fit", v, "--rank", 2, "--output", run, "--max-iter", 2)
    shown("fit", v, "--rank", 3, "--output", run, code=2)
    lines = shown("fit", v, "--rank", 2, "--output", run, "--max-iter", 2, "--log-format", "json").stderr
    assert all("event" in json.loads(line) for line in lines.splitlines())
    put(run, ("outcome",), ESCAPES)
    put(run, ("matrix", "source"), ESCAPES)
    assert "\\x1b[2J" in shown("info", run).stdout
    assert json.loads(shown("info", run, "--json").stdout)["outcome"] == ESCAPES
    (tmp_path / "cells.csv").write_text(f"0,0\n{ESCAPES}\n")
    shown("predict", run, "cells.csv", "--output", "values.csv", code=3)
    put(run, ("settings", "solver"), ESCAPES)
    assert "damaged" in shown("info", run, code=2).stderr
    assert "\\x1b[2J" in shown("info", run, ESCAPES, code=2).stderr


@pytest.mark.parametrize("case", ["zarr v2 rows", "csc row outside", "npz lies", "deep"])
def test_the_command_refuses_hostile_files_in_one_line(
    case: str, shown: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    source = CLAIMS[case][0](tmp_path)
    error = shown("fit", source, "--rank", 2, "--output", "run.zarr", code=3).stderr
    assert len(error.splitlines()) == 1
    assert error.startswith("dask-nmf: ")


# Damage at random.


@pytest.mark.parametrize("kind", fuzz.MATRICES)
@settings(max_examples=20)
@given(draw=st.randoms(use_true_random=False))
def test_a_damaged_matrix_is_refused_or_read_as_others_read_it(
    kind: str, draw: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = fuzz.matrix(kind, tmp_path_factory.mktemp("v"))
    fuzz.damage(path, draw)
    fuzz.checked_matrix(path)


@pytest.mark.parametrize("state", fuzz.STATES)
@settings(max_examples=10)
@given(draw=st.randoms(use_true_random=False))
def test_a_damaged_run_is_refused_or_right(
    state: str, draw: random.Random, sound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = copied(sound[state], tmp_path_factory.mktemp("run"))
    fuzz.damage(run, draw)
    fuzz.checked_run(run)


@pytest.mark.real
@pytest.mark.parametrize("seed", ["one", "two"])
def test_a_minute_of_damage(seed: str) -> None:
    command = [sys.executable, "-X", "faulthandler", str(ROOT / "tests" / "fuzz.py"), "1", seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


# The page.


def test_the_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"`tests/(test_\w+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 10
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), name
