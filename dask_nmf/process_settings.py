"""Settings of the whole process that several fits may need at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, get_ident
from typing import Any


class SharedSetting:
    """A setting that its first user makes and its last user undoes, in whatever order they end.

    Two fits that each set and restored a setting of the process would restore each other's value.

    Parameters
    ----------
    make : returns a context in which the setting holds.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._users: dict[object, int] = {}  # the thread of each
        self._made: AbstractContextManager[Any] | None = None
        self._lock = Lock()
        os.register_at_fork(after_in_child=self._forget_other_threads)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Return a context in which the setting holds."""
        user = object()
        self._enter(user)
        try:
            yield
        finally:
            self._leave(user)

    def _enter(self, user: object) -> None:
        with self._lock:
            if not self._users:
                self._undo()  # in a forked process: what a thread of its parent had made
                made = self._make()
                made.__enter__()
                self._made = made
            self._users[user] = get_ident()

    def _leave(self, user: object) -> None:
        with self._lock:
            self._users.pop(user, None)
            if not self._users:
                self._undo()

    def _undo(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.__exit__(None, None, None)

    def _forget_other_threads(self) -> None:
        """Go on, in a forked process, without the users that only its parent has.

        The next user there undoes what they made: it may take threads, which cannot begin yet.
        """
        self._lock = Lock()
        own = get_ident()
        self._users = {user: thread for user, thread in self._users.items() if thread == own}
