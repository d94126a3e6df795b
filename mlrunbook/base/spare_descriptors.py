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
        self._lock = threading.Lock()

    def __enter__(self) -> SpareDescriptors:
        self._refill()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go(SPARES)

    def at_need(self, act: Callable[[], T]) -> T:
        """Do it; where it fails while no descriptor can be had, do it again with some of the spare ones let go."""
        try:
            return act()
        except Exception:
            if _can_be_had() or not self._let_go(AT_ONCE):
                raise
        try:
            return act()
        finally:
            self._refill()

    def _let_go(self, count: int) -> int:
        with self._lock:
            freed, self._held = self._held[:count], self._held[count:]
        for one in freed:
            os.close(one)
        return len(freed)

    def _refill(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # others were quicker: what is missing is taken next time
            while len(self._held) < SPARES:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def _can_be_had() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
