"""Compiled functions and their cache: no fault of a file or folder reaches a fit."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numba
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.extending import is_jitted
from support.command import COMMAND

import dask_nmf
from dask_nmf.kernels import compiled
from dask_nmf.kernels.compiled import NotKept

SOURCE = """
from dask_nmf.kernels.compiled import compiled

@compiled()
def twice(x):
    return 2 * x

@compiled()
def thrice(x):
    return 3 * x
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Import a module with two compiled functions, as another process would: nothing is in memory yet."""
    monkeypatch.setattr(compiled, "_warned", Lock())
    monkeypatch.setattr(compiled, "functions", [])
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "two.py").write_text(SOURCE)

    def load() -> Any:
        spec = importlib.util.spec_from_file_location("two", tmp_path / "two.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return load


def compiles(function: Any) -> bool:
    """Whether a function that returns twice its argument is compiled at its first call, not read."""
    before = function.stats.cache_misses.total()
    assert function(21) == 42
    return bool(function.stats.cache_misses.total() > before)


def refuse(*given: Any, **more: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def spoil_all_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each folder that numba may take be a file: the rights of root do not help."""
    (tmp_path / "cache").touch()
    (tmp_path / "__pycache__").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_code_is_read_by_the_next_process(module: Callable[[], Any], tmp_path: Path) -> None:
    assert compiles(module().twice)
    assert not compiles(module().twice)
    assert compiled.own_folder() == tmp_path / "cache"


