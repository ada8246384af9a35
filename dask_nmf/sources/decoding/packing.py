"""The CF conventions: how numbers are packed into integers, and which of them mean that nothing is there.

``value = stored * scale_factor + add_offset``. What equals ``_FillValue`` or ``missing_value``, or lies
outside of ``valid_range``, is missing, and becomes NaN. xarray and netCDF write these attributes.
Source: CF conventions 1.11, §2.5.1 and §8.1; NetCDF Users Guide, attribute conventions.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import DataError
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

SCALING = ("scale_factor", "add_offset")
FILLS = ("_FillValue", "missing_value")
RANGES = ("valid_range", "valid_min", "valid_max")
ATTRIBUTES = (*SCALING, *FILLS, *RANGES, "_Unsigned")
DIMENSIONS = "_ARRAY_DIMENSIONS"  # xarray's mark on arrays of Zarr v2
TIMES = re.compile(
    r"\s*(common_)?(year|month|week|day|hour|hr|minute|min|second|sec|s|h|d|m\w*|n\w*)s?\s+since\s"
)
PIECE = 2**17  # entries that are decoded together: they stay in the cache of a core
ROUNDING = 2.5e-7  # of an offset: what single precision leaves of a sum that should be 0


@dataclass(frozen=True)
class Packing:
    """How the numbers of an array are stored."""

    stored: np.dtype[Any]  # after `_Unsigned`
    scale: float = 1.0
    offset: float = 0.0
    fills: tuple[float | int, ...] = ()  # stored values that are missing
    lowest: float | int = -inf  # stored values outside of these are missing
    highest: float | int = inf
    least: float = -inf  # so are decoded values outside of these
    most: float = inf

    def __str__(self) -> str:
        parts = [] if (self.scale, self.offset) == (1, 0) else [f"stored * {self.scale:g} + {self.offset:g}"]
        parts += [f"{fill} is missing" for fill in self.fills]
        bounds = ((self.lowest, self.highest, ""), (self.least, self.most, " after decoding"))
        parts += [
            f"missing outside of {a:g} to {b:g}{when}" for a, b, when in bounds if (a, b) != (-inf, inf)
        ]
        return ", ".join(parts) or f"stored as {self.stored}"

    def unpack(self, block: Array, out: Array) -> None:
        """Write the decoded values of a stored block into a floating array of the same shape.

        They are decoded in double precision. What is below 0 by less than rounding is 0.
        """
        rows = max(1, PIECE // max(1, prod(block.shape[1:])))
        for first in range(0, len(block), rows):
            out[first : first + rows] = self._values(block[first : first + rows].view(self.stored))

    def _values(self, stored: Array) -> Array:
        values = stored.astype(np.float64)
        if self.scale != 1:
            values *= self.scale
        if self.offset != 0:
            values += self.offset
            smallest = min(abs(self.scale) / 2, ROUNDING * abs(self.offset))
            values[(values < 0) & (values > -smallest)] = 0
        values[self._missing(stored, values)] = np.nan
        return values

    def _missing(self, stored: Array, values: Array) -> Array:
        missing = np.zeros(stored.shape, bool)
        for fill in self.fills:
            missing |= stored == fill
        if self.lowest > -inf:
            missing |= stored < self.lowest
        if self.highest < inf:
            missing |= stored > self.highest
        if (self.least, self.most) != (-inf, inf):
            missing |= (values < self.least) | (values > self.most)
        return missing


def find_packing(
    attributes: Mapping[str, Any], stored: np.dtype[Any], place: Any, fill: Any = None
) -> Packing | None:
    """Return how an array is packed, from its attributes, and say so in the log; None if it is not packed.

    Parameters
    ----------
    stored : dtype of the array.
    place : what messages call the array.
    fill : the fill value of an array in Zarr v2, where xarray keeps ``_FillValue``. It counts if it is not 0;
        0, which Zarr writes by itself, counts where xarray wrote attributes of packing but no ``_FillValue``.

    Raises
    ------
    DataError
        If an attribute cannot be followed: no number, a scale of 0, times.
    """
    given = {name: attributes[name] for name in ATTRIBUTES if name in attributes}
    if stored.kind not in "biuf":
        return None
    _check_units(attributes.get("units"), place)
    if fill is not None and (given or DIMENSIONS in attributes):
        by_xarray = len(given) > 0 and DIMENSIONS in attributes and "_FillValue" not in given
        if fill != 0 or by_xarray:
            given["_FillValue"] = [fill, *_listed(given.get("_FillValue", []))]
    if not given:
        return None
    signed = _signed(given.get("_Unsigned"), stored, place)
    scale, offset = (
        _one(given, name, default, place) for name, default in zip(SCALING, (1.0, 0.0), strict=True)
    )
    if scale == 0 or not isfinite(scale) or not isfinite(offset):
        raise DataError(
            f"{place} is packed with scale_factor {scale:g} and add_offset {offset:g}, which cannot "
            "be decoded; write it anew with a finite scale_factor that is not 0"
        )
    fills = {value for name in FILLS for value in _fills(given, name, stored, signed, place)}
    packing = Packing(signed, scale, offset, tuple(sorted(fills)), *_bounds(given, stored, signed, place))
    if packing == Packing(stored):
        return None
    logger.info("%s is packed by the CF conventions: %s", place, packing)
    return packing


def packing_of(array: Any, place: str) -> Packing | None:
    """Return how an array of Zarr or of h5py is packed; None if it is not packed."""
    fill = None
    if isinstance(array, zarr.Array) and array.metadata.zarr_format == 2:
        fill = array.fill_value
    return find_packing(dict(array.attrs), array.dtype, place, fill)


def check_decoded(attributes: Mapping[str, Any], name: str) -> None:
    """Refuse an xarray object whose values are still packed."""
    left = [attribute for attribute in (*SCALING, *FILLS) if attribute in attributes]
    if left:
        raise DataError(
            f"{name} is packed and not decoded, for it has the attributes {', '.join(left)}; give a "
            "variable of xarray.decode_cf(dataset), or open the data with mask_and_scale=True"
        )


def _check_units(units: Any, place: Any) -> None:
    if isinstance(units, str) and TIMES.match(units.lower()):
        raise DataError(
            f"{place} has times, in units {units!r}; NMF needs amounts, such as a duration in days"
        )


def _signed(unsigned: Any, stored: np.dtype[Any], place: Any) -> np.dtype[Any]:
    """Return the dtype that ``_Unsigned`` makes of the stored one."""
    if unsigned is None or stored.kind not in "iu":
        return stored
    said = str(unsigned).lower()
    if said not in ("true", "false"):
        raise DataError(f"{place} has the attribute _Unsigned = {unsigned!r}; it must be 'true' or 'false'")
    return np.dtype(f"{stored.byteorder}{'u' if said == 'true' else 'i'}{stored.itemsize}")


def _one(given: Mapping[str, Any], name: str, default: float, place: Any) -> float:
    if name not in given:
        return default
    numbers = _numbers(given[name], name, place)
    if len(numbers) != 1:
        raise DataError(f"{place} has the attribute {name} = {given[name]!r}; it must be one number")
    return float(numbers[0])


def _listed(value: Any) -> list[Any]:
    """Return an attribute as a list: JSON has numbers and lists, HDF5 has arrays."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]


