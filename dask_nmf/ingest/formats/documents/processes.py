"""`Processes`: functions of texts, which hold Python's lock, computed by several processes.

They are started by a command of their own, and not by `multiprocessing`, which would run the main script of a
user again. Those of loky, which would not run it, outlive this process if it is killed: idle ones until a
timeout, and busy ones until their item is done, with the memory that they hold.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from dask_nmf.ingest.formats.documents import words
from dask_nmf.ingest.formats.documents.words import send
from dask_nmf.ingest.rows import map_ahead
from dask_nmf.types import T

S = TypeVar("S")
MOST = 8  # processes, each of which takes some 200 MB with scikit-learn
COMMAND = f"import sys; sys.path[:] = {{}}; from {words.__name__} import serve; serve()"


class Processes:
    """Processes that compute a function, until they are closed or this process ends.

    Parameters
    ----------
    number : of processes; 0 to compute it in this process
    """

    def __init__(self, number: int) -> None:
        # As imports take them: an empty text is the current folder, and what is no text is passed over.
        folders = [place or os.getcwd() for place in sys.path if isinstance(place, str)]
        self._all = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", COMMAND.format(folders)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # an interrupt from the terminal ends this process, which ends them
            )
            for _ in range(number)
        ]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    def map(self, function: Callable[[S], T], items: Iterable[S], size: Callable[[S], int]) -> Iterator[T]:
        """Yield a function of each item, in order; `pickle` can send the function, the items and the values.

        Parameters
        ----------
        size : of an item in bytes, about; see `map_ahead`

        Raises
        ------
        RuntimeError
            If a process has ended.
        """
        if not self._all:
            return map(function, items)
        for process in self._all:
            with suppress(BrokenPipeError):  # `_compute` says so
                send(process.stdin, (True, function))
        return map_ahead(self._compute, items, size, len(self._all))

    def _compute(self, item: Any) -> Any:
        process = self._idle.get()
        try:
            send(process.stdin, (False, item))
            value, error = pickle.load(process.stdout)  # type: ignore[arg-type]  # from a process of ours
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = process.wait()
            raise RuntimeError(
                f"a process that counts words ended with exit code {code}; if memory was short, run this on "
                "fewer processors, as with taskset -c 0"
            ) from None
        finally:
            self._idle.put(process)
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the processes."""
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]
