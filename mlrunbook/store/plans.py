"""Plans and the approvals they rest on. A newer plan of a kind supersedes the older, and voids what was approved for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, case, false, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.domain.actions import Plan, PlanKind
from mlrunbook.domain.approval import CLOCKS_DIFFER, POLICY_RULE, Approval, Decision
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Status
from mlrunbook.domain.plural import counted
from mlrunbook.store import row_events, timeline
from mlrunbook.store.tables import approvals, incidents, plans

NOBODY_KNOWS_S = 3650 * 86_400.0
OVER = tuple(status.value for status in Status if not status.is_open)


@dataclass(frozen=True)
class StoredApproval(Approval):
    """An approval with its row's id, the incident, and the words of who decided."""

    id: int = 0
    incident_id: str = ""
    reason: str = ""
    moved_s: float = 0.0
    stored_at: datetime | None = None


def propose(conn: Connection, plan: Plan, *, now: datetime) -> str:
    """Store the plan under its digest and return that. Proposing the standing plan again changes nothing; one that was replaced
    stands again, without the approvals it had. What a person orders on the spot replaces nothing: each order stands for itself."""
    digest = plan.digest
    if conn.execute(select(plans.c.digest).where(_is(plan.incident_id, digest), plans.c.superseded_at.is_(None))).one_or_none():
        return digest
    values = {"incident_id": plan.incident_id, "digest": digest, "kind": plan.kind.value, "body": plan.as_dict(), "proposed_at": now}
    stands = {"proposed_at": now, "moved_s": 0.0, "superseded_at": None}
    written = upsert(plans).values(**values).on_conflict_do_update(index_elements=["incident_id", "digest"], set_=stands)
    row_events.add(conn, plan.incident_id, written)
    if plan.kind is not PlanKind.EMERGENCY:
        _replace_older(conn, plan, now=now)
    words = "; ".join(a.summary for a in plan.actions)
    data: Mapping[str, Any] = {"digest": digest, "kind": plan.kind.value, "actions": [a.summary for a in plan.actions]}
    timeline.append(conn, plan.incident_id, "plan", f"{plan.kind.capitalize()} planned: {words}", actor="mlrunbook", at=now, data=data)
    return digest


def _replace_older(conn: Connection, plan: Plan, *, now: datetime) -> None:
    older = row_events.change(
        conn,
        update(plans)
        .where(
            plans.c.incident_id == plan.incident_id,
            plans.c.kind == plan.kind.value,
            plans.c.digest != plan.digest,
            plans.c.superseded_at.is_(None),
        )
        .values(superseded_at=now),
    )
    for stale in older:
        void(conn, plan.incident_id, stale["digest"], because=f"a new {plan.kind} plan replaced it", now=now)


def get(conn: Connection, incident_id: str, digest: str) -> Plan:
    row = conn.execute(select(plans.c.body).where(plans.c.incident_id == incident_id, plans.c.digest == digest)).one_or_none()
    if row is None:
        raise NotFound(f"{incident_id} has no plan {digest[:12]}")
    return Plan.from_dict(row.body)


def current(conn: Connection, incident_id: str, kind: PlanKind) -> Plan | None:
    """The newest plan of that kind, if one stands."""
    return next(reversed(standing(conn, incident_id, kind)), None)


def standing(conn: Connection, incident_id: str, *kinds: PlanKind) -> list[Plan]:
    """What stands of these kinds, oldest first: one of a kind, and every order of a person."""
    query = select(plans.c.body).where(plans.c.incident_id == incident_id, plans.c.kind.in_(kinds), plans.c.superseded_at.is_(None))
    return [Plan.from_dict(body) for body in conn.execute(query.order_by(plans.c.proposed_at)).scalars()]


class OrderRow(NamedTuple):
    """One order of a person; `is_over`: its incident is."""

    plan: Plan
    at: datetime
    is_over: bool


def orders_about(conn: Connection, model: str) -> list[OrderRow]:
    """What people have ordered about the model, oldest first: in incidents that are open, and while these were open also in others that
    have ended since, because a newer order replaces an older one whatever became of its incident. Clocks differ and are set, so that some
    are found that are older: which one counts is told by the numbers of what was approved."""
    detected_at = incidents.c.detected_at + _seconds(incidents.c.moved_s) - CLOCKS_DIFFER
    oldest = select(func.min(detected_at)).where(incidents.c.model == model, incidents.c.status.not_in(OVER)).scalar_subquery()
    proposed_at = plans.c.proposed_at + _seconds(plans.c.moved_s)
    query = (
        select(plans.c.body, proposed_at.label("proposed_at"), incidents.c.status.in_(OVER).label("is_over"))
        .join(incidents, incidents.c.id == plans.c.incident_id)
        .where(incidents.c.model == model, plans.c.kind == PlanKind.EMERGENCY.value, plans.c.superseded_at.is_(None))
        .where(incidents.c.status.not_in(OVER) | (plans.c.proposed_at >= oldest))
        .order_by(proposed_at, plans.c.digest)
    )
    return [OrderRow(Plan.from_dict(row.body), row.proposed_at, row.is_over) for row in conn.execute(query)]


