"""Times that are stored by the CF conventions: numbers of a unit since a moment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from dask_nmf.types import Array

SINCE = re.compile(r"(days|hours|minutes|seconds|milliseconds|microseconds|nanoseconds) since (.+)")
CODES = {"days": "D", "hours": "h", "minutes": "m", "seconds": "s"}
CODES |= {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def time_decoder(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Callable[[Array], Array] | None:
    """Return the function that decodes times from integers; None for what is no such array.

    Times of other calendars, and fractions of a unit, are left as the numbers that they are.
    """
    units = SINCE.fullmatch(str(attributes.get("units", "")))
    if units is None or dtype.kind not in "iu" or attributes.get("calendar", CALENDARS[0]) not in CALENDARS:
        return None
    unit, moment = units.groups()
    with suppress(ValueError):
        start = np.datetime64(moment)
        return lambda values: start + values.astype(np.int64).astype(f"m8[{CODES[unit]}]")
    return None
