"""`export`: the result of a run as a file of another kind, which appears only when it is whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dask_nmf.results.exports import arrays, hierarchies, tables
from dask_nmf.results.exports.content import Content, Format
from dask_nmf.results.exports.transformed import transformed_side
from dask_nmf.results.sides import Side, sides_of
from dask_nmf.runs.run import Run
from dask_nmf.storage import locations
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.locations import Location, locate, locate_file

FORMATS = {
    ".csv": tables.CSV,
    ".parquet": tables.PARQUET,
    ".npy": arrays.NPY,
    ".npz": arrays.NPZ,
    ".h5ad": hierarchies.H5AD,
    ".nc": hierarchies.NETCDF,
}
FACTORS = ("W", "H")
EXTRA = "pip install 'dask_nmf[export]'"  # what brings the libraries that write some of them


def export(run: str | Path, output: str | Path, what: str | None = None, overwrite: bool = False) -> None:
    """Write W and H of a run, with the names of rows and columns, to a file, which appears when it is whole.

    W and H are read in pieces of 16 MiB.

    Parameters
    ----------
    run : path or URL of a run, of a selection of ranks, or of an output of transform, whose W is written.
    output : path of a file, whose suffix says its kind. .npz, .h5ad and .nc hold W, H and the names. .csv and
        .parquet hold W, one line for each row of V, or Hᵀ, one line for each column; the first field is the
        name, or the number if there are no names. .npy holds W (m, k) or H (k, n).
    what : "W" or "H", for the kinds of files that hold one of them.
    overwrite : whether an earlier export of that kind may be replaced.

    Raises
    ------
    ValueError
        If the suffix is of no such kind, ``what`` does not fit it, the run has no result yet, or a library
        that writes such files is not installed.
    FileExistsError
        If there is something at the output that may not be replaced.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import export
    >>> result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store="exported.zarr")
    >>> export("exported.zarr", "W.csv", what="W")
    >>> len(Path("W.csv").read_text().splitlines())
    3
    """
    export_to(locate(run), locate_file(output), what, overwrite)


def export_to(run: Location, output: LocalLocation, what: str | None = None, overwrite: bool = False) -> str:
    """Write the result of a run to a file as `export` does; return what was written, in words."""
    alone = transformed_side(run)
    kind = _format_of(output.path, what) if alone is None else _format_of_w(run, output.path, what)
    content, written = _content_of(run, what) if alone is None else (alone, _w_in_words(alone))
    locations.check_apart(output, run=run)
    check = partial(
        locations.check_replaceable, output, overwrite, partial(_is_ours, kind), "an export of this kind"
    )
    try:
        with output.atomic_output(check) as path:
            kind.write(Path(path), content)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is needed to write this file and is not installed; run: {EXTRA}"
        ) from None
    return written


def _content_of(run: Location, what: str | None) -> tuple[Content | Side, str]:
    """Return what is to be written of a run, both factors or one of them, and the same in words."""
    result = Run.load_result(run)
    rows, columns = sides_of(result)
    w, h = _w_in_words(rows), f"H, {columns.rank} x {columns.size}"
    if what is None:
        return Content(result, rows, columns), f"{w}, and {h}"
    return (rows, w) if what == "W" else (columns, h)


def _w_in_words(rows: Side) -> str:
    return f"W, {rows.size} x {rows.rank}"


def _format_of_w(place: Location, path: Path, what: str | None) -> Format:
    """Return the kind of a file for an output of transform; refuse one that needs H."""
    if what == "H" or FORMATS.get(path.suffix, tables.CSV).both:
        kinds = ", ".join(suffix for suffix, kind in FORMATS.items() if not kind.both)
        raise ValueError(
            f"{place.name} is an output of transform, which has W and no H; export it to one of {kinds}, "
            "or give the run"
        )
    return _format_of(path, what or "W")


def _format_of(path: Path, what: str | None) -> Format:
    """Return the kind of a file by its suffix; refuse a factor that does not fit it."""
    kind = FORMATS.get(path.suffix)
    if kind is None:
        raise ValueError(
            f"{path.name} has no suffix of a file to export to; give one of {', '.join(FORMATS)}"
        )
    if kind.both and what is not None:
        raise ValueError(f"a {path.suffix} file holds W and H, and what is {what!r}; leave it out (--what)")
    if not kind.both and what not in FACTORS:
        raise ValueError(
            f"a {path.suffix} file holds W or H; say which, with what='W' or what='H' (--what W)"
        )
    return kind


def _is_ours(kind: Format, place: Location) -> bool:
    return place.path is not None and place.path.is_file() and kind.is_ours(place.path)
