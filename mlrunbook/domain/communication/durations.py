"""How long things took, and when they are due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.policy import Policy

NOT_MEASURED = "not measured"


def utc(at: datetime) -> datetime:
    """In UTC; a time without a zone counts as UTC, as in Feast."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


@dataclass(frozen=True)
class Times:
    """One incident's share of MTTD, MTTA, MTTC and MTTR. None: not measured (yet).

    `to_detect` runs from the start of the failure, the others from detection, as in the runbook's review template.
    """

    to_detect: timedelta | None
    to_acknowledge: timedelta | None
    to_contain: timedelta | None
    to_resolve: timedelta | None


def times(incident: Incident) -> Times:
    start = incident.detected_at
    return Times(
        to_detect=_between(incident.started_at, start),
        to_acknowledge=_between(start, incident.acknowledged_at),
        to_contain=_between(start, incident.contained_at),
        to_resolve=_between(start, incident.resolved_at),
    )


def _between(start: datetime | None, end: datetime | None) -> timedelta | None:
    if start is None or end is None:
        return None
    return max(end - start, timedelta(0))  # another machine's clock may run ahead of ours


def response_deadline(incident: Incident, policy: Policy, *, opened_at: datetime | None = None) -> datetime:
    """When a human must have answered (runbook, "Severity Levels"), counted from detection, or from `opened_at` where it was reopened."""
    return (opened_at or incident.detected_at) + policy.response_min.of(incident.severity)


def review_due(resolved_at: datetime, policy: Policy) -> datetime:
    """Step 6: within 48 hours of resolution."""
    return resolved_at + timedelta(hours=policy.communication.review_due_h)


def in_words(duration: timedelta | None) -> str:
    """The two largest units, rounded down.

    >>> in_words(timedelta(hours=3, minutes=15, seconds=40))
    '3 hours 15 minutes'
    >>> in_words(None)
    'not measured'
    """
    if duration is None:
        return NOT_MEASURED
    total_s = max(int(duration.total_seconds()), 0)
    minutes, seconds = divmod(total_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    shown = [_plural(n, unit) for n, unit in parts[first : first + 2] if n]
    return " ".join(shown) or "0 seconds"


def _plural(n: int, unit: str) -> str:
    return f"{n} {unit}" + ("" if n == 1 else "s")
