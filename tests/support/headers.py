"""Files whose headers claim more than they hold."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from support.matrices import Array, anndata_group

MOST = 100 * 2**20  # bytes that a refusal may take


def npy_claiming(shape: tuple[int, ...]) -> Callable[[Path], Path]:
    """Return a maker of an .npy file that claims a shape and holds 800 bytes."""

    def make(folder: Path) -> Path:
        with (folder / "v.npy").open("wb") as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "<f8", "fortran_order": False, "shape": shape}
            )
            file.write(b"\0" * 800)
        return folder / "v.npy"

    return make


def npz_claiming(shape: tuple[int, ...], size: int = 800, lie: int = 0) -> Callable[[Path], Path]:
    """Return a maker of an .npz with a member of ``size`` bytes that claims a shape.

    The directory of the archive claims ``lie`` more bytes for it.
    """

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


def coo_npz(**parts: Any) -> Callable[[Path], Path]:
    """The same in the format COO."""
    return csr_npz(**{"row": np.arange(3), "col": np.arange(3), "format": np.array(b"coo"), **parts})


def bsr_npz(**parts: Any) -> Callable[[Path], Path]:
    """The same in the format BSR."""
    return csr_npz(**{"data": np.ones((3, 1, 1)), "format": np.array(b"bsr"), **parts})


def dia_npz(**parts: Any) -> Callable[[Path], Path]:
    """The same in the format DIA."""
    held = {"data": np.ones((1, 3)), "offsets": np.zeros(1, int), "format": np.array(b"dia")}
    return csr_npz(**{**held, **parts})


def csr_npz(**parts: Any) -> Callable[[Path], Path]:
    """Return a maker of the 3 × 3 identity as SciPy saves it, with some parts replaced."""

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
    """Return a maker of a Zarr array that claims a shape and has one chunk, or none."""

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
    """Return a maker of a sparse group in Zarr that claims a shape and lengths of its arrays."""

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
    """Return a maker of a Zarr folder that holds only a metadata file with this text."""

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
    "coo rows": (coo_npz(shape=np.array([10**15, 3])), "3 entries; leave out"),
    "coo row outside": (coo_npz(row=np.array([0, 1, 10**8])), "cannot be read"),
    "coo column negative": (coo_npz(col=np.array([0, -1, 2])), "cannot be read"),
    "coo fewer rows": (coo_npz(row=np.array([0, 1])), "cannot be read"),
    "bsr column outside": (bsr_npz(indices=np.array([0, 1, 10**8])), "cannot be read"),
    "bsr pointer outside": (bsr_npz(indptr=np.array([0, 1, 2, 10**9])), "indptr does not fit"),
    "bsr pointer back": (bsr_npz(indptr=np.array([0, 3, 1, 3])), "indptr does not fit"),
    "bsr pointer back to 0": (bsr_npz(indptr=np.array([0, 10**6, 10**6, 0])), "indptr does not fit"),
    "bsr part of a block": (bsr_npz(data=np.ones((3, 1, 2)), shape=np.array([3, 7])), "do not fill"),
    "dia columns": (dia_npz(shape=np.array([3, 10**15])), "3 entries; leave out"),
    "dia fewer offsets": (dia_npz(offsets=np.array([], int)), "cannot be read"),
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


def parts(held: Any) -> dict[str, Array]:
    return {name: getattr(held, name) for name in ("data", "indices", "indptr")}
