"""Facts of a fit in plain words: V, the model, the loss, how the fit ended, and numbers for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask_nmf.display.text import escape_control
from dask_nmf.options.settings import Settings
from dask_nmf.wording import counted

LOSSES = {
    2.0: "the squared error ‖V − W H‖²",
    1.0: "the Kullback-Leibler divergence of V from W H",
    0.0: "the Itakura-Saito divergence of V from W H",
}
SOLVERS = {
    "hals": "the best W for H and the best H for W in turn (hals)",
    "mu": "multiplicative updates of W and H (mu)",
    "sgd": "stochastic gradient steps over blocks of V (sgd)",
}
STARTS = {
    "sample": "the factors of a sample of the rows of V",
    "random": "random factors",
    "custom": "factors that were given",
}
IN_MEMORY = {
    "numpy": "a NumPy array in memory",
    "scipy.sparse": "a sparse matrix in memory",
    "dask": "a Dask array",
}
SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def number(value: float | None, digits: int = 4) -> str:
    """Return a number for people; a dash for one that is unknown."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}"


def percent(share: float, digits: int = 3) -> str:
    """Return a share as per cent."""
    return f"{100 * share:.{digits}g} %"


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(bytes_: int) -> str:
    """Return a number of bytes for people."""
    unit, name = next((pair for pair in SIZES if bytes_ >= pair[0]), (1, "bytes"))
    amount = bytes_ / unit
    return f"{amount:,.0f} {name}" if amount >= 100 else f"{amount:.3g} {name}"


def about_matrix(record: Mapping[str, Any]) -> str:
    """Return sentences about V, from the record of a result."""
    (m, n), measures = record["matrix"]["shape"], record["measures"]
    stored, cells = measures["stored"], m * n
    text = (
        f"V is {source_of(record)}: {counted(m, 'row', ',')} and "
        f"{counted(n, 'column', ',')} of {record['matrix']['dtype']}"
    )
    if 0 < stored < cells:
        known = "known" if record["settings"].get("missing") else "stored"
        text += f", of which {stored:,} entries ({percent(stored / cells)}) are {known}"
    return f"{text}. The mean of its entries is {number(measures['mean'])}."


def source_of(record: Mapping[str, Any]) -> str:
    """Return where V is: its path or URL, or the kind of object that it was."""
    source = str(record["matrix"]["source"])
    return IN_MEMORY.get(source, escape_control(source))


def about_model(settings: Settings) -> Iterator[str]:
    """Yield sentences about the options of a fit."""
    loss = LOSSES.get(settings.beta, f"the β-divergence of V from W H with β = {settings.beta:g}")
    yield (
        f"It was approximated by W H of {counted(settings.n_components, 'component')}, none of whose entries "
        f"is negative. The fit makes {loss} small, by {SOLVERS.get(settings.solver, settings.solver)}."
    )
    start = STARTS.get(settings.start, f"singular vectors of V ({settings.start})")
    several = f", the best of {settings.n_init} such starts" if settings.n_init > 1 else ""
    yield f"It began with {start}{several}, with seed {settings.random_state}."
    if any(settings.alphas):
        of_w, of_h = settings.alphas
        kind = f"{percent(settings.l1_ratio)} L1, the rest L2" if settings.l1_ratio else "L2"
        yield f"Large entries cost: the penalty of W is {of_w:g} and that of H {of_h:g} ({kind})."
    if settings.missing is not None:
        which = "NaN" if settings.missing == "nan" else "not stored"
        yield f"Entries of V that are {which} count as missing, and say nothing."
    if settings.validation_fraction:
        yield f"{percent(settings.validation_fraction)} of the entries were held out, to watch their error."
    if settings.normalize is not None:
        yield f"Each component has {settings.normalize.upper()} norm 1 in H, the heaviest one first."


def about_changes(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence about each change of the rows since a fit, from the record of its result."""
    for entry in record.get("lineage", []):
        when, source = escape_control(entry.get("when")), escape_control(entry.get("source"))
        if entry.get("kind") == "update":
            first, last = entry.get("rows", (0, 0))
            kept = ", and H was left as it was" if entry.get("keep_h") else ""
            yield f"Rows {first:,} to {last - 1:,} were added from {source} ({when}){kept}."
        else:
            count = number(entry.get("count"))
            yield f"{counted(count, 'row')} {'was' if count == '1' else 'were'} taken out ({when})."


def about_environment(environment: Mapping[str, Any]) -> str:
    """Return a sentence about the software and the workers of a fit from some pass on."""
    known = environment.get("versions")
    versions = (
        ", ".join(f"{name} {version}" for name, version in known.items()) if isinstance(known, dict) else ""
    )
    first, workers, threads = (environment.get(name, "?") for name in ("from_pass", "workers", "threads"))
    return escape_control(
        f"From pass {first} on: {counted(workers, 'worker')} with {counted(threads, 'thread')}; {versions}."
    )


def about_end(record: Mapping[str, Any], error: float | None, squared: bool) -> str:
    """Return sentences about the error of a result, and why its fit ended."""
    message = escape_control(record["message"] or "the fit has not ended yet")
    if error is None:
        return f"The fit ended: {message}."
    whole = "‖V‖²" if squared else "the divergence of V from its mean"
    explained = percent(max(1 - error**2, 0.0), 4)
    passes = counted(record["pass"], "pass", ",")
    return (
        f"After {passes} W H explains {explained} of {whole}, a relative error of {error:.6g}. "
        f"Why it ended: {message}."
    )
