"""A failure that comes back: an alert soon after the closing, and incidents that open again and again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from mlrunbook.domain.policy.alerting import RecurrencePolicy


def is_back(closed_at: datetime | None, now: datetime, policy: RecurrencePolicy) -> bool:
    """What closed then is not over."""
    return closed_at is not None and timedelta(0) <= now - closed_at < timedelta(minutes=policy.reopen_within_min)


def judge_flapping(openings: Sequence[datetime], now: datetime, policy: RecurrencePolicy) -> tuple[bool, str]:
    """Whether that often is flapping, and the sentence that says so. `openings` may reach back further than the window."""
    window = timedelta(minutes=policy.flapping_within_min)
    count = sum(now - window < at <= now for at in openings)
    said = f"opened {count} times within {policy.flapping_within_min} minutes, the limit is {policy.flapping_after}"
    return count > policy.flapping_after, said


def quiet_at(last_opening: datetime, policy: RecurrencePolicy) -> datetime:
    """When automation comes back by itself, if nothing opens until then."""
    return last_opening + timedelta(minutes=policy.flapping_within_min)