def digests(conn: Connection, incident_id: str, prefix: str) -> list[str]:
    """The digests that begin with `prefix` of this incident's plans, replaced ones too."""
    query = select(plans.c.digest).where(plans.c.incident_id == incident_id, plans.c.digest.startswith(prefix, autoescape=True))
    return list(conn.execute(query.order_by(plans.c.proposed_at)).scalars())


def _is(incident_id: str, digest: str) -> ColumnElement[bool]:
    return (plans.c.incident_id == incident_id) & (plans.c.digest == digest)


def is_superseded(conn: Connection, incident_id: str, digest: str) -> bool:
    return (
        conn.execute(select(plans.c.superseded_at).where(plans.c.incident_id == incident_id, plans.c.digest == digest)).scalar_one_or_none()
        is not None
    )


def decide(
    conn: Connection,
    incident_id: str,
    digest: str,
    said: Decision,
    *,
    now: datetime,
    expires_at: datetime | None = None,
) -> StoredApproval:
    """Write one approval row. The same person deciding the same twice adds nothing."""
    get(conn, incident_id, digest)
    for row in _rows(conn, incident_id, digest):
        # One that has run out may be given again.
        stands = row.voided_at is None and not row.ran_out and (row.expires_at is None or row.expires_at > now)
        if stands and (row.counts_as, row.approver, row.decision, row.door) == (said.counts_as, said.approver, said.decision, said.door):
            return row
    given = asdict(said) | {"person": said.counts_as}
    new = upsert(approvals).values(incident_id=incident_id, plan_digest=digest, at=now, expires_at=expires_at, **given)
    made = row_events.add(conn, incident_id, new)
    if made is None:  # pragma: no cover - nothing conflicts with a new approval
        raise AssertionError(f"the approval of {digest[:12]} vanished")
    text = f"Plan {digest[:12]} {said.decision} by {_who(said)}" + (f": {said.reason}" if said.reason else "")
    data = {"digest": digest, "decision": said.decision, "door": said.door}
    timeline.append(conn, incident_id, "approval", text, actor=said.approver, at=now, data=data)
    return StoredApproval(**made)


def _who(said: Decision) -> str:
    if said.door == POLICY_RULE:
        return f"policy rule {said.approver}"
    return f"{said.approver}{'' if said.verified else ' (unverified)'}, {said.role or 'no role'}, by {said.door}"


def approvals_of(conn: Connection, incident_id: str, digest: str | None = None) -> list[StoredApproval]:
    return _rows(conn, incident_id, digest)


def approvals_of_incidents(conn: Connection, incident_ids: Collection[str]) -> list[StoredApproval]:
    query = select(approvals, _outlived()).where(approvals.c.incident_id.in_(incident_ids)).order_by(approvals.c.id)
    return [_approval(row) for row in conn.execute(query)] if incident_ids else []


def void(conn: Connection, incident_id: str, digest: str, *, because: str, now: datetime) -> None:
    voided = row_events.change(
        conn,
        update(approvals)
        .where(approvals.c.incident_id == incident_id, approvals.c.plan_digest == digest, approvals.c.voided_at.is_(None))
        .values(voided_at=now, voided_because=because),
    )
    if voided:
        text = f"{counted(len(voided), 'approval')} of plan {digest[:12]} voided: {because}"
        timeline.append(conn, incident_id, "approval", text, actor="mlrunbook", at=now, data={"digest": digest})


def _rows(conn: Connection, incident_id: str, digest: str | None) -> list[StoredApproval]:
    query = select(approvals, _outlived()).where(approvals.c.incident_id == incident_id).order_by(approvals.c.id)
    return [_approval(r) for r in conn.execute(query.where(approvals.c.plan_digest == digest) if digest else query)]


def _outlived() -> ColumnElement[bool]:
    """Its minutes are over by the database's clock, whatever ours says: the one who gave it may be on another machine than who uses it."""
    minutes = approvals.c.expires_at - approvals.c.at
    over = func.coalesce(func.clock_timestamp() - approvals.c.stored_at >= minutes, false())
    return case((approvals.c.stored_at.is_not(None), over)).label("ran_out")


def _approval(row: Row[Any]) -> StoredApproval:
    """With its times as the clock of today would have shown them; the row keeps what was read."""
    values, moved = dict(row._mapping), timedelta(seconds=min(row.moved_s, 0.0))
    values |= {name: values[name] + moved for name in ("at", "expires_at") if values[name] is not None}
    return StoredApproval(**values)


def clock_set_back(conn: Connection, by_s: float, *, is_known: bool) -> None:
    """An approval stands for its minutes and not longer: also one that has expired stays so. Not `is_known`: it was by no less,
    because the machine was off, so none counts."""
    of_open = select(incidents.c.id).where(incidents.c.status.not_in(OVER))
    undecided = approvals.c.voided_at.is_(None) & approvals.c.incident_id.in_(of_open)
    moved_s = approvals.c.moved_s - (by_s if is_known else NOBODY_KNOWS_S)
    row_events.change(conn, update(approvals).where(undecided).values(moved_s=moved_s))
    row_events.change(conn, update(plans).where(plans.c.incident_id.in_(of_open)).values(moved_s=plans.c.moved_s - by_s))


def _seconds(column: ColumnElement[float]) -> ColumnElement[Any]:
    return func.make_interval(0, 0, 0, 0, 0, 0, column)
