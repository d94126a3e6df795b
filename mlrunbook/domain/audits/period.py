"""Which days an audit looks at. Days, weeks, months, quarters and years are those of UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Kind(StrEnum):
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    ANNUAL = "annual"

    @property
    def words(self) -> str:
        """Runbook, "Regular Audits"."""
        return {
            Kind.WEEKLY: "Weekly performance review",
            Kind.MONTHLY: "Monthly bias and fairness assessment",
            Kind.QUARTERLY: "Quarterly full audit",
            Kind.ANNUAL: "Annual risk assessment and compliance review",
        }[self]

    @property
    def unit(self) -> str:
        return {Kind.WEEKLY: "week", Kind.MONTHLY: "month", Kind.QUARTERLY: "quarter", Kind.ANNUAL: "year"}[self]


_MONTHS = {Kind.MONTHLY: 1, Kind.QUARTERLY: 3, Kind.ANNUAL: 12}


@dataclass(frozen=True)
class Period:
    """[since, until). `name` is unique for a kind: one audit of a model is filed under it. `within` is the calendar period it ends in:
    a finding opens one incident in that."""

    kind: Kind
    name: str
    since: datetime
    until: datetime
    within: str

    @property
    def length(self) -> timedelta:
        return self.until - self.since

    @property
    def days(self) -> int:
        """Days of UTC that it touches."""
        last = self.until - timedelta(microseconds=1)
        return (last.date() - self.since.date()).days + 1

    @property
    def words(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"


def complete(kind: Kind, now: datetime) -> Period:
    """The last week, month, quarter or year that has ended.

    >>> complete(Kind.WEEKLY, datetime(2027, 1, 4, 6, tzinfo=UTC)).name
    '2026-W53'
    >>> complete(Kind.QUARTERLY, datetime(2027, 1, 4, 6, tzinfo=UTC)).words
    '2026-10-01 00:00 to 2027-01-01 00:00 UTC'
    """
    until = _start(kind, now.astimezone(UTC))
    since = _start(kind, until - timedelta(days=1))
    name = _calendar(kind, since)
    return Period(kind, name, since, until, name)


def up_to(kind: Kind, now: datetime) -> Period:
    """As long as one of that kind, and up to this minute: for a look by hand."""
    until = now.astimezone(UTC).replace(second=0, microsecond=0)
    days = {Kind.WEEKLY: 7, Kind.MONTHLY: 30, Kind.QUARTERLY: 91, Kind.ANNUAL: 365}[kind]
    return Period(kind, f"{days} days to {until:%Y-%m-%d %H:%M} UTC", until - timedelta(days=days), until, _calendar(kind, until))


def _start(kind: Kind, at: datetime) -> datetime:
    """The first moment of the calendar period that `at` is in."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is Kind.WEEKLY:
        return day - timedelta(days=day.weekday())
    months = _MONTHS[kind]
    return day.replace(month=(day.month - 1) // months * months + 1, day=1)


def _calendar(kind: Kind, at: datetime) -> str:
    if kind is Kind.WEEKLY:
        year, week, _ = at.isocalendar()
        return f"{year}-W{week:02d}"
    return {Kind.MONTHLY: f"{at:%Y-%m}", Kind.QUARTERLY: f"{at.year}-Q{(at.month + 2) // 3}", Kind.ANNUAL: f"{at.year}"}[kind]
