"""What is due while an incident is open: updates every so often, and what counts as late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.clocks import in_words

PUNCTUAL = timedelta(seconds=60)  # a dispatcher looks every second, a mail server may be busy for a moment


@dataclass(frozen=True)
class Update:
    """One update to stakeholders (runbook, Step 5). `sent` None: it has not reached any channel."""

    number: int
    due: datetime
    sent: datetime | None

    @property
    def in_time(self) -> bool:
        return self.sent is not None and self.sent - self.due <= PUNCTUAL

    @property
    def lateness(self) -> str:
        due = f"update {self.number}, due {self.due.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{due}, did not go out" if self.sent is None else f"{due}, went out {in_words(self.sent - self.due)} late"


def next_review_reminder(due: datetime, now: datetime, *, before_h: int, overdue_every_h: int) -> datetime:
    """When the review is asked for next: before it is due (runbook, Step 6: "within 48 hours"), when it is, and ever after."""
    first = due - timedelta(hours=before_h)
    if now < first:
        return first
    if now < due:
        return due
    every = timedelta(hours=overdue_every_h)
    return due + ((now - due) // every + 1) * every


def late_updates(updates: Sequence[Update]) -> list[str]:
    """A sentence for each that was not in time."""
    return [update.lateness for update in updates if not update.in_time]
