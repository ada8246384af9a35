"""Arrays that are packed by the CF conventions are decoded, as xarray does it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import Array, low_rank, read

from dask_nmf import NMF, nmf
from dask_nmf.errors import DataError
from dask_nmf.sources.decoding import packing
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Orientation

SHAPES = {"tall": (30, 12), "wide": (12, 30)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
ENCODINGS: dict[str, dict[str, Any]] = {
    "uint16": {"dtype": "u2", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": 65535},
    "int16, scale alone": {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1},
    "int8": {"dtype": "i1", "scale_factor": 0.5, "_FillValue": -128},
    "big-endian": {"dtype": ">i2", "scale_factor": 0.02, "add_offset": 1.0, "_FillValue": -32767},
    "int32": {"dtype": "i4", "scale_factor": 1e-6, "add_offset": 2.0, "missing_value": -9},
    "no scale": {"dtype": "i2", "_FillValue": -9},
    "float32": {"dtype": "f4", "_FillValue": -999.25},
    "float64, two attributes": {"dtype": "f8", "_FillValue": 1e20, "missing_value": 1e20},
}

pytestmark = pytest.mark.usefixtures("several_panels")


def holes(shape: tuple[int, int]) -> Array:
    """A V of which a fifth is missing."""
    v = 6 + low_rank(*shape, 3)
    return np.where(np.random.default_rng(1).random(shape) < 0.2, np.nan, v)


def packed(path: Path, v: Array, encoding: dict[str, Any], version: int) -> str:
    """What xarray writes."""
    dataset = xarray.Dataset({"t": (("y", "x"), v)})
    asked = {"t": {"chunks": (7, 5), **encoding}}
    dataset.to_zarr(path, encoding=asked, zarr_format=version, consolidated=False)  # type: ignore[call-overload]
    return f"{path}/t"


def stored(path: Path, numbers: Any, attributes: dict[str, Any], version: int = 3, fill: Any = 0) -> str:
    """Numbers with attributes, as any program may write them."""
    zarr.create_array(
        path, data=np.asarray(numbers), attributes=attributes, zarr_format=version, fill_value=fill,
        chunks=(2, 2),
    )  # fmt: skip
    return str(path)


@pairwise({"kind": list(ENCODINGS), "version": [2, 3], "shape": SHAPES})
def test_values_are_those_of_xarray(kind: str, version: int, shape: tuple[int, int], tmp_path: Path) -> None:
    path = packed(tmp_path / "data", holes(shape), ENCODINGS[kind], version)
    theirs = xarray.open_zarr(tmp_path / "data", consolidated=False)["t"].to_numpy()
    opened = open_matrix(path)
    assert np.isnan(theirs).any()
    assert opened.dtype == (
        np.float32 if np.dtype(ENCODINGS[kind]["dtype"]).itemsize <= 2 or kind == "float32" else np.float64
    )
    np.testing.assert_array_equal(read(opened), theirs.astype(opened.dtype))
    np.testing.assert_array_equal(read(open_matrix(path, "float64")), theirs)


@given(data=st.data())
def test_any_block_is_decoded(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = packed(tmp_path_factory.mktemp("v") / "data", holes((12, 30)), ENCODINGS["uint16"], 3)
    whole, opened = (
        read(open_matrix(path)),
        open_matrix(path, orientation=data.draw(st.sampled_from(Orientation))),
    )
    rows, columns = (
        slice(*sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))))
        for size in (12, 30)
    )
    index = opened.orientation.turn((rows, columns))
    block = opened.reader[index]
    np.testing.assert_array_equal(opened.orientation.turn_array(block), whole[rows, columns])


nan = np.nan
FOUR, SIGNED = np.int16([[1, 2], [8, 9]]), np.int8([[1, -2], [3, -1]])
BOUNDED = [[nan, 2], [8, nan]]
CASES: dict[str, tuple[Any, dict[str, Any], list[list[float]]]] = {
    "in lists": (FOUR, {"scale_factor": [0.5], "_FillValue": [9]}, [[0.5, 1], [4, nan]]),
    "several fills": (FOUR, {"missing_value": [8, 9]}, [[1, 2], [nan, nan]]),
    "both fills": (FOUR, {"missing_value": 8, "_FillValue": 9}, [[1, 2], [nan, nan]]),
    "range": (FOUR, {"valid_range": [2, 8]}, BOUNDED),
    "range, packed": (FOUR, {"valid_range": [2, 8], "scale_factor": 0.5}, [[nan, 1], [4, nan]]),
    "range, decoded": (FOUR, {"valid_range": [0.75, 4.0], "scale_factor": 0.5}, [[nan, 1], [4, nan]]),
    "least and most": (FOUR.astype("f4"), {"valid_min": 2.0, "valid_max": 8.0}, BOUNDED),
    "unsigned": (SIGNED, {"_Unsigned": "true", "_FillValue": -1}, [[1, 254], [3, nan]]),
    "unsigned range": (SIGNED, {"_Unsigned": "true", "valid_range": [2, -2]}, [[nan, 254], [3, nan]]),
    "signed": (
        SIGNED.view("u1"),
        {"_Unsigned": "false", "_FillValue": 255, "add_offset": 2.0},
        [[3, 0], [5, nan]],
    ),
    "infinite": (np.float32([[1, 2], [3, np.inf]]), {"missing_value": "Infinity"}, [[1, 2], [3, nan]]),
    "rounding": (FOUR, {"scale_factor": 0.1, "add_offset": -0.1 - 1e-9}, [[0, 0.1], [0.7, 0.8]]),
    "below 0": (FOUR, {"scale_factor": 0.1, "add_offset": -0.2}, [[-0.1, 0], [0.6, 0.7]]),
    "nothing": (FOUR, {"_FillValue": nan, "long_name": "t"}, FOUR.tolist()),
}


@pytest.mark.parametrize("holder", ["zarr v2", "zarr v3", "hdf5"])
@pytest.mark.parametrize("case", CASES)
def test_attributes_are_followed(case: str, holder: str, tmp_path: Path) -> None:
    numbers, attributes, expected = CASES[case]
    if holder == "hdf5":
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file["v"] = numbers
            file["v"].attrs.update(attributes)
            found = read(open_matrix(file["v"]))
    else:
        found = read(open_matrix(stored(tmp_path / "v", numbers, attributes, int(holder[-1]))))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "fill", "missing"),
    [
        ({}, 0, None),  # Zarr writes 0 by itself
        ({}, 3, None),  # no sign of xarray
        ({"_ARRAY_DIMENSIONS": ["y", "x"]}, 0, None),
        ({"_ARRAY_DIMENSIONS": ["y", "x"]}, 3, 3),
        ({"_ARRAY_DIMENSIONS": ["y", "x"], "scale_factor": 1.0}, 0, 0),
        ({"scale_factor": 1.0}, 0, None),
        ({"scale_factor": 1.0}, 3, 3),
        ({"_ARRAY_DIMENSIONS": ["y", "x"], "_FillValue": 2}, 0, 2),
    ],
)
def test_a_fill_value_of_zarr_v2_is_that_of_xarray(
    attributes: dict[str, Any], fill: int, missing: int | None, tmp_path: Path
) -> None:
    numbers = np.int16([[0, 1], [2, 3]])
    found = read(open_matrix(stored(tmp_path / "v", numbers, attributes, 2, fill)))
    np.testing.assert_array_equal(found, np.where(numbers == missing, np.nan, numbers))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"scale_factor": 0.0}, "scale_factor 0 .*not 0"),
        ({"scale_factor": float("inf")}, "scale_factor inf"),
        ({"scale_factor": "0.1"}, "scale_factor = '0.1', which is no number"),
        ({"scale_factor": True}, "no number"),
        ({"scale_factor": [0.1, 0.2]}, "it must be one number"),
        ({"add_offset": None}, "add_offset = None, which is no number"),
        ({"_FillValue": "none"}, "_FillValue .*'none'.* which is no number"),
        ({"valid_range": [1]}, "must be two numbers"),
        ({"valid_max": "9"}, "no number"),
        ({"_Unsigned": "maybe"}, "'true' or 'false'"),
        ({"units": "days since 1970-01-01"}, "times, in units 'days since 1970-01-01'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(attributes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = stored(tmp_path / "v", np.int16([[1, 2], [3, 4]]), attributes)
    with pytest.raises(DataError, match=words):
        open_matrix(path)


@shapes
def test_a_fit_takes_missing_values_as_nan(
    shape: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    v = holes(shape)
    v[:7, :5] = np.nan  # a chunk that is not stored
    path = packed(tmp_path / "data", v, ENCODINGS["uint16"], 2)
    assert not (tmp_path / "data/t/0.0").exists()
    asked: dict[str, Any] = {"missing": "nan", "max_iter": 3, "tol": 0, "alpha_W": 0.01}
    ours = nmf(path, 3, **asked)
    assert caplog.text.count("stored * 0.01 + 5, 65535 is missing") == 1
    decoded = xarray.open_zarr(tmp_path / "data", consolidated=False)["t"].to_numpy().astype("f4")
    theirs = nmf(decoded, 3, **asked)
    np.testing.assert_allclose(ours.H, theirs.H, rtol=1e-4, atol=1e-6)
    assert ours.relative_error == pytest.approx(theirs.relative_error, rel=1e-5)
    with pytest.raises(ValueError, match=r'V has nan at row .*missing="nan"'):
        nmf(path, 3)
    with pytest.raises(ValueError, match="V is dense"):
        nmf(path, 3, missing="unstored")
    array = zarr.open_array(path, mode="r")
    same = NMF(3, missing="nan", max_iter=3, tol=0, alpha_W=0.01, random_state=0).fit_transform(array)
    np.testing.assert_array_equal(same, ours.W)


def test_weights_are_decoded(tmp_path: Path) -> None:
    v, weights = low_rank(30, 12, 3), np.random.default_rng(0).integers(0, 9, (30, 12)).astype("u1")
    path = stored(tmp_path / "w", weights, {"scale_factor": 0.25})
    ours, theirs = (nmf(v, 3, weights=given, max_iter=3, tol=0) for given in (path, 0.25 * weights))
    np.testing.assert_allclose(ours.H, theirs.H, rtol=1e-6)
    with pytest.raises(ValueError, match="weights has nan"):
        nmf(v, 3, weights=stored(tmp_path / "m", weights, {"_FillValue": int(weights[0, 0])}))


SPARSE_ATTRIBUTES = {"scale_factor": 0.001, "add_offset": 2.0, "_FillValue": 7}


def packed_group(path: Path, held: Any, kind: str, holder: str) -> Any:
    """A CSR or CSC matrix whose data is packed, in Zarr or HDF5."""
    about = {"encoding-type": kind, "shape": held.shape}
    parts = {name: getattr(held, name) for name in ("data", "indices", "indptr")}
    if holder == "hdf5":
        group: Any = h5py.File(f"{path}.h5", "w").create_group("X")
        for name, values in parts.items():
            group.create_dataset(name, data=values)
    else:
        group = zarr.create_group(path, zarr_format=int(holder[-1]))  # type: ignore[arg-type]
        for name, values in parts.items():
            group.create_array(name, data=values, chunks=(16,))
    group.attrs.update(about)
    group["data"].attrs.update(SPARSE_ATTRIBUTES)
    return group


@pytest.mark.parametrize("holder", ["zarr v2", "zarr v3", "hdf5"])
@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix"])
def test_the_data_of_a_sparse_group_is_decoded(kind: str, holder: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    numbers = random.integers(1, 60000, (40, 12)) * (random.random((40, 12)) < 0.4)
    numbers[3, 5] = 7
    make = scipy.sparse.csr_array if kind == "csr_matrix" else scipy.sparse.csc_array
    group = packed_group(tmp_path / "x", make(numbers.astype("u2")), kind, holder)
    expected = np.where(numbers == 0, 0, np.where(numbers == 7, nan, 0.001 * numbers + 2))
    opened = open_matrix(group)
    assert opened.dtype == np.float32
    np.testing.assert_allclose(read(opened), expected, rtol=1e-6)
    group["indptr"].attrs["scale_factor"] = 2
    with pytest.raises(DataError, match=r"indptr has the attribute scale_factor.* only data may be packed"):
        open_matrix(group)


def test_a_long_row_of_numbers_is_decoded_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(packing, "PIECE", 8)
    decode = packing.Packing._decode
    monkeypatch.setattr(packing.Packing, "_decode", lambda self, x: sizes.append(len(x)) or decode(self, x))
    numbers, decoded = np.arange(20, dtype="u2"), np.empty(20)
    packing.Packing(numbers.dtype, 0.5, 1.0).unpack(numbers, decoded)
    np.testing.assert_array_equal(decoded, 0.5 * numbers + 1)
    assert sizes == [8, 8, 4]


def test_xarray_that_was_not_decoded_is_refused(tmp_path: Path) -> None:
    packed(tmp_path / "data", holes((30, 12)), ENCODINGS["uint16"], 3)
    raw = xarray.open_zarr(tmp_path / "data", consolidated=False, mask_and_scale=False)["t"]
    for array in (raw, raw.load()):
        with pytest.raises(DataError, match=r"attributes .*scale_factor.*xarray.decode_cf"):
            nmf(array, 3)
