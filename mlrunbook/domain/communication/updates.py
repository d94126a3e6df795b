"""What is due while an incident is open: updates every so often, and what counts as late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.communication.durations import in_words

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


def late_updates(updates: Sequence[Update]) -> list[str]:
    """A sentence for each that was not in time."""
    return [update.lateness for update in updates if not update.in_time]
