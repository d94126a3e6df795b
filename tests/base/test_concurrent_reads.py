"""Several sources at once."""

from __future__ import annotations

import threading

from mlrunbook.base.concurrent_reads import AT_ONCE, read_all
from mlrunbook.domain.errors import NotFound, Refused, Transient


def test_they_are_read_at_the_same_time_and_told_in_the_order_they_were_asked_in() -> None:
    together = threading.Barrier(AT_ONCE, timeout=120)

    def read(i: int) -> int:
        together.wait()
        return i

    found = read_all({f"source {i}": lambda i=i: read(i) for i in range(AT_ONCE)}, within_s=20)  # type: ignore[misc]
    assert found == {f"source {i}": i for i in range(AT_ONCE)}
    assert list(found) == [f"source {i}" for i in range(AT_ONCE)]


def test_one_that_does_not_answer_in_time_holds_nobody_up() -> None:
    answer = threading.Event()
    try:
        found = read_all({"hung": answer.wait, "well": lambda: "here"}, within_s=0.05)
    finally:
        answer.set()
    assert isinstance(found["hung"], Transient)
    assert (str(found["hung"]), found["well"]) == ("no answer within 0.05 s", "here")


def test_an_error_is_an_answer_and_takes_no_other_source_along() -> None:
    def fails(error: Exception) -> None:
        raise error

    sources = {"gone": lambda: fails(NotFound("not here")), "wrong": lambda: fails(ZeroDivisionError()), "well": lambda: "here"}
    found = read_all(sources, within_s=20)
    assert isinstance(found["gone"], NotFound)
    assert isinstance(found["wrong"], Refused)
    assert found["well"] == "here"
