"""The house: imports go down only, and each library has its place."""

import ast
import sys
from pathlib import Path

import pytest

import dask_nmf

PACKAGE = Path(dask_nmf.__file__).parent
FLOORS = [
    ["compiled", "durability"],
    [
        "cells",
        "draws",
        "scales",
        "keywords",
        "progress",
        "settings",
        "configuration",
        "versions",
        "renames",
        "objects",
        "errors",
        "digests",
        "chunks",
        "means",
        "text",
        "entries",
        "reflections",
        "shared_settings",
    ],
    ["nnls", "lease"],
    [
        "options",
        "client",
        "claims",
        "kernels",
        "measures",
        "gradient",
        "packing",
        "merging",
        "plan",
        "divergence",
        "locks",
        "uploads",
    ],
    [
        "ahead",
        "archives",
        "in_memory",
        "observed",
        "precise",
        "penalties",
        "ranking",
        "console",
        "tiling",
        "outputs",
        "sharing",
        "launch",
    ],
    ["sampling", "readers", "wanted", "solvers", "places"],
    ["matrix", "sgd", "beta", "kept", "tables", "generations"],
    ["passes", "reservoir", "arrays", "hdf5", "stored", "view"],
    ["sliced", "carried"],
    ["opening"],
    ["strata", "grid"],
    ["fit"],
    ["svd", "record", "sample_start", "settling"],
    ["start", "stored_answer", "cluster"],
    ["store"],
    ["resume", "project", "factors", "components"],
    ["answer", "predictions", "recommendations"],
    ["blockwise"],
    ["job", "verification"],
    ["factorise", "stream"],
    ["api", "estimator"],
    ["warmup"],
    ["cli"],
]
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}
PLACES = {  # of libraries that not every module may import
    "dask": {
        "ahead",
        "configuration",
        "client",
        "launch",
        "matrix",
        "arrays",
        "sliced",
        "opening",
        "observed",
        "precise",
        "passes",
        "strata",
        "grid",
        "fit",
        "answer",
        "blockwise",
        "job",
        "project",
        "components",
        "factors",
        "predictions",
        "recommendations",
        "factorise",
        "stream",
        "estimator",
    },
    "distributed": {"claims", "ahead", "client", "versions", "launch", "cluster", "matrix", "fit"},
    "zarr": {
        "chunks",
        "generations",
        "view",
        "stored",
        "stored_answer",
        "claims",
        "objects",
        "readers",
        "opening",
        "store",
        "project",
        "factors",
        "predictions",
        "recommendations",
        "cli",
    },
    "sklearn": {"estimator"},
    "numba": {"compiled"},
    "obstore": {"objects", "lease", "sharing"},
    "click": {"cli", "options"},
    "tqdm": {"console"},
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))
modules = pytest.mark.parametrize("module", MODULES)


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def imported(nodes: ast.AST) -> set[str]:
    """Names of modules, ours as dask_nmf.name."""
    names = set()
    for node in ast.walk(nodes):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = node.module == "dask_nmf"
            names |= {f"dask_nmf.{alias.name}" for alias in node.names} if inside else {str(node.module)}
    return names


def test_every_module_has_a_floor() -> None:
    assert sorted(FLOOR) == MODULES


@modules
def test_imports_go_down(module: str) -> None:
    ours = {name.split(".")[1] for name in imported(tree(module)) if name.startswith("dask_nmf.")}
    assert {name for name in ours if FLOOR.get(name, -1) >= FLOOR[module]} == set()


@modules
def test_libraries_keep_to_their_places(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(tree(module))}
    assert {name for name in roots & set(PLACES) if module not in PLACES[name]} == set()


@modules
def test_no_import_hides_in_a_function(module: str) -> None:
    functions = [
        node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert module == "cli" or not any(imported(function) for function in functions)


def test_dependencies_are_declared() -> None:
    declared = (PACKAGE.parent / "pyproject.toml").read_text()
    roots = {name.split(".")[0] for module in MODULES for name in imported(tree(module))}
    names = {"sklearn": "scikit-learn"}
    ours = roots - sys.stdlib_module_names - {"dask_nmf", "__future__"}
    assert {name for name in ours if f'"{names.get(name, name)}' not in declared} == set()
