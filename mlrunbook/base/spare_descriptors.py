"""Descriptors kept for when the process has no other: a page must have its file, and a run must start, whatever used up the rest."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

SPARES = 32
AT_ONCE = 8  # one delivery: its file, the lock and the ledger; a connection and what resolves its name; or the pipes of a process

T = TypeVar("T")


class SpareDescriptors:
    """`with spares: ... spares.at_need(act)`. Thread-safe."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._lent = 0
        self._lock = threading.Lock()

    def __enter__(self) -> SpareDescriptors:
        self._take_back(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._lent -= self._lend(SPARES)

    def at_need(self, act: Callable[[], T]) -> T:
        """Do it; where it fails while no descriptor can be had, do it again with some of the spare ones let go."""
        try:
            return act()
        except Exception:
            if _can_be_had() or not (lent := self._lend(AT_ONCE)):
                raise
        try:
            return act()
        finally:
            self._take_back(lent)

    def _lend(self, count: int) -> int:
        with self._lock:
            freed, self._held = self._held[:count], self._held[count:]
            self._lent += len(freed)
            for one in freed:
                os.close(one)
            return len(freed)

    def _take_back(self, count: int) -> None:
        """As many as are neither held nor lent to others."""
        with self._lock, contextlib.suppress(OSError):  # others were quicker: what is missing is taken next time
            self._lent -= count
            while len(self._held) + self._lent < SPARES:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def _can_be_had() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
