"""How far a long change has come, told from below to whoever shows it, without either knowing the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str, int, int], None]
_told: ContextVar[Report | None] = ContextVar("mlrunbook_progress", default=None)


def report(what: str, done: int, total: int) -> None:
    """Of `what`, `done` of `total` are through. Nobody need listen."""
    if listener := _told.get():
        listener(what, done, total)


@contextmanager
def told_to(listener: Report) -> Iterator[None]:
    """Have the body's reports go to `listener`, also from the threads it hands its context to. Called often: be quick."""
    token = _told.set(listener)
    try:
        yield
    finally:
        _told.reset(token)
