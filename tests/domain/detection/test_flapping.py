from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.detection.flapping import is_back, judge_flapping, quiet_at
from mlrunbook.domain.policy.alerting import RecurrencePolicy

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_an_alert_within_the_window_after_the_closing_is_the_same_failure() -> None:
    policy = RecurrencePolicy(reopen_within_min=60)
    assert is_back(NOW - timedelta(minutes=59), NOW, policy)
    assert not is_back(NOW - timedelta(minutes=60), NOW, policy)
    assert not is_back(None, NOW, policy)
    assert not is_back(NOW, NOW, RecurrencePolicy(reopen_within_min=0)), "0 never opens anything again"


@given(ages=st.lists(st.integers(0, 600), max_size=12), limit=st.integers(1, 5))
def test_flapping_is_more_openings_in_the_window_than_the_limit(ages: list[int], limit: int) -> None:
    policy = RecurrencePolicy(flapping_after=limit, flapping_within_min=240)
    flapping, said = judge_flapping([NOW - timedelta(minutes=m) for m in ages], NOW, policy)
    assert flapping is (sum(m < 240 for m in ages) > limit)
    assert said.startswith(f"opened {sum(m < 240 for m in ages)} times")


def test_automation_comes_back_a_window_after_the_last_opening() -> None:
    assert quiet_at(NOW, RecurrencePolicy(flapping_within_min=30)) == NOW + timedelta(minutes=30)
