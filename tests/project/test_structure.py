"""The house: which wing may import which, how large its rooms are, and where each library has its place."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.wings import (
    FILES,
    FOLDERS,
    GROUND,
    MAY_IMPORT,
    PACKAGE,
    imported,
    loaded,
    loaded_files,
    ours,
    tree,
    wing,
)

LIBRARIES = {  # that not every wing may import
    "dask": {
        *("cluster", "sources", "execution", "quality", "fitting", "inference", "online", "estimator"),
        *("forecasts", "process_settings"),
    },
    "distributed": {"cluster", "sources", "execution"},
    "zarr": {"ingest", "selection", "results", "storage", "sources", "runs", "inference", "cli"},
    "numba": {"kernels"},
    "sklearn": {"estimator"},
    "obstore": {"storage"},
    "click": {"cli"},
    "tqdm": {"display"},
}
LAZY = (
    "cli.inputs",
    "cli.models",
    "cli.apply",
    "cli.results",
    "cli.setup.warm_up",
    "cli.connection",
    "cli.process.exit_codes",
)  # so that --help is quick
ROOMS = 7  # files of a folder, and folders in it
LINES = 300  # of a file
PARAMETERS = 6  # of a function
SPELLED_OUT = {  # options, one parameter each: for people, or as click gives them
    "report.writing.write",
    "api.nmf", "api.select_rank", "cli.models.select.command", "cli.inputs.convert.command",
    "ingest.conversion.convert", "estimator.nmf.__init__", "inference.recommend.recommend",
    "inference.predict.predict", "inference.transform.transform",
    "forecasts.door.plan", "cli.inputs.plan.command",
    "cli.models.fit.command", "cli.apply.transform.command", "cli.apply.recommend.command",
    "cli.models.update.command",
}  # fmt: skip
ON_WORKERS = (  # files whose functions and objects tasks unpickle
    "execution.graphs", "execution.tasks", "solvers", "fitting.starts.worker_tasks", "fitting.components",
    "inference.w_solver", "online.stream_solvers", "sources.matrix", "sources.dense",
    "sources.formats.stored", "sources.formats.objects.sliced", "storage", "runs.run",
)  # fmt: skip
DOORS = {  # what people call with the text of a path or URL
    "api", "forecasts.door", "cli.inputs.plan", "estimator.nmf", "estimator.inputs", "estimator.requests",
    "cli.inputs.convert", "cli.models.fit", "cli.models.select", "cli.apply.transform", "cli.apply.predict",
    "cli.apply.recommend", "cli.results.info", "runs.run", "report.writing",
    "inference.transform", "ingest.conversion", "ingest.expansion", "sources.registry",
    "cli.results.compare", "cli.results.verify", "cli.results.top",
    "cli.results.export", "results.exports.export", "results.comparison", "results.verification",
    "cli.models.update", "updates.update", "cli.models.forget", "updates.forget",
}  # fmt: skip
PARSERS = {f"dask_nmf.storage.locations.{name}" for name in ("locate", "locate_file", "located")}
folders = pytest.mark.parametrize(
    "folder", FOLDERS[1:], ids=lambda path: path.relative_to(PACKAGE).as_posix()
)


def test_every_wing_has_its_place() -> None:
    assert {wing(file) for file in FILES} == {*MAY_IMPORT, *GROUND}


def test_a_wing_imports_only_what_it_may() -> None:
    def may_import(file: str) -> set[str]:
        return MAY_IMPORT.get(wing(file), set()) | GROUND | {wing(file)}

    pairs = {(file, other) for file in FILES for other in ours(file)}
    assert {(file, other) for file, other in pairs if wing(other) not in may_import(file)} == set()


def test_no_imports_run_in_a_circle() -> None:
    TopologicalSorter({file: ours(file) for file in FILES}).prepare()


def test_libraries_keep_to_their_places() -> None:
    roots = {(file, name.partition(".")[0]) for file in FILES for name in imported(tree(file))}
    known = {(file, name) for file, name in roots if name in LIBRARIES}
    assert {(file, name) for file, name in known if wing(file) not in LIBRARIES[name]} == set()


def test_what_workers_import_does_not_import_dask_array() -> None:
    """With it come pandas, pyarrow and xarray, about 95 MiB: see ``tests/real/test_worker_imports.py``."""
    files = loaded_files({file for file in FILES if file.startswith(ON_WORKERS)})
    assert len(files) > 80
    assert {file for file in files if any(name.startswith("dask.array") for name in loaded(file))} == set()


def test_locations_are_parsed_at_the_doors_only() -> None:
    assert {file for file in FILES if PARSERS & set(imported(tree(file)))} == DOORS


def test_no_import_hides_in_a_function() -> None:
    functions = [
        (file, node)
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not file.startswith(LAZY)
    ]
    assert {(file, function.name) for file, function in functions if any(imported(function))} == set()


@folders
def test_a_folder_has_few_rooms_and_says_what_it_is_for(folder: Path) -> None:
    assert sum(path.suffix == ".py" and path.stem != "__init__" for path in folder.iterdir()) <= ROOMS
    purpose = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert purpose
    assert "\n" not in purpose


def test_a_file_is_short() -> None:
    lines = {file: len(path.read_text().splitlines()) for file, path in FILES.items()}
    assert {file: number for file, number in lines.items() if number > LINES} == {}


def test_functions_take_few_parameters() -> None:
    def parameters(node: ast.FunctionDef) -> list[str]:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return [argument.arg for argument in given if argument.arg not in ("self", "cls")]

    functions = {
        (f"{file}.{node.name}", len(parameters(node)))
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef)
        and not any("compiled" in ast.dump(decorator) for decorator in node.decorator_list)
    }
    assert {name for name, number in functions if number > PARAMETERS} <= SPELLED_OUT


def test_dependencies_are_declared() -> None:
    declared = (PACKAGE.parent / "pyproject.toml").read_text()
    roots = {name.partition(".")[0] for file in FILES for name in imported(tree(file))}
    names = {"sklearn": "scikit-learn"}
    others = roots - sys.stdlib_module_names - {"dask_nmf", "__future__"}
    assert {name for name in others if f'"{names.get(name, name)}' not in declared} == set()
