"""Threads of our own; and what a fork needs of them.

Things are finished before a fork, held still during it, and made anew in the child.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

_log = logging.getLogger(__name__)
_Calls = list["weakref.WeakMethod[Callable[[], None]]"]
_finish: _Calls = []
_shut: _Calls = []
_hold: _Calls = []
_release: _Calls = []
_renew: _Calls = []
_abandoned: list[Any] = []


def started(run: Callable[..., None], *arguments: Any, name: str) -> threading.Thread | None:
    """Start a thread that doesn't keep the program alive; None where no more can be had."""
    thread = threading.Thread(target=run, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _log.warning("the thread %s can't be started: %s", name, error)
        return None
    return thread


def finish_before_fork(finish: Callable[[], None]) -> None:
    """Call a bound method before every fork, for as long as its object lives."""
    _remember(_finish, finish)


def hold_during_fork(hold: Callable[[], None], release: Callable[[], None]) -> None:
    """Call a bound method when all is finished, and another in the parent after the fork.

    Between them no thread may be where it holds a lock that the child would inherit for ever.
    """
    _remember(_hold, hold)
    _remember(_release, release)


def renew_after_fork(renew: Callable[[], None]) -> None:
    """Call a bound method in every forked child, for as long as its object lives."""
    _remember(_renew, renew)


class Slots:
    """A number of places, each for one thread: a semaphore as cheap as a lock."""

    def __init__(self, number: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)

    def acquire(self, timeout: float = -1) -> bool:
        """Take a place; False where none was free for so many seconds, if any are given."""
        try:
            self._free.get(timeout=None if timeout < 0 else timeout)
        except Empty:
            return False
        return True

    def release(self) -> None:
        """Give a place back."""
        self._free.put(None)


class Gate:
    """A lock around what must not be halfway when the process forks.

    Gates are shut before anything else is held: what was made inside one is held then, too.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._renew()
        _remember(_shut, self._hold)
        _remember(_release, self._release)
        renew_after_fork(self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _hold(self) -> None:
        self._is_held = self._lock.acquire(timeout=self._most_s)

    def _release(self) -> None:
        if self._is_held:
            self._lock.release()
            self._is_held = False

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._is_held = False


def abandon(belongings: Any) -> None:
    """Keep what is the parent's from being closed in the child when nothing refers to it."""
    _abandoned.append(belongings)


def _remember(calls: _Calls, method: Callable[[], None]) -> None:
    calls[:] = [known for known in calls if known() is not None]
    calls.append(weakref.WeakMethod(method))


def _call(*phases: _Calls) -> None:
    for calls in phases:
        for known in list(calls):
            method = known()
            if method is not None:
                method()


os.register_at_fork(
    before=lambda: _call(_finish, _shut, _hold),
    after_in_parent=lambda: _call(_release),
    after_in_child=lambda: _call(_renew),
)
