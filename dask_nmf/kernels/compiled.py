"""Compilation of functions by numba, cached on disk where that is possible.

numba raises an error if it finds no folder that it can write, or if a file of its cache cannot be read or
written. Both are common in containers, and neither is a reason to end a fit: the function is then compiled
anew. numba also ignores a cache that it cannot write, such as one that was filled when an image was built;
this module reads it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    NullCache,
    UserProvidedCacheLocator,
)
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature
from numba.extending import is_jitted

# Processes that Dask started warn in the log of a worker: a terminal would show the line once for each.
worker_log = logging.getLogger("distributed.worker.dask_nmf")

NO_FOLDER = "no folder for compiled code can be written"
CURE = "; set NUMBA_CACHE_DIR to a folder that can"

Function = TypeVar("Function", bound=Callable[..., Any])


# A fork waits until no other thread compiles: otherwise the forked process would wait for ever.
os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=global_compiler_lock.release,
)


class NotKept(UserWarning):
    """A warning that compiled code could not be written to disk."""


functions: list[Any] = []  # all functions that `compiled` has decorated
_warned = Lock()  # taken by the first warning of this process, and never released


def compiled(fastmath: set[str] | None = None, inlined: bool = False) -> Callable[[Function], Function]:
    """Return a decorator that lets numba compile a function at its first call, to run without the GIL.

    Parameters
    ----------
    fastmath : what LLVM may do to floating-point operations, for example "contract" and "reassoc".
    inlined : whether callers get the code of the function instead of a call. Each function that another one
        calls needs it. The machine code of a caller otherwise has a copy of the function, with last digits
        of its own since it was optimised once more, and the copy that a process loads first serves all
        callers: results would depend on which functions were in the cache, and on the order of calls.
    """

    def decorate(function: Function) -> Function:
        dispatcher = numba.njit(nogil=True, fastmath=fastmath or False, forceinline=inlined)(function)
        if is_jitted(dispatcher):  # false with NUMBA_DISABLE_JIT
            dispatcher._cache = Cache(function)
            functions.append(dispatcher)
        return dispatcher  # type: ignore[no-any-return]

    return decorate


def own_folder() -> Path:
    """Return the folder in which this process keeps compiled code, a subfolder for each folder of modules.

    Raises
    ------
    OSError
        If no folder can be written, or the one that NUMBA_CACHE_DIR names cannot be.
    ValueError
        If nothing is compiled, because NUMBA_DISABLE_JIT is set.
    """
    if not functions:
        raise ValueError("NUMBA_DISABLE_JIT is set, so that nothing is compiled; unset it")
    given = numba.config.CACHE_DIR
    found = {function._cache.cache_path for function in functions}
    if given and (None in found or {Path(path).parent for path in found} != {Path(given)}):
        raise OSError(f"NUMBA_CACHE_DIR is {given}, which cannot be written; give a folder that can")
    if None in found:
        raise OSError(NO_FOLDER + CURE)
    return Path(given or os.path.commonpath(found))


def read_own_folder_only() -> None:
    """Ignore the code in other folders, so that all of it is compiled into the own one."""
    for function in functions:
        function._cache.places = [function._cache.own]


def counts() -> tuple[int, int]:
    """Return how many function variants this process has compiled, and how many it has read from disk."""
    stats = [function.stats for function in functions]
    return sum(each.cache_misses.total() for each in stats), sum(each.cache_hits.total() for each in stats)


class _Readable:
    """A locator of a folder to read from, whether or not it can be written."""

    def ensure_cache_path(self) -> None: ...


class _Given(_Readable, UserProvidedCacheLocator):  # type: ignore[misc]
    """The locator of the folder that NUMBA_CACHE_DIR names, if it is set."""


class _Installed(_Readable, InTreeCacheLocator):  # type: ignore[misc]
    """The locator of the folder ``__pycache__`` beside the module."""


def _reading(locator: type) -> type:
    """Return numba's cache class for the folder that a locator finds."""
    implementation = type("Implementation", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    return type("ReadOnlyCache", (FunctionCache,), {"_impl_class": implementation})


READ_ONLY = [_reading(_Given), _reading(_Installed)]


class Cache(NullCache):  # type: ignore[misc]
    """The machine code of one function on disk: read from any folder, written where numba may write.

    No error of a file reaches the caller: code that cannot be read is compiled, and code that cannot be
    written causes one warning of this process.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.own = _opened(FunctionCache, function)
        found = [self.own, *(_opened(kind, function) for kind in READ_ONLY)]
        self.places = [cache for cache in found if cache is not None]

    @property
    def cache_path(self) -> str | None:
        """The folder to which code is written, or None."""
        return None if self.own is None else str(self.own.cache_path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for a signature, or None if no folder has it.

        numba gives one file to two signatures if two processes write them at the same moment.
        """
        arguments, _ = normalize_signature(sig)
        for cache in self.places:
            with suppress(Exception):  # a file that is damaged, of another user, or of another numba
                found = cache.load_overload(sig, target_context)
                if found is not None and found.signature.args == arguments:
                    return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the code for a signature, or warn."""
        if self.own is None:
            _warn(NO_FOLDER)
            return
        try:
            try:
                self.own.save_overload(sig, data)
            except OSError:
                raise
            except Exception:  # pickle may raise anything on a damaged index
                self.own.flush()
                self.own.save_overload(sig, data)
        except OSError as error:
            _warn(f"compiled code cannot be written to {self.cache_path} ({error.strerror or error})")

    def flush(self) -> None:
        """Discard the code of all signatures."""
        if self.own is not None:
            self.own.flush()


def _opened(kind: Any, function: Callable[..., Any]) -> Any:
    """Return numba's cache of a function, or None if numba finds no folder."""
    try:
        return kind(function)
    except (RuntimeError, OSError):
        return None


def _warn(why: str) -> None:
    """Warn once in this process that code is not kept: as a warning, or in the log of a worker."""
    if not _warned.acquire(blocking=False):
        return
    line = f"{why}, so that every new process compiles for some seconds{CURE}"
    if parent_process() is None:
        warnings.warn(line, NotKept, stacklevel=2)
    else:
        worker_log.info(line)
