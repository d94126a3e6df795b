"""One incident read from the store for its page: of a timeline of any length the newest entries."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.chain import Length
from mlrunbook.domain.detection.reports import FirstReport
from mlrunbook.domain.detection.severity_change import SeveritySet
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Unreadable
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.investigation.findings import Finding, Findings
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.recovery import Recovery
from mlrunbook.gateway.console import incident_lists as lists
from mlrunbook.gateway.console import incident_view as view
from mlrunbook.gateway.console.possible import Possible, case_of, possible
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import assigned, respond_by
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.investigation import similar_incidents
from mlrunbook.response.lifecycle import flapping, unknown_models
from mlrunbook.response.plan_state import rules_for, state_of
from mlrunbook.response.review.closing import left_in_force
from mlrunbook.store import chain_heads, evidence, journal, leases, outbox, plans, records, regulatory_clocks, timeline
from mlrunbook.store.leases import Lease

ENTRIES = 100  # of the timeline, at once
LATEST = 3  # of them, at the head of the page
MOST_MESSAGES = 200
NEWEST = 2**31 - 1


@dataclass(frozen=True)
class IncidentPage:
    """Everything on the page but its charts."""

    incident: Incident
    now: view.When
    since: view.When
    began: view.When | None
    over: view.When | None
    head: Length
    answer: view.Answer
    summary: str
    why: str
    warnings: tuple[str, ...]
    reported: tuple[view.Quote, ...]
    duties: tuple[lists.DutyView, ...]
    attention: view.Attention
    others: tuple[Possible, ...]
    impossible: tuple[Possible, ...]
    plans: tuple[view.PlanView, ...]
    in_force: tuple[view.InForce, ...]
    serving: str | None
    serving_by: str
    done: tuple[view.Done, ...]
    findings: tuple[view.FindingView, ...]
    diagnosis: tuple[str, ...]
    leads: tuple[str, ...]
    whys: tuple[str, ...]
    recovery: str
    precedents: tuple[tuple[str, str], ...]
    messages: tuple[lists.Message, ...]
    files: tuple[lists.File, ...]
    clocks: tuple[lists.ClockView, ...]
    entries: tuple[lists.EntryView, ...]
    has_review: bool
    run: str | None

    @property
    def latest(self) -> tuple[lists.EntryView, ...]:
        return self.entries[:LATEST]

    @property
    def older(self) -> int | None:
        """The number below which there is more."""
        return self.entries[-1].seq if self.entries and self.entries[-1].seq > 1 else None

    @property
    def suspects(self) -> tuple[view.FindingView, ...]:
        return tuple(one for one in self.findings if one.state == "suspect")

    @property
    def undelivered(self) -> int:
        return sum(one.is_trouble for one in self.messages)

    @property
    def is_open(self) -> bool:
        return self.incident.status.is_open


def read(conn: Connection, policy: Policy, incident: Incident, who: Identity, *, now: datetime) -> IncidentPage:
    """As `who` may see it: a token that is limited to models learns nothing of precedents of others."""
    head = chain_heads.lengths(conn, [incident.id]).get(incident.id, Length())  # first: what comes meanwhile is shown twice, not missed
    case = case_of(conn, policy, incident, now=now)
    acts, rows = possible(case, who), journal.of_incident(conn, incident.id)
    serving, serving_by = view.serving(rows, incident.model_version)
    planned = _plans(conn, policy, incident, acts, serving, now=now)
    answer = view.answer_of(incident, case.answered_by, respond_by(conn, policy, incident), now)
    waits = view.attention(answer, planned, acts, incident)
    others, impossible = view.others(acts, waits)
    triage = records.recall_if_readable(conn, incident.id, Triage)
    diagnosed = records.recall_if_readable(conn, incident.id, Diagnosed)
    recovery = records.recall_if_readable(conn, incident.id, Recovery)
    ended = incident.closed_at or incident.resolved_at
    return IncidentPage(
        incident,
        now=view.When.of(now, now),
        since=view.When.of(incident.detected_at, now),
        began=view.When.of(incident.started_at, now) if incident.started_at and incident.started_at != incident.detected_at else None,
        over=view.When.of(ended, now) if ended else None,
        head=head,
        answer=answer,
        summary=(diagnosed.headline if diagnosed else "") or incident.description,
        why=_why(conn, incident, triage),
        warnings=_warnings(conn, incident, now=now),
        reported=_reported(conn, incident, now=now),
        duties=tuple(lists.DutyView(one.duty.words, one.role.words, one.name) for one in assigned(conn, policy, incident)),
        attention=waits,
        others=others,
        impossible=impossible,
        plans=planned,
        in_force=_in_force(conn, policy, incident, now=now),
        serving=serving,
        serving_by=serving_by,
        done=view.done(rows, _past(conn, incident.id, rows), now),
        findings=view.findings(_findings(conn, incident.id)),
        diagnosis=tuple(view.parts_of(diagnosed.sentence)) if diagnosed else (),
        leads=tuple(lead.explained for lead in diagnosed.leads) if diagnosed else (),
        whys=diagnosed.chain if diagnosed else (),
        recovery=recovery.sentence if recovery else "",
        precedents=tuple((c.incident_id, c.sentence) for c in similar_incidents.of(conn, incident) if who.may_see(c.model)),
        messages=lists.messages(outbox.of_incident(conn, incident.id, "page", "message"), now)[:MOST_MESSAGES],
        files=tuple(
            lists.File(one.name, lists.size_words(one.bytes), one.sha256, view.When.of(one.taken_at, now))
            for one in evidence.manifest(conn, incident.id)
        ),
        clocks=tuple(
            lists.ClockView(one.name, one.law, one.sentence(now), one.runs, one.runs and one.deadline <= now)
            for one in regulatory_clocks.of_incident(conn, incident.id)
        ),
        entries=entries(conn, incident.id),
        has_review=records.get(conn, incident.id, "review") is not None,
        run=_run(leases.get(conn, incident.id)),
    )


def entries(conn: Connection, incident_id: str, *, before: int = NEWEST) -> tuple[lists.EntryView, ...]:
    """The newest first."""
    found = timeline.last(conn, incident_id, before=before, limit=ENTRIES)
    return tuple(lists.EntryView.of(entry) for entry in reversed(found))


def _plans(
    conn: Connection, policy: Policy, incident: Incident, acts: Sequence[Possible], serving: str | None, *, now: datetime
) -> tuple[view.PlanView, ...]:
    said, found = plans.approvals_of(conn, incident.id), []
    for plan in plans.standing(conn, incident.id, *PlanKind):
        state, rules = state_of(conn, policy, plan, now=now), rules_for(policy, plan)
        rule = view.Rule(rules.roles, rules.count, plan.rule)
        found.append(view.plan_view(state, rule, said, acts, serving=serving, now=now))
    return view.waiting_first(found)


def _in_force(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> tuple[view.InForce, ...]:
    orders = standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now)
    ordered = {one.plan.digest for one in orders}
    return (*view.orders_in_force(orders, now), *view.contained(left_in_force(conn, incident.id), ordered, now))


def _past(conn: Connection, incident_id: str, rows: Sequence[journal.Row]) -> dict[str, str]:
    known = {digest: plans.get(conn, incident_id, digest) for digest in dict.fromkeys(row.plan_digest for row in rows)}
    return {row.id: known[row.plan_digest].actions[row.ordinal].past for row in rows}


def _why(conn: Connection, incident: Incident, triage: Triage | None) -> str:
    """Of its severity: the last change of it, else what triage found."""
    changed = records.recall_if_readable(conn, incident.id, SeveritySet)
    if changed and changed.to is incident.severity:
        return changed.why
    return triage.summary if triage else "as it was reported; triage has not looked yet"


def _warnings(conn: Connection, incident: Incident, *, now: datetime) -> tuple[str, ...]:
    held = flapping.automation_held(conn, incident.id, now=now)
    said = (
        unknown_models.sentence(conn, incident),
        f"Automation has stopped: {held}" if held else None,
        reports.unanswered(conn, incident.id),
    )
    return tuple(one[:1].upper() + one[1:] for one in said if one)


def _reported(conn: Connection, incident: Incident, *, now: datetime) -> tuple[view.Quote, ...]:
    told = [view.Quote(one.by, one.description, view.When.of(one.at, now)) for one in reports.of_incident(conn, incident.id)]
    first = records.recall_if_readable(conn, incident.id, FirstReport)
    if not told or (first is not None and first.by_alert):
        told.insert(0, view.Quote(incident.reported_by, incident.description, view.When.of(incident.detected_at, now)))
    return tuple(told)


def _findings(conn: Connection, incident_id: str) -> list[Finding]:
    found: list[Finding] = []
    for kept in records.with_prefix(conn, incident_id, Findings.key).values():
        with contextlib.suppress(Unreadable):  # of another version: the timeline tells of it all the same
            found += Findings.from_record(kept).findings
    return found


def _run(lease: Lease) -> str | None:
    """The Prefect run that carries the incident now."""
    return lease.holder if lease.state in ("running", "waiting") else None
