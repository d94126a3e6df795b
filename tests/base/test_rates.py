"""How often somebody may come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.base import rates
from mlrunbook.base.rates import Rate


def test_a_minutes_worth_may_come_at_once_and_who_waits_as_told_may_come_again() -> None:
    now = [0.0]
    rate = Rate(2, clock=lambda: now[0])
    assert [rate.wait_s("a"), rate.wait_s("a"), rate.wait_s("a")] == [None, None, 30.0]
    assert rate.wait_s("b") is None, "others do not wait for it"
    now[0] = 29.0
    assert rate.is_spent("a")
    now[0] = 30.0
    assert rate.wait_s("a") is None


@given(st.integers(1, 50), st.lists(st.floats(0, 30), max_size=200))
def test_no_minute_has_more_than_twice_what_is_allowed(per_min: int, steps: list[float]) -> None:
    now = [0.0]
    rate = Rate(per_min, clock=lambda: now[0])
    let_in: list[float] = []
    for step in steps:
        now[0] += step
        if rate.wait_s("a") is None:
            let_in.append(now[0])
    assert all(sum(at <= one < at + 60 for one in let_in) <= 2 * per_min for at in let_in)


def test_a_flood_of_addresses_does_not_fill_the_memory() -> None:
    rate = Rate(1)
    for number in range(rates.MAX_KEYS + 100):
        rate.wait_s(str(number))
    assert len(rate._left) == rates.MAX_KEYS
