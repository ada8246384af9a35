"""Settings of the process that several fits may need at the same time, and the cores that it may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import RLock, get_ident
from typing import Any

from dask import system

CPU_COUNT: int = system.CPU_COUNT  # as many as its affinity and the quota of its container allow


class SharedSetting:
    """A process-wide setting that its first user makes and its last user undoes, whatever the order.

    If each fit set and restored such a setting by itself, two fits could restore each other's value.

    Parameters
    ----------
    make : returns a context in which the setting holds.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._users: dict[object, int] = {}  # each user with its thread
        self._made: AbstractContextManager[Any] | None = None
        # Reentrant: garbage collection in a thread that has the lock may end the block of a user.
        self._lock = RLock()
        os.register_at_fork(after_in_child=self._forget_other_threads)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the setting for the duration of the block."""
        user = object()
        try:
            self._enter(user)
            yield
        finally:
            self._leave(user)  # also if an interrupt ends `_enter`

    def _enter(self, user: object) -> None:
        with self._lock:
            self._users[user] = get_ident()
            if len(self._users) == 1:
                self._undo()  # a forked process may have the setting of a thread of its parent
                made = self._make()
                made.__enter__()
                self._made = made

    def _leave(self, user: object) -> None:
        with self._lock:
            if self._users.pop(user, None) is not None and not self._users:
                self._undo()

    def _undo(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.__exit__(None, None, None)

    def _forget_other_threads(self) -> None:
        """Remove, in a forked process, the users whose threads only its parent has.

        The next user undoes their setting. This method does not, because that may need threads, which cannot
        start yet.
        """
        self._lock = RLock()
        own = get_ident()
        self._users = {user: thread for user, thread in self._users.items() if thread == own}
