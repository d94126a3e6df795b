"""The action items of the reviews: what may become of one, and when its owner is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlrunbook.domain.communication import console_links
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.communication.messages import Rendered, _paragraph, _text, line
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.policy.policy import Communication
from mlrunbook.domain.roles import Role


@dataclass(frozen=True)
class Item:
    """One action item. `owner_role` is a role of the policy, or what the meeting wrote."""

    id: int
    incident_id: str
    action: str
    owner_role: str
    due_at: datetime
    status: ItemStatus = ItemStatus.NOT_STARTED
    ended_at: datetime | None = None
    ended_by: str | None = None
    note: str = ""

    def is_overdue(self, now: datetime) -> bool:
        return self.status.is_open and self.due_at < now

    def standing(self, now: datetime) -> str:
        """How it stands, for a person.

        >>> from datetime import UTC
        >>> due, now = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 5, tzinfo=UTC)
        >>> Item(7, "incident_1", "Alert on stale rows", "ml_team_lead", due).standing(now)
        'not started, overdue for 3 days'
        """
        if not self.status.is_open:
            return f"{self.status} by {self.ended_by}" + (f": {self.note}" if self.note else "")
        left = self.due_at - now
        return f"{self.status}, " + (f"due in {in_words(left)}" if left >= timedelta(0) else f"overdue for {in_words(-left)}")


def moved(item: Item, to: ItemStatus, *, by: str, note: str, at: datetime) -> Item:
    """The item in another state. Dropping one needs a reason; a done one that is not, is opened again."""
    if to is ItemStatus.DROPPED and not note.strip():
        raise Invalid(f"action item {item.id} is dropped only for a reason: say why it need not be done", field="note")
    return replace(item, status=to, ended_at=None if to.is_open else at, ended_by=None if to.is_open else by, note=note.strip())


def next_reminder(item: Item, now: datetime, policy: Communication) -> datetime | None:
    """When its owner is told next, later than `now`: before it is due, when it is, then again and again. None: it has ended."""
    if not item.status.is_open:
        return None
    first = item.due_at - timedelta(hours=policy.action_remind_before_h)
    if now < first:
        return first
    if now < item.due_at:
        return item.due_at
    every = timedelta(hours=policy.action_overdue_every_h)
    return item.due_at + every * ((now - item.due_at) // every + 1)


def action_item_reminder(item: Item, now: datetime) -> Rendered:
    """To whoever owns the item, until it is done or dropped."""
    left = "OVERDUE" if item.is_overdue(now) else "DUE SOON"
    return Rendered(
        f"[{left}] Action item {item.id} of {line(item.incident_id)}, {line(Role.named(item.owner_role))}",
        _text(
            line(item.action),
            f"It is {line(item.standing(now))}.",
            _paragraph(
                f"Done: mlrunbook actions done {item.id} --note 'what was done'",
                f"Not needed any more: mlrunbook actions drop {item.id} --note 'why'",
            ),
        ),
        console_links.ACTIONS,
    )