def test_without_a_folder_functions_are_compiled_and_one_warning_says_so(
    module: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_all_folders(tmp_path, monkeypatch)
    found = module()
    with pytest.warns(NotKept, match="NUMBA_CACHE_DIR") as told:
        assert (found.twice(2), found.thrice(2)) == (4, 6)
    assert len(told) == 1
    with pytest.raises(OSError, match=f"NUMBA_CACHE_DIR is {tmp_path / 'cache'}, which cannot be written"):
        compiled.own_folder()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    with pytest.raises(OSError, match="no folder"):
        compiled.own_folder()


def test_a_worker_says_it_in_its_log(
    module: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil_all_folders(tmp_path, monkeypatch)
    monkeypatch.setattr(compiled, "parent_process", lambda: "the nanny")
    found = module()
    with caplog.at_level("INFO", compiled.worker_log.name):
        assert (found.twice(2), found.thrice(2)) == (4, 6)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "NUMBA_CACHE_DIR" in caplog.text


@pytest.mark.parametrize("given", [True, False], ids=["given", "beside the module"])
def test_a_cache_that_was_filled_when_an_image_was_built_is_read(
    module: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    if not given:
        monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert compiles(module().twice)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # by which numba tries what it may write
    found = module()
    assert not compiles(found.twice)
    with pytest.warns(NotKept, match="NUMBA_CACHE_DIR"):
        assert found.thrice(2) == 6  # the image lacks it


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"text"])
def test_a_damaged_file_is_replaced(
    module: Callable[[], Any], tmp_path: Path, kind: str, content: bytes
) -> None:
    assert compiles(module().twice)
    (damaged,) = (tmp_path / "cache").rglob(f"*.{kind}")
    damaged.write_bytes(content)
    assert compiles(module().twice)
    assert not compiles(module().twice)


def test_code_of_another_variant_is_replaced(module: Callable[[], Any], tmp_path: Path) -> None:
    """Two processes that compile variants of one function at the same moment write both to the same file."""
    function = module().twice
    assert (function(21), function(1.5)) == (42, 3.0)
    one, other = sorted((tmp_path / "cache").rglob("*.nbc"))
    shutil.copy(one, other)
    for compiles in (True, False):
        function = module().twice
        assert (function(21), function(1.5)) == (42, 3.0)
        assert bool(function.stats.cache_misses) is compiles


def test_a_full_disk_is_a_warning(module: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IndexDataCacheFile, "save", refuse)
    with pytest.warns(NotKept, match="Read-only file system"):
        assert compiles(module().twice)


SCRIPT = """
import numpy as np
from dask_nmf.kernels import divergence, gradient, least_squares
from dask_nmf.inference.topk import kernel
from dask_nmf.kernels.summary import block_summary
print(block_summary.summarize_block(np.eye(2)).total)
"""


def test_the_package_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    copy = tmp_path / "dask_nmf"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(dask_nmf.__file__).parent, copy, ignore=ignored)
    for folder in {path.parent for path in copy.rglob("*.py")}:
        (folder / "__pycache__").touch()
    unwritable = {name: str(copy / "__pycache__") for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | unwritable | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "2.0\n", done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1


def callees(function: Any) -> list[Any]:
    """Return the compiled functions that a compiled one calls, by their names or as attributes of modules."""
    names, there = function.py_func.__code__.co_names, function.py_func.__globals__
    spaces = [there, *(vars(each) for each in there.values() if isinstance(each, ModuleType))]
    used = [space[name] for space in spaces for name in names if name in space]
    return [each for each in used if is_jitted(each) and each in compiled.functions]


def test_compiled_functions_are_inlined_where_another_one_calls_them() -> None:
    """Each caller has its own copy, with last digits of its own: that which was loaded first would run."""
    for found in pkgutil.walk_packages(dask_nmf.__path__, "dask_nmf."):
        importlib.import_module(found.name)
    called = [callee for function in compiled.functions for callee in callees(function)]
    assert len(set(called)) > 30
    assert [each.py_func.__name__ for each in called if not each.targetoptions["forceinline"]] == []


PROBLEMS = """
import hashlib, sys
import numpy as np
from dask_nmf.kernels import compiled
from dask_nmf.kernels.linalg import householder, nnls
compiled.read_own_folder_only()
random, results = np.random.default_rng(0), hashlib.sha256()
if sys.argv[1:]:
    householder.triangularise(random.random((4, 6)), np.ones(3, bool), np.zeros(3, int))
for seed in range(5):
    random = np.random.default_rng(seed)
    v, h, x = random.random((300, 40)), random.random((6, 40)), random.random((300, 6))
    factors = householder.pivoted_qr(h)
    nnls.solve_qr(x, factors.upper, v @ factors.basis, 0.01)
    results.update(x)
print(results.hexdigest(), compiled.counts()[0] > 0)
"""


@pytest.mark.real
@pytest.mark.timeout(1800)  # it compiles everything
def test_results_do_not_depend_on_the_cache(tmp_path: Path) -> None:
    """It is empty, full, full with a callee that is loaded first, or has callees but not their callers."""

    def solve(*arguments: str) -> list[str]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROBLEMS, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    result, compiles = solve()
    assert compiles == "True"
    assert solve() == [result, "False"]
    assert solve("callee") == [result, "False"]
    for index in [*tmp_path.rglob("nnls.*.nbi"), *tmp_path.rglob("active_set.*.nbi")]:
        index.unlink()
    assert solve() == [result, "True"]


FITS = """
import numpy as np, scipy.sparse
from dask_nmf import NMF, nmf
from dask_nmf.kernels import compiled
compiled.read_own_folder_only()
rng = np.random.default_rng(1)
V = rng.gamma(1, size=(90, 30)) * (rng.random((90, 30)) < .5) + (np.arange(30) == 3)
for dtype in "float32", "float64":
    v = V.astype(dtype)
    for source in v, np.asfortranarray(v), v.T.copy(), scipy.sparse.csr_array(v), scipy.sparse.csc_array(v):
        for loss in "frobenius", "kullback-leibler":
            for solver in "hals", "mu":
                weights = np.ones(source.shape)
                for more in {}, {"alpha_W": .1}, {"validation_fraction": .1}, {"weights": weights}:
                    nmf(source, 3, beta_loss=loss, solver=solver, max_iter=2, **more)
        nmf(source, 3, solver="sgd", max_iter=2)
    nmf(v + 1, 3, solver="mu", beta_loss=0.5, max_iter=2)
    NMF(3, max_iter=3).fit_transform(v)
print(compiled.counts()[0])
"""


@pytest.mark.real
@pytest.mark.timeout(1800)  # it compiles everything
def test_nothing_is_compiled_after_a_warm_up(tmp_path: Path) -> None:
    cached = {"env": os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, "cwd": tmp_path}
    told = subprocess.run([*COMMAND, "warm-up"], capture_output=True, text=True, check=True, **cached)  # type: ignore[call-overload]
    assert "variants of functions compiled" in told.stdout
    assert told.stdout.startswith(str(tmp_path / "cache"))
    told = subprocess.run(  # type: ignore[call-overload]
        [sys.executable, "-W", "ignore", "-c", FITS], capture_output=True, text=True, check=True, **cached
    )
    assert told.stdout == "0\n"
