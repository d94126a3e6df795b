"""Descriptors kept for when the process has no other."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator

import pytest

from mlrunbook.base.spare_descriptors import AT_ONCE, SPARES, SpareDescriptors


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(name) for name in os.listdir("/proc/self/fd")) + 5
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_some(and_then: Callable[[], int] = lambda: 0) -> int:
    mine = []
    try:
        for _ in range(AT_ONCE):
            mine.append(os.open(os.devnull, os.O_RDONLY))
        return len(mine) + and_then()
    finally:
        for one in mine:
            os.close(one)


def test_with_none_left_some_at_once_have_what_they_need_again_and_again() -> None:
    with SpareDescriptors() as spares, none_left():
        with pytest.raises(OSError, match="Too many open files"):
            open_some()
        for _ in range(SPARES):
            assert spares.at_need(lambda: open_some(and_then=lambda: spares.at_need(open_some))) == 2 * AT_ONCE


def test_they_are_there_again_for_who_starts_again() -> None:
    spares = SpareDescriptors()
    for _ in range(2):
        with spares, none_left():
            assert spares.at_need(open_some) == AT_ONCE


def test_who_fails_for_another_reason_is_not_tried_again() -> None:
    tried = []

    def fails() -> None:
        tried.append(1)
        raise ValueError

    with SpareDescriptors() as spares, pytest.raises(ValueError):  # noqa: PT011
        spares.at_need(fails)
    assert len(tried) == 1


def test_they_are_given_back_at_the_end() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with SpareDescriptors():
        assert len(os.listdir("/proc/self/fd")) == before + SPARES
    assert len(os.listdir("/proc/self/fd")) == before
