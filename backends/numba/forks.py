"""Locks that a fork waits for.

A child has only the thread that forked. Were another thread inside a step or a compilation at that moment, its lock
would stay locked in the child for ever, and parameters would be half updated. So the fork waits until it is out.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_gate = threading.RLock()  # one fork, or one new lock, at a time
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Any] = []


def make_lock() -> Any:
    """A ``threading.RLock`` that forks wait for; what is done under it must not make another one."""
    lock = threading.RLock()
    with _gate:
        _locks.add(lock)
    return lock


def _before() -> None:
    _gate.acquire()
    for lock in list(_locks):
        lock.acquire()
        _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()
    _gate.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
