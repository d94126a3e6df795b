"""What the quarterly and the annual audit read of the incident store, of the documents, and of the platform's history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from mlrunbook.base import tokens
from mlrunbook.base.settings import settings
from mlrunbook.domain.approval import PREFECT_FORM, Approval, ApprovalRules, valid
from mlrunbook.domain.audits import runbook_page
from mlrunbook.domain.audits.annual import AnnualFacts
from mlrunbook.domain.audits.period import Kind, Period
from mlrunbook.domain.audits.quarterly import AuditSeen, ChangeMade, DrillSeen, QuarterlyFacts, ReviewSeen, TokenSeen
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.durations import review_due
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.observation import ObservationOver
from mlrunbook.domain.review.review import Approved, Reviewed
from mlrunbook.response.audits import chain
from mlrunbook.response.audits.facts import MOST_INCIDENTS, history, incidents_of, items_of
from mlrunbook.response.world import World
from mlrunbook.store import audits, incidents, journal, plans, records, regulatory_clocks

PAGE = "docs/runbooks/ml-model-incident.md"
MOST_DAYS = 731  # two years
NOT_A_CAUSE = {Cause.UNKNOWN, Cause.NOTHING_WRONG}


def quarterly(world: World, model: str, period: Period) -> QuarterlyFacts:
    limits, home = world.policy.audits, settings().home
    with world.transaction() as conn:
        touched = _touched(conn, model, period)
        filed = [a for a in audits.find(conn, model=model) if a.kind in (Kind.WEEKLY, Kind.MONTHLY)]
        scheduled = [a for a in filed if a.by_calendar]
        facts = QuarterlyFacts(
            now=world.now(),
            documents={path: _text(home / path) for path in limits.documents},
            model_card=_model_card(world.policy, model, home),
            upkeep=_upkeep(home),
            changes=_changes(conn, touched, period),
            checked=len(touched),
            clocks=_clocks(conn, touched),
            reviews=_reviews(conn, touched, period, world.policy),
            audits=_seen(filed, period),
            first_audit_at=min((a.until for a in scheduled), default=None),
            tokens=_tokens(conn),
            items=items_of(conn, model),
            drills=_drills(conn, period),
        )
    days = 2 * period.days
    return replace(facts, broken=_broken(world, touched), history=history(world, model, days, period.until))


def annual(world: World, model: str, period: Period) -> AnnualFacts:
    home = settings().home
    before = replace(period, since=period.since - period.length, until=period.since)
    with world.transaction() as conn:
        touched = _touched(conn, model, period)
        happened = incidents_of(conn, model, period)
        facts = AnnualFacts(
            now=world.now(),
            model_card=_model_card(world.policy, model, home),
            upkeep=_upkeep(home),
            incidents=happened,
            before=incidents_of(conn, model, before),
            causes={i.id: cause for i in happened if (cause := _cause(conn, i.id))},
            changes=_changes(conn, touched, period),
            checked=len(touched),
            clocks=_clocks(conn, touched),
            reviews=_reviews(conn, touched, period, world.policy),
            audits=[
                AuditSeen(a.kind, a.period, a.verdict) for a in audits.find(conn, model=model) if period.since < a.until <= period.until
            ],
            tokens=_tokens(conn),
            items=[i for i in items_of(conn, model, only_open=False) if period.since <= i.due_at < period.until],
            drills=_drills(conn, period),
        )
    days = min(2 * period.days, MOST_DAYS)
    return replace(facts, broken=_broken(world, touched), history=history(world, model, days, period.until))


def _seen(filed: Iterable[audits.Filed], period: Period) -> list[AuditSeen]:
    """Those whose own period ended in this one."""
    return [AuditSeen(a.kind, a.period, a.verdict) for a in filed if period.since < a.until <= period.until]


def _touched(conn: Connection, model: str, period: Period) -> list[Incident]:
    """Open at some moment of the period, oldest first."""
    found = incidents.find(conn, model=model, limit=MOST_INCIDENTS)
    return sorted(
        (i for i in found if i.detected_at < period.until and (i.closed_at is None or i.closed_at >= period.since)),
        key=lambda i: i.detected_at,
    )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _model_card(policy: Policy, model: str, home: Path) -> tuple[str, str | None]:
    path = policy.audits.model_card.replace("{model}", model)
    return path, _text(home / path)


def _upkeep(home: Path) -> runbook_page.Upkeep | Missing:
    text = _text(home / PAGE)
    if text is None:
        return Missing(f"{PAGE} does not exist below {home}: set MLRUNBOOK_HOME to the checkout")
    try:
        return runbook_page.read(text)
    except Invalid as error:
        return Missing(str(error))


def _changes(conn: Connection, touched: Iterable[Incident], period: Period) -> list[ChangeMade]:
    """Every change that was carried out in the period, with what is wrong with its approval."""
    made = []
    for incident in touched:
        given = {a.id: a for a in plans.approvals_of(conn, incident.id)}
        for row in journal.of_incident(conn, incident.id):
            if row.done_at is None or row.state != "done" or not period.since <= row.done_at < period.until:
                continue
            approval = given.get(row.approval_id)
            fault = "no approval is on record" if approval is None else approval_fault(approval, row.plan_digest, row.intended_at)
            by = approval.approver if approval else "-"
            asked = plans.get(conn, incident.id, row.plan_digest).requested_by
            by_requester = approval is not None and not approval.persons.isdisjoint(asked)
            names = ", ".join(person for person in asked if person != PREFECT_FORM)
            made.append(ChangeMade(incident.id, row.done_at, row.summary, by, fault, names, by_requester))
    return sorted(made, key=lambda change: change.at)


def approval_fault(approval: Approval, digest: str, at: datetime) -> str:
    """Why it did not cover the plan when the change began; empty: it did. Its role and door were judged then, by the policy of then."""
    if approval.voided_at is not None and approval.voided_at > at:
        approval = replace(approval, voided_at=None)
    rules = ApprovalRules(unverified_doors=frozenset({approval.door}), plan_rule=approval.approver)
    covers, why = valid(approval, digest, at, rules)
    return "" if covers else why


def _clocks(conn: Connection, touched: Iterable[Incident]) -> list[tuple[str, Clock]]:
    return [(i.id, clock) for i in touched for clock in regulatory_clocks.of_incident(conn, i.id)]


def _reviews(conn: Connection, touched: Iterable[Incident], period: Period, policy: Policy) -> list[ReviewSeen]:
    """Of the incidents that were resolved in the period; a false alarm has none."""
    found = []
    for one in touched:
        if records.recall_if_readable(conn, one.id, ObservationOver):  # only observed: nobody reviews it
            continue
        if one.status is Status.FALSE_ALARM or one.resolved_at is None or not period.since <= one.resolved_at < period.until:
            continue
        reviewed, approved = records.recall(conn, one.id, Reviewed), records.recall(conn, one.id, Approved)
        due = one.review_due_at or review_due(one.resolved_at, policy)
        found.append(ReviewSeen(one.id, due, reviewed.by if reviewed else None, approved.by if approved else None))
    return found


def _tokens(conn: Connection) -> list[TokenSeen]:
    return [TokenSeen(t.id, t.name, t.role, t.scopes, t.created_at, t.last_used_at, t.person) for t in tokens.in_force(conn)]


def _drills(conn: Connection, period: Period) -> list[DrillSeen]:
    return [DrillSeen(d.held_at, d.what, d.result) for d in audits.drills_held(conn, since=period.since - timedelta(days=366))]


def _cause(conn: Connection, incident_id: str) -> str | None:
    """Its kind in words; None: not established."""
    diagnosis = records.recall_if_readable(conn, incident_id, Diagnosed)
    return None if diagnosis is None or diagnosis.cause in NOT_A_CAUSE else diagnosis.cause.replace("_", " ")


def _broken(world: World, touched: Iterable[Incident]) -> dict[str, str]:
    """By incident: what of its chain, rows and evidence is not as it was written."""
    found = {}
    for one in touched:
        if wrong := chain.check_all(world, one.id):
            found[one.id] = "; ".join(wrong)
    return found
