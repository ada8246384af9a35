"""Threads that do the same at once."""

import threading
from collections.abc import Callable


def run_in_threads(function: Callable[[], None], count: int) -> None:
    """Call a function in so many threads at once, and wait until all have ended."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
