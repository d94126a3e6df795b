"""What waits for one person: plans they can decide, pages to their role, reviews to sign, action items of theirs that are overdue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.approval import Approval, ApprovalRules, valid
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.policy import Signatures
from mlrunbook.domain.records import ReviewPart
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.review.review import Signature
from mlrunbook.domain.roles import Role

DOOR = "console"


class What(StrEnum):
    """In the order in which they are shown."""

    DECISION = "decision"
    PAGE = "page"
    REVIEW = "review"
    ITEM = "item"


@dataclass(frozen=True)
class Me:
    name: str
    person: str
    role: str | None
    may_decide: bool

    def is_owner(self, owner: str) -> bool:
        """Whether an action item that names this owner means this person: their role, in either form, or their name."""
        mine = (self.role, Role.named(self.role), self.name) if self.role else (self.name,)
        return person_of(owner) in {person_of(name) for name in mine}


@dataclass(frozen=True)
class Waiting:
    """One thing: which incident, since when (of what is due: when it was), and where it is done."""

    what: What
    incident_id: str
    model: str
    sentence: str
    path: str
    since: datetime
    severity: Severity | None = None
    is_late: bool = False


def in_order(found: Iterable[Waiting]) -> list[Waiting]:
    """Decisions before pages before reviews before action items; the more severe first, then what has waited longest."""

    def place(one: Waiting) -> tuple[int, int, datetime]:
        return list(What).index(one.what), -one.severity.rank if one.severity else 0, one.since

    return sorted(found, key=place)


def may_decide(me: Me, digest: str, given: Sequence[Approval], rules: ApprovalRules, *, now: datetime) -> bool:
    """Whether this person's yes to the plan would count and has not been given."""
    yes = Approval(digest, "approved", me.name, DOOR, True, now, me.role, person=me.person)
    has_said_so = any(row.counts_as == yes.counts_as and valid(row, digest, now, rules)[0] for row in given)
    return me.may_decide and not has_said_so and valid(yes, digest, now, rules)[0]


def signature_of(me: Me, signed: Signature | None, policy: Signatures) -> ReviewPart | None:
    """Which signature of this person a review waits for that nobody has approved yet. `signed`: who has reviewed it."""
    if signed is None:
        return "reviewed" if me.role in policy.reviewed else None
    return "approved" if me.role in policy.approved and not signed.is_by(me.person) and not signed.is_by(person_of(me.name)) else None


def about_review(incident: Incident, *, signed: Signature | None, blanks: int, now: datetime) -> Waiting:
    due = incident.review_due_at or now
    left = f"{blanks} question{'s' if blanks > 1 else ''} left for the meeting" if blanks else "no question left"
    todo = f"Approve the review: {signed.by} has signed it" if signed else f"Review it: the draft has {left}"
    return Waiting(What.REVIEW, incident.id, incident.model, todo, f"/incidents/{incident.id}/review", due, incident.severity, due < now)


def about_item(item: Item, model: str) -> Waiting:
    return Waiting(What.ITEM, item.incident_id, model, f"Overdue: {item.action}", f"/actions#item-{item.id}", item.due_at, None, True)
