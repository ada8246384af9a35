"""Validation of a run's record, which may come from anybody: it must be one that a commit could have made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from sys import float_info
from typing import Any

from dask_nmf.iteration.outcome import Outcome
from dask_nmf.runs.record.contents import SOURCES, panel_shape, settings_of
from dask_nmf.runs.record.layouts import DIMENSIONS
from dask_nmf.runs.record.states import N_W_SLOTS, first_state, is_array
from dask_nmf.runs.record.work import EXPECTED, LATER, OF_WORKER
from dask_nmf.solvers.parts.state import is_slot, leaves
from dask_nmf.storage.arrays.write_once import NAME, PATH
from dask_nmf.wording import counted

LARGEST_INTEGER = 2**53  # of the integers that both JSON and float64 hold
MEASURES = ("mean", "baseline", "stored", "empty", "unobserved_rows", "unobserved_columns")
OPTIONAL_MEASURES = ("scale", "right_unit")
NAMED = ([*DIMENSIONS], *([dimension] for dimension in DIMENSIONS))
DTYPES = ("float32", "float64")


def validate(record: dict[str, Any]) -> None:
    """Refuse a record that no commit could have made.

    Raises
    ------
    ValueError
        If a part of it is wrong. The text names the first such part.
    """
    _check_fields(record, [(name, _is_bool) for name in ("overwrites", "final", "finished")])
    _check_outcome(record)
    _check_fit(record)
    names = [
        ("pass", _or_nothing(_is_count)),
        ("layout", _or_nothing(_is_object)),
        ("previous", _or_nothing(_is_object)),
        ("result", _or_nothing(_is_object)),
        ("encoding", lambda value: type(value) is int and value in (0, 1)),
    ]
    _check_fields(record, names)
    _check_starts(record)
    if not _is_list(record.get("environments", []), _is_object):
        raise ValueError(f"environments is {_short(record['environments'])}")
    if record["pass"] is not None:
        _check_pass(record)
    elif record["finished"] or record["final"]:
        raise ValueError("it is finished and has no pass")
    if record["result"] is not None:
        _check_result(record["result"])
    elif record["finished"]:
        raise ValueError("it is finished and has no answer")


def _check_fit(part: dict[str, Any]) -> None:
    """Check the settings and the matrix of a fit, in the record or in the result that it holds."""
    _check_fields(part, [("settings", _is_object), ("matrix", _is_object)])
    matrix = [
        ("source", lambda value: isinstance(value, str)),
        ("shape", _is_shape),
        ("dtype", lambda value: value in DTYPES),
        ("transposed", _is_bool),
    ]
    noted = [("recipe", lambda value: isinstance(value, str)), ("image_shape", _is_image_shape)]
    matrix += [(name, check) for name, check in noted if name in part["matrix"]]
    _check_fields(part["matrix"], matrix)
    settings_of(part).check_rank(tuple(part["matrix"]["shape"]))
    if "labels" in part:
        _check_fields(part, [("labels", _is_object)])
        parts = [("folder", _is_folder), ("named", lambda value: value in NAMED)]
        _check_fields(part["labels"], parts)


def _is_image_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (2, 3) and all(type(size) is int for size in value)


def _check_starts(part: dict[str, Any]) -> None:
    """Check the objectives of several starts, in the record or in its result, if there are any."""
    starts = part.get("starts")
    if starts is None:
        return
    number = settings_of(part).n_init
    parts = [
        ("objectives", lambda value: _is_list(value, _or_nothing(_is_size)) and len(value) == number),
        ("kept", lambda value: _is_count(value) and value < number),
    ]
    _check_fields(part, [("starts", _is_object)])
    _check_fields(starts, parts)


def _check_result(result: dict[str, Any]) -> None:
    _check_fit(result)
    _check_starts(result)
    _check_measures(result)
    parts = [
        ("folder", _is_folder),
        ("finished", _is_bool),
        ("pass", _is_count),
        ("loss", _or_nothing(_is_size)),
        ("validation_error", _or_nothing(_is_size)),
        ("units", _is_shape),
    ]
    _check_fields(result, parts)
    optional = [
        ("lineage", lambda value: _is_list(value, _is_object)),
        ("counting_rows", _is_size),
        ("added_spans", _is_count),
        ("expected", _is_expected),
        *((name, _is_bool) for name in ("estimated", "weighs_columns", "residuals")),
    ]
    _check_fields(result, [(name, check) for name, check in optional if name in result])
    _check_work(result.get("work"))
    _check_outcome(result)
    _check_history(result)
    for unit, size in zip(result["units"], result["matrix"]["shape"], strict=True):
        if unit > size:
            raise ValueError(f"its units are {_short(result['units'])}")


def _check_work(work: Any) -> None:
    """Check the seconds of tasks and the memory of processes, if they are known."""
    if work is None:
        return
    if not _is_object(work):
        raise ValueError(f"work is {_short(work)}")
    _check_fields(work, [(name, _is_count) for name in ("planned_bytes", "client_bytes")])
    _check_fields(work, [("workers", _are_workers)])


def _are_workers(value: Any) -> bool:
    def is_worker(one: Any) -> bool:
        return _is_object(one) and {*one} | LATER == {*OF_WORKER} and all(map(_is_size, one.values()))

    return _is_list(value, is_worker)


def _is_expected(value: Any) -> bool:
    return _is_object(value) and set(value) == {*EXPECTED} and all(map(_or_nothing(_is_size), value.values()))


def _check_outcome(part: dict[str, Any]) -> None:
    """Refuse an outcome that no fit has; its message may be any text."""
    _check_fields(
        part,
        [
            ("outcome", _or_nothing(lambda value: isinstance(value, str) and value in set(Outcome))),
            ("message", _or_nothing(lambda value: isinstance(value, str))),
        ],
    )


def _check_pass(record: dict[str, Any]) -> None:
    """Check the parts that a record has from the start of a fit on."""
    _check_measures(record)
    _check_history(record)
    _check_fields(record, [("listing", _is_listing), ("layout", _is_object)])
    _check_fields(record, [("expected", _is_expected)] if "expected" in record else [])
    _check_layout(record, record["layout"])
    parts = leaves(first_state(record))
    _check_commit(record, parts)
    if record["previous"] is not None:
        _check_commit(record["previous"], parts)
        if not 0 <= record["previous"]["pass"] < record["pass"]:
            raise ValueError(f"the pass before {record['pass']} is {_short(record['previous']['pass'])}")
    elif record["commit"] is None and not record["finished"]:
        raise ValueError("it has no commit")


def _check_measures(part: dict[str, Any]) -> None:
    _check_fields(part, [("measures", _is_object)])
    measures = part["measures"]
    _check_fields(measures, [(name, _is_size) for name in MEASURES])
    _check_fields(measures, [(name, _is_unit) for name in OPTIONAL_MEASURES if name in measures])
    if not _is_unit(prod(measures.get(name, 1.0) for name in OPTIONAL_MEASURES)):
        raise ValueError("measures has units that are none")
    if set(measures) - set(OPTIONAL_MEASURES) != set(MEASURES):
        raise ValueError(f"measures has {sorted(measures)}")


def _check_history(part: dict[str, Any]) -> None:
    _check_fields(part, [("history", _is_object)])
    several = [
        ("relative_error", lambda value: _is_list(value, lambda one: one is None or _is_size(one))),
        ("seconds", lambda value: _is_list(value, _is_size)),
    ]
    _check_fields(part["history"], several)
    if {len(part["history"][name]) for name, _ in several} != {part["pass"]}:
        raise ValueError(f"history is not of {counted(part['pass'], 'pass')}")


def _check_layout(record: dict[str, Any], layout: dict[str, Any]) -> None:
    rows, columns = panel_shape(record)
    parts = [
        ("folder", _is_folder),
        ("panels", lambda value: _is_count(value) and 0 < value <= rows),
        ("pieces", lambda value: _is_count(value) and value <= columns),
        ("units", lambda value: _is_list(value, _is_count) and len(value) == 2),
    ]
    _check_fields(layout, parts)
    if not (0 < layout["units"][0] <= rows and bool(layout["pieces"]) == (0 < layout["units"][1] <= columns)):
        raise ValueError(f"its layout is {_short(layout)}")


def _check_commit(commit: dict[str, Any], parts: dict[str, Any]) -> None:
    """Check the last commit, or the one before it; ``parts`` are the `leaves` of a state of its solver."""
    arrays = {name for name, value in parts.items() if is_array(value)}
    wanted = [
        ("pass", _is_count),
        ("state", _is_object),
        ("factors", lambda value: _is_list(value, lambda one: one in arrays)),
        ("commit", _or_nothing(_is_folder)),
        ("carried", lambda value: _is_object(value) and all(map(_is_slot, value, value.values()))),
    ]
    _check_fields(commit, wanted)
    scalars = {name: value for name, value in parts.items() if name not in arrays}
    _check_fields(commit["state"], [(name, _scalar_check(name, value)) for name, value in scalars.items()])
    if unknown := set(commit["state"]) - set(scalars):
        raise ValueError(f"state has {sorted(unknown)}")


def _is_slot(slot: Any, path: Any) -> bool:
    return slot in map(str, range(N_W_SLOTS)) and isinstance(path, str) and bool(PATH.fullmatch(path))


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and bool(NAME.fullmatch(value))


def _or_nothing(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _check_fields(part: dict[str, Any], wanted: Sequence[tuple[str, Callable[[Any], bool]]]) -> None:
    for name, holds in wanted:
        if name not in part:
            raise ValueError(f"it has no {name}")
        if not holds(part[name]):
            raise ValueError(f"{name} is {_short(part[name])}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _scalar_check(name: str, default: Any) -> Callable[[Any], bool]:
    """Return a check of the values that a scalar of a state can have."""
    if is_slot(name):
        return lambda value: type(value) is int and -1 <= value < N_W_SLOTS
    if isinstance(default, tuple):
        return lambda value: _is_list(value, lambda one: _is_number(one) and one > 0)
    if isinstance(default, bool):
        return _is_bool
    if isinstance(default, int):
        return _is_count
    return lambda value: value is None or _is_number(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_listing(value: Any) -> bool:
    return _is_object(value) and all(
        name in SOURCES and (digest is None or isinstance(digest, str)) for name, digest in value.items()
    )


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_INTEGER


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= float_info.max


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_unit(value: Any) -> bool:
    return _is_number(value) and float_info.min <= value <= 1 / float_info.min


def _is_shape(value: Any) -> bool:
    return _is_list(value, lambda one: _is_count(one) and one > 0) and len(value) == 2
