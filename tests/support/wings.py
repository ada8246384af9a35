"""The wings of the package, and the wings that each may import."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import dask_nmf

PACKAGE = Path(dask_nmf.__file__).parent
GROUND = {"_version", "errors", "options", "process_settings", "progress", "rng", "types", "wording"}
FACES = {"__init__", "api", "anndata", "estimator"}
MAY_IMPORT = {  # the wings that a wing may import, besides the ground, which every wing may import
    "options": set[str](),
    "kernels": set[str](),
    "planning": {"kernels"},
    "storage": set[str](),
    "cluster": {"planning", "storage"},
    "display": {"cluster"},
    "sources": {"kernels", "planning", "storage", "cluster"},
    "solvers": {"kernels"},
    "execution": {"kernels", "planning", "cluster", "sources", "solvers"},
    "quality": {"kernels", "cluster"},
    "iteration": {"kernels", "solvers"},
    "plots": {"display", "kernels", "quality", "sources"},
    "runs": {
        "kernels",
        "planning",
        "storage",
        "cluster",
        "display",
        "sources",
        "solvers",
        "execution",
        "iteration",
    },
}
MAY_IMPORT["fitting"] = {*MAY_IMPORT, "runs"}
MAY_IMPORT["inference"] = {*MAY_IMPORT, "fitting"}
MAY_IMPORT["online"] = {*MAY_IMPORT, "inference"}
MAY_IMPORT["selection"] = {*MAY_IMPORT} - {"inference", "online"}
MAY_IMPORT["forecasts"] = {*MAY_IMPORT} - {"inference", "online"}
MAY_IMPORT["ingest"] = {"kernels", "planning", "storage", "cluster", "display", "sources"}
MAY_IMPORT["api"] = {*MAY_IMPORT} - {"inference", "online", "forecasts", "ingest", "report"}
MAY_IMPORT["estimator"] = {*MAY_IMPORT} - {"api", "forecasts", "ingest", "report"}
MAY_IMPORT["results"] = {
    "display",
    "kernels",
    "storage",
    "sources",
    "iteration",
    "quality",
    "runs",
    "fitting",
    "plots",
}
MAY_IMPORT["report"] = MAY_IMPORT["results"] | {"selection", "results", "display"}
MAY_IMPORT["updates"] = {*MAY_IMPORT["online"]} - {"inference"}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
MAY_IMPORT["anndata"] = {"api", "fitting", "inference", "planning", "sources"}
WINGS = [wing for wing in MAY_IMPORT if wing not in {"api", "anndata", *GROUND}]  # folders above the ground
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
FILES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


@cache
def tree(file: str) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(FILES[file].read_text())


def imported(nodes: ast.AST) -> Iterator[str]:
    """Yield the names of imported modules, and of what is imported from them as if that were modules too."""
    for node in ast.walk(nodes):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded(file: str) -> set[str]:
    """Return the names that are imported when a file is; those in conditions are for type checkers."""
    return {
        name
        for statement in tree(file).body
        if not isinstance(statement, ast.If)
        for name in imported(statement)
    }


def loaded_files(files: set[str]) -> set[str]:
    """Return the files of this package that are loaded with some of its files, and these."""
    found: set[str] = set()
    while files - found:
        found |= files
        files = {other for file in files for other in _files_of(loaded(file))}
    return found


def ours(file: str) -> set[str]:
    """Return the files of this package that a file imports, as dotted names below the package."""
    return _files_of(imported(tree(file)))


def _files_of(names: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        if name.startswith("dask_nmf."):
            inside = name.removeprefix("dask_nmf.")
            found |= {inside, inside.rpartition(".")[0]} & set(FILES)
    return found


def wing(file: str) -> str:
    """Return the wing, or the face or ground module, of a file."""
    return file.partition(".")[0]