def _numbers(value: Any, name: str, place: Any) -> list[float | int]:
    numbers = _listed(value)
    if any(isinstance(number, bool) or not isinstance(number, int | float | np.number) for number in numbers):
        raise DataError(f"{place} has the attribute {name} = {value!r}, which is no number; write V anew")
    return numbers


def _fills(
    given: Mapping[str, Any], name: str, stored: np.dtype[Any], signed: np.dtype[Any], place: Any
) -> list[float | int]:
    """Return the values that stand for what is missing, as they are after ``_Unsigned``; NaN is so anyway."""
    if name not in given:
        return []
    values = [_decoded(value) if isinstance(value, str) else value for value in _listed(given[name])]
    numbers = [number for number in _numbers(values, name, place) if number == number]
    if signed.kind == "f":  # as they are stored
        with np.errstate(over="ignore"):
            return [float(stored.type(number)) for number in numbers]
    if stored != signed:
        numbers = [_wrapped(number, signed) for number in numbers]
    low, high = (0, 1) if signed.kind == "b" else (np.iinfo(signed).min, np.iinfo(signed).max)
    return [int(number) for number in numbers if low <= number <= high and number == int(number)]


def _wrapped(number: float | int, signed: np.dtype[Any]) -> float | int:
    """Return a number as its two's complement in an integer dtype."""
    bits = 8 * signed.itemsize
    wrapped: float | int = number % 2**bits
    above = signed.kind == "i" and wrapped >= 2 ** (bits - 1)
    return wrapped - 2**bits if above else wrapped


def _decoded(text: str) -> Any:
    """Return the number in a text: NaN and infinities as JSON has them, or as xarray writes to Zarr v3."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        (number,) = struct.unpack("<d", base64.b64decode(text, validate=True))
    except (binascii.Error, struct.error):
        return text
    return number


def _bounds(
    given: Mapping[str, Any], stored: np.dtype[Any], signed: np.dtype[Any], place: Any
) -> tuple[float | int, float | int, float, float]:
    """Return the least and the greatest stored value that are valid, and the same of decoded ones.

    Bounds that are floats, of integers with a scale, are of decoded values; else they are of stored ones.
    """
    low: list[float | int] = []
    high: list[float | int] = []
    if "valid_range" in given:
        both = _numbers(given["valid_range"], "valid_range", place)
        if len(both) != 2:
            raise DataError(f"{place} has the attribute valid_range = {both}; it must be two numbers")
        low, high = both[:1], both[1:]
    for name, side in (("valid_min", low), ("valid_max", high)):
        if name in given:
            side += _numbers(given[name], name, place)
    if stored != signed:
        low, high = ([_wrapped(bound, signed) for bound in side] for side in (low, high))
    lowest, highest = max(low, default=-inf), min(high, default=inf)
    scaled = signed.kind in "iu" and any(name in given for name in SCALING)
    if scaled and any(isinstance(bound, float) and isfinite(bound) for bound in (lowest, highest)):
        return -inf, inf, float(lowest), float(highest)
    return lowest, highest, -inf, inf
