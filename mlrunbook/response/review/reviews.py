"""Step 6: the review as it stands, mended by people, and signed: Reviewed By, Approved By."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import SIGNATURES, Record, ReviewPart
from mlrunbook.domain.review.review import ActionItem, Signature, corrected, standing
from mlrunbook.domain.roles import Role
from mlrunbook.response.review import contained
from mlrunbook.store import action_items, incidents, records, timeline


def current(conn: Connection, incident_id: str) -> str:
    """The review with its action items and signatures as they are now, and what it says of containment as it is now. NotFound until it is
    drafted."""
    drafted = records.get(conn, incident_id, Record.REVIEW)
    if drafted is None:
        status = incidents.get(conn, incident_id).status
        raise NotFound(f"the review of {incident_id} is not drafted: the incident is {status}, the draft follows its closing")
    todo = [ActionItem(i.action, i.owner_role, i.due_at.date(), i.status.title()) for i in action_items.of_incident(conn, incident_id)]
    incident = incidents.get(conn, incident_id)
    text = corrected(str(drafted["markdown"]), contained.retold(conn, incident, drafted.get("told", {})))
    return standing(text, todo, _signature(conn, incident_id, Record.REVIEWED), _signature(conn, incident_id, Record.APPROVED))


def edit(conn: Connection, incident_id: str, markdown: str, *, by: str, now: datetime) -> str:
    """People's text in place of the draft. Signatures were given for another text: they are void, and must be given again."""
    incidents.get(conn, incident_id, lock=True)
    if not markdown.startswith("# "):
        raise Invalid(f'a review begins with its heading, as in "# Post-Incident Review: {incident_id}"', field="markdown")
    before = current(conn, incident_id)
    if markdown.strip() == before.strip():
        return before
    signed = [step for step in SIGNATURES if records.get(conn, incident_id, step)]
    drafted = records.get(conn, incident_id, Record.REVIEW) or {}
    records.forget(conn, incident_id, Record.REVIEW, *SIGNATURES)
    records.put(conn, incident_id, Record.REVIEW, drafted | {"markdown": markdown}, now=now)
    void = "; it must be reviewed and approved again" if signed else ""
    digest = hashlib.sha256(markdown.encode()).hexdigest()
    timeline.append(conn, incident_id, "review", f"Review edited by {by}{void}", actor=by, at=now, data={"sha256": digest})
    return current(conn, incident_id)


def sign(conn: Connection, policy: Policy, incident_id: str, part: ReviewPart, *, by: str, role: str | None, now: datetime) -> str:
    """Record who reviewed or approved it. Approval comes after the review, and from somebody else. Refused for a role that may not."""
    incidents.get(conn, incident_id, lock=True)
    text = current(conn, incident_id)
    may = policy.review.approved if part == "approved" else policy.review.reviewed
    if role not in may:
        raise Refused(f"a review is {part} by {' or '.join(r.value for r in may)}; this token's role is {role or 'not set'}")
    step = Record.APPROVED if part == "approved" else Record.REVIEWED
    if records.get(conn, incident_id, step):
        return text
    if step == Record.APPROVED:
        reviewer = records.get(conn, incident_id, Record.REVIEWED)
        if reviewer is None:
            raise Refused(f"nobody has reviewed it yet: `mlrunbook incidents sign-review {incident_id} --as reviewed` comes first")
        if reviewer["by"].strip().casefold() == by.strip().casefold():
            raise Refused(f"{by} has reviewed it: somebody else must approve it")
    records.put(conn, incident_id, step, {"by": by, "role": role, "at": now.isoformat()}, now=now)
    timeline.append(conn, incident_id, "review", f"Review {part} by {by} ({Role.named(role or '')})", actor=by, at=now, data={"part": part})
    return current(conn, incident_id)


def _signature(conn: Connection, incident_id: str, step: str) -> Signature | None:
    signed = records.get(conn, incident_id, step)
    return Signature(signed["by"], Role.named(signed["role"]), datetime.fromisoformat(signed["at"])) if signed else None
