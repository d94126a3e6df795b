"""Step 6: the review as it stands, mended by people, and signed: Reviewed By, Approved By."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Invalid, NotFound, Overtaken, Refused
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import SIGNATURES, Record, ReviewPart
from mlrunbook.domain.review.review import ActionItem, Approved, Drafted, Reviewed, corrected, misplaced, standing
from mlrunbook.domain.roles import Role
from mlrunbook.response.review import contained
from mlrunbook.store import action_items, incidents, records, timeline

MOST_SAID = 300  # characters


def current(conn: Connection, incident_id: str) -> str:
    """The review with its action items and signatures as they are now, and what it says of containment as it is now. NotFound until it is
    drafted."""
    drafted = records.recall(conn, incident_id, Drafted)
    if drafted is None:
        status = incidents.get(conn, incident_id).status
        raise NotFound(f"the review of {incident_id} is not drafted: the incident is {status}, the draft follows its closing")
    incident = incidents.get(conn, incident_id)
    text = corrected(drafted.markdown, contained.retold(conn, incident, drafted.told))
    return standing(
        text, _items(conn, incident_id), records.recall(conn, incident_id, Reviewed), records.recall(conn, incident_id, Approved)
    )


def _items(conn: Connection, incident_id: str) -> list[ActionItem]:
    return [ActionItem(i.action, i.owner_role, i.due_at.date(), i.status.title()) for i in action_items.of_incident(conn, incident_id)]


def version(conn: Connection, incident_id: str) -> str:
    """Names the text that people have written last, whatever has become of action items and signatures since: for `edit`."""
    drafted = records.recall(conn, incident_id, Drafted)
    return hashlib.sha256(drafted.markdown.encode()).hexdigest() if drafted else ""


def edit(conn: Connection, incident_id: str, markdown: str, *, by: str, now: datetime, of: str | None = None) -> str:
    """People's text in place of the draft. Signatures were given for another text: they are void, and must be given again.

    `of`: the version that was edited; Overtaken where somebody has written a newer one since. None: whatever there is.
    """
    incidents.get(conn, incident_id, lock=True)
    if not markdown.startswith("# "):
        raise Invalid(f'a review begins with its heading, as in "# Post-Incident Review: {incident_id}"', field="markdown")
    before = current(conn, incident_id)
    if markdown.strip() == before.strip():
        return before
    if lost := misplaced(markdown, _items(conn, incident_id)):
        where = (
            "stand under Action Items or Approvals, which mlrunbook writes itself: put them under another heading, or add an action item"
        )
        raise Invalid(f"these words {where}: {line(' / '.join(lost), MOST_SAID)}", field="markdown")
    if of is not None and of != version(conn, incident_id):
        raise Overtaken(f"somebody has changed the review of {incident_id} since you began to edit it: bring the two together, then save")
    signed = records.recall(conn, incident_id, Reviewed) or records.recall(conn, incident_id, Approved)
    drafted = records.recall(conn, incident_id, Drafted)
    records.forget(conn, incident_id, Record.REVIEW, *SIGNATURES)
    records.keep(conn, incident_id, Drafted(markdown, drafted.told if drafted else {}), now=now)
    void = "; it must be reviewed and approved again" if signed else ""
    digest = hashlib.sha256(markdown.encode()).hexdigest()
    timeline.append(conn, incident_id, "review", f"Review edited by {by}{void}", actor=by, at=now, data={"sha256": digest})
    return current(conn, incident_id)


@dataclass(frozen=True)
class Signer:
    """`person`: the person id of the token; empty: as the name says."""

    name: str
    role: str | None
    person: str = ""


def sign(
    conn: Connection, policy: Policy, incident_id: str, part: ReviewPart, signer: Signer, *, now: datetime, of: str | None = None
) -> str:
    """Record who reviewed or approved it. Approval comes after the review, and from somebody else. Refused for a role that may not.

    `of`: the version that they have read; Overtaken where somebody has written a newer one since.
    """
    by, role = signer.name, signer.role
    incidents.get(conn, incident_id, lock=True)
    text = current(conn, incident_id)
    may = policy.review.approved if part == "approved" else policy.review.reviewed
    if role not in may:
        raise Refused(f"a review is {part} by {' or '.join(r.value for r in may)}; this token's role is {role or 'not set'}")
    kind = Approved if part == "approved" else Reviewed
    if records.recall(conn, incident_id, kind):
        return text
    if of is not None and of != version(conn, incident_id):
        raise Overtaken(f"the review of {incident_id} was changed since you read it: read it again, then sign")
    if kind is Approved:
        reviewer = records.recall(conn, incident_id, Reviewed)
        if reviewer is None:
            raise Refused(f"nobody has reviewed it yet: `mlrunbook incidents sign-review {incident_id} --as reviewed` comes first")
        if reviewer.is_by(signer.person or person_of(by)) or reviewer.is_by(person_of(by)):
            raise Refused(f"{by} has reviewed it: somebody else must approve it")
    records.keep(conn, incident_id, kind(by, str(role), now, signer.person), now=now)
    timeline.append(conn, incident_id, "review", f"Review {part} by {by} ({Role.named(role or '')})", actor=by, at=now, data={"part": part})
    return current(conn, incident_id)
