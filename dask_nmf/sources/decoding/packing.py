"""The CF conventions: numbers that are packed into integers, and values that mean that one is missing.

``value = stored * scale_factor + add_offset``. A value that equals ``_FillValue`` or ``missing_value``, or
lies outside of ``valid_range``, is missing and becomes NaN. xarray and netCDF write these attributes.
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
PIECE = 2**17  # entries that are decoded together, so that they stay in the cache of a core
ROUNDING = 2.5e-7  # share of an offset that single precision may leave of a sum that should be 0


@dataclass(frozen=True)
class Packing:
    """The way in which the numbers of an array are stored."""

    stored: np.dtype[Any]  # after ``_Unsigned`` is applied
    scale: float = 1.0
    offset: float = 0.0
    fills: tuple[float | int, ...] = ()  # stored values that are missing
    lowest: float | int = -inf  # stored values outside of these are missing
    highest: float | int = inf
    least: float = -inf  # decoded values outside of these are missing too
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

        Values are decoded in double precision. One that is below 0 by less than rounding becomes 0.
        """
        rows = max(1, PIECE // max(1, prod(block.shape[1:])))
        for first in range(0, len(block), rows):
            out[first : first + rows] = self._decode(block[first : first + rows].view(self.stored))

    def _decode(self, stored: Array) -> Array:
        values = stored.astype(np.float64)
        if self.scale != 1:
            values *= self.scale
        if self.offset != 0:
            values += self.offset
            smallest = min(abs(self.scale) / 2, ROUNDING * abs(self.offset))
            values[(values < 0) & (values > -smallest)] = 0
        values[self._is_missing(stored, values)] = np.nan
        return values

    def _is_missing(self, stored: Array, values: Array) -> Array:
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
    """Return how an array is packed, from its attributes, and log it; None if it is not packed.

    Parameters
    ----------
    stored : dtype of the array.
    place : how messages call the array.
    fill : the fill value of an array in Zarr v2, where xarray keeps ``_FillValue``. It counts if it is not 0;
        0, which Zarr writes by itself, counts where xarray wrote attributes of packing but no ``_FillValue``.

    Raises
    ------
    DataError
        If an attribute is no number, a scale is 0, or the array holds times.
    """
    relevant = {name: attributes[name] for name in ATTRIBUTES if name in attributes}
    if stored.kind not in "biuf":
        return None
    _check_units(attributes.get("units"), place)
    if fill is not None and (relevant or DIMENSIONS in attributes):
        by_xarray = len(relevant) > 0 and DIMENSIONS in attributes and "_FillValue" not in relevant
        if fill != 0 or by_xarray:
            relevant["_FillValue"] = [fill, *_as_list(relevant.get("_FillValue", []))]
    if not relevant:
        return None
    signed = _apply_unsigned(relevant.get("_Unsigned"), stored, place)
    scale, offset = (
        _one_number(relevant, name, default, place) for name, default in zip(SCALING, (1.0, 0.0), strict=True)
    )
    if scale == 0 or not isfinite(scale) or not isfinite(offset):
        raise DataError(
            f"{place} is packed with scale_factor {scale:g} and add_offset {offset:g}, which cannot "
            "be decoded; write it anew with a finite scale_factor that is not 0"
        )
    fills = {value for name in FILLS for value in _fill_values(relevant, name, stored, signed, place)}
    packing = Packing(
        signed, scale, offset, tuple(sorted(fills)), *_valid_bounds(relevant, stored, signed, place)
    )
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


def _apply_unsigned(unsigned: Any, stored: np.dtype[Any], place: Any) -> np.dtype[Any]:
    """Return the dtype that ``_Unsigned`` makes of the stored one."""
    if unsigned is None or stored.kind not in "iu":
        return stored
    said = str(unsigned).lower()
    if said not in ("true", "false"):
        raise DataError(f"{place} has the attribute _Unsigned = {unsigned!r}; it must be 'true' or 'false'")
    return np.dtype(f"{stored.byteorder}{'u' if said == 'true' else 'i'}{stored.itemsize}")


def _one_number(relevant: Mapping[str, Any], name: str, default: float, place: Any) -> float:
    if name not in relevant:
        return default
    numbers = _check_numbers(relevant[name], name, place)
    if len(numbers) != 1:
        raise DataError(f"{place} has the attribute {name} = {relevant[name]!r}; it must be one number")
    return float(numbers[0])


def _as_list(value: Any) -> list[Any]:
    """Return an attribute as a list: JSON has numbers and lists, HDF5 has arrays."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]


def _check_numbers(value: Any, name: str, place: Any) -> list[float | int]:
    numbers = _as_list(value)
    if any(isinstance(number, bool) or not isinstance(number, int | float | np.number) for number in numbers):
        raise DataError(f"{place} has the attribute {name} = {value!r}, which is no number; write V anew")
    return numbers


def _fill_values(
    relevant: Mapping[str, Any], name: str, stored: np.dtype[Any], signed: np.dtype[Any], place: Any
) -> list[float | int]:
    """Return the values, after ``_Unsigned``, that mean missing; NaN, which always does, is left out."""
    if name not in relevant:
        return []
    values = [_parse_number(value) if isinstance(value, str) else value for value in _as_list(relevant[name])]
    numbers = [number for number in _check_numbers(values, name, place) if number == number]
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


def _parse_number(text: str) -> Any:
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


def _valid_bounds(
    relevant: Mapping[str, Any], stored: np.dtype[Any], signed: np.dtype[Any], place: Any
) -> tuple[float | int, float | int, float, float]:
    """Return the least and the greatest valid value: first of stored values, then of decoded ones.

    Bounds of packed integers that are floats are bounds of decoded values; all others are of stored values.
    """
    low: list[float | int] = []
    high: list[float | int] = []
    if "valid_range" in relevant:
        both = _check_numbers(relevant["valid_range"], "valid_range", place)
        if len(both) != 2:
            raise DataError(f"{place} has the attribute valid_range = {both}; it must be two numbers")
        low, high = both[:1], both[1:]
    for name, side in (("valid_min", low), ("valid_max", high)):
        if name in relevant:
            side += _check_numbers(relevant[name], name, place)
    if stored != signed:
        low, high = ([_wrapped(bound, signed) for bound in side] for side in (low, high))
    lowest, highest = max(low, default=-inf), min(high, default=inf)
    scaled = signed.kind in "iu" and any(name in relevant for name in SCALING)
    if scaled and any(isinstance(bound, float) and isfinite(bound) for bound in (lowest, highest)):
        return -inf, inf, float(lowest), float(highest)
    return lowest, highest, -inf, inf
