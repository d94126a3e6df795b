"""The gateway's bodies on the wire. Free-form objects (targets, facts, what a step recorded) have camelCase keys too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic.alias_generators import to_camel
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.base.web import CamelModel, Moment
from mlrunbook.domain.actions import Plan, PlanKind, digest_prefix
from mlrunbook.domain.communication.durations import times
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.containment.orders import Ordered, OrderState, Thing, things_of
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Case, ClockName, Incident, IncidentType, ItemStatus, Severity, Status, Subtype
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.deciding import Standing
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.gateway.text import MAX_TEXT, clean
from mlrunbook.response.communication.notifications import assigned, respond_by
from mlrunbook.response.containment.breach import kinds_of
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.investigation import similar_incidents
from mlrunbook.response.lifecycle import unknown_models
from mlrunbook.response.plan_state import state_of
from mlrunbook.store import action_items as items
from mlrunbook.store import evidence, journal, plans, records, regulatory_clocks
from mlrunbook.store.plans import StoredApproval
from mlrunbook.store.timeline import Entry

_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
Decision = Literal["approved", "rejected", "lapsed", "pending"]
_DECISIONS: dict[Standing, Decision] = {
    Standing.APPROVED: "approved",
    Standing.CARRIED_OUT: "approved",
    Standing.REJECTED: "rejected",
    Standing.LAPSED: "lapsed",
}


def _said(text: str) -> str:
    if not clean(text):
        raise ValueError("must say something")
    return clean(text)


Words = Annotated[str, AfterValidator(clean), Field(description=f"Control characters go, and what is longer than {MAX_TEXT} characters")]
Said = Annotated[str, AfterValidator(_said), Field(min_length=1, description=f"Cut at {MAX_TEXT} characters, without control characters")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _plan_digest(given: str) -> str:
    try:
        return digest_prefix(given)
    except Invalid as error:
        raise ValueError(str(error)) from error


PlanDigest = Annotated[
    str,
    AfterValidator(_plan_digest),
    Field(
        description="The plan's SHA-256 as it was shown, or at least its first 8 characters",
        json_schema_extra={"pattern": "^[0-9a-fA-F]{8,64}$"},
    ),
]


class ReportIn(CamelModel):
    """Runbook, Step 1: the incident report."""

    severity: Severity
    type: IncidentType
    description: Said
    impact: Words = ""
    reported_by: Name | None = Field(None, description="Default: the name of the token")
    subtype: Subtype | None = Field(None, description="What kind of security or compliance incident it is; null: not known")
    unknown_model: bool = Field(False, description="Report it although neither the registry nor policy knows the model")


class ApprovalIn(CamelModel):
    decision: Literal["approved", "rejected"]
    plan_digest: PlanDigest
    reason: Words = ""
    door: Literal["rest", "cli"] = "rest"


class ResolutionIn(CamelModel):
    """A human fixed it: the recovery is measured next."""

    what: Said
    root_cause: Words = ""


class ClosingIn(CamelModel):
    reason: Words = ""
    false_alarm: Annotated[bool, Field(description="Nothing was wrong: it ends as a false alarm, for that reason")] = False
    keep_containment: Annotated[bool, Field(description="Leave what is contained as it is, for that reason: serving stopped, say")] = False


class CaseIn(CamelModel):
    """What the incident is to the law of a clock."""

    case: Case
    aware_at: Moment | None = Field(None, description="Since when it is known; default: as before, or the detection")


class NotificationIn(CamelModel):
    """An authority was notified, or nobody need be: exactly one of the two."""

    reference: Words = Field("", description="Of the notification, such as the authority's case number")
    not_required: Words = Field("", description="Why no notification is required")
    at: Moment | None = Field(None, description="When it was notified; default: now")


class IncidentOut(CamelModel):
    id: str
    model: str
    model_version: str | None
    type: IncidentType
    family: str
    severity: Severity
    status: Status
    description: str
    impact: str
    reported_by: str
    started_at: datetime | None
    detected_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    contained_at: datetime | None
    resolved_at: datetime | None
    closed_at: datetime | None
    review_due_at: datetime | None
    alert_count: int

    @classmethod
    def of(cls, incident: Incident, **more: Any) -> Any:
        return cls(**{k: v for k, v in vars(incident).items() if k != "generation"}, **more)


class ReportedOut(IncidentOut):
    joined: bool = Field(description="It was reported already: this report joined the open incident")
    unknown_model: str | None = Field(description="Why nothing happens: nobody knows the model; null: it is known")


class IncidentsOut(CamelModel):
    incidents: list[IncidentOut] = Field(description="Newest first")
    before: int | None = Field(description="Ask for the next page with `before` set to this; null: there is none")


class SecondsOut(CamelModel):
    """Seconds from the failure's start to its detection, and from detection to the rest. null: not measured."""

    to_detect: float | None
    to_acknowledge: float | None
    to_contain: float | None
    to_resolve: float | None


class ActionOut(CamelModel):
    kind: str
    summary: str
    target: dict[str, Any]


class PlanOut(CamelModel):
    """A plan that stands. `decision` is what was decided about it, `why` the sentence that says where it stands."""

    digest: str
    kind: PlanKind
    path: str | None
    actions: list[ActionOut]
    reasons: list[str]
    expected: str
    rule: str | None = Field(description="The policy rule an automatic plan rests on")
    facts: dict[str, Any]
    decision: Decision
    why: str
    waits: bool = Field(description="It waits for a person's decision")
    carried_out: bool

    @classmethod
    def of(cls, conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> PlanOut:
        state = state_of(conn, policy, plan, now=now)
        return cls(
            digest=plan.digest,
            kind=plan.kind,
            path=plan.path,
            actions=[ActionOut(kind=a.kind, summary=a.summary, target=camel(a.target())) for a in plan.actions],
            reasons=list(plan.reasons),
            expected=plan.expected,
            rule=plan.rule,
            facts=camel(plan.facts),
            decision=_DECISIONS.get(state.standing, "pending"),
            why=state.why,
            waits=state.waits,
            carried_out=state.standing is Standing.CARRIED_OUT,
        )


class OrderOut(CamelModel):
    """What somebody ordered on the spot. The newest about a thing counts: it is in force, or people are paged about it until it is."""

    digest: str
    summary: str
    things: list[Thing] = Field(description="What it is about; taking back is about all of them")
    state: OrderState
    sentence: str = Field(description="Why it is in that state")
    given: str = Field(description="Who ordered it, when and why")
    since: datetime = Field(description="When it was given; with a second yes needed, when that was said")

    @classmethod
    def of(cls, one: Ordered) -> OrderOut:
        plan = one.plan
        return cls(
            digest=plan.digest,
            summary="; ".join(a.summary for a in plan.actions) or "take back: nothing was in force yet",
            things=sorted(things_of(plan)),
            state=one.state,
            sentence=one.sentence,
            given=plan.reasons[0],
            since=one.given.since,
        )


class ApprovalOut(CamelModel):
    plan_digest: str
    decision: str
    approver: str
    person: str = Field(description="Who counts: the person id of the token; where the door proves nobody, the door")
    role: str | None
    door: str
    verified: bool = Field(description="false: the door cannot prove who it was")
    reason: str
    at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    voided_because: str | None

    @classmethod
    def of(cls, row: StoredApproval, **more: Any) -> Any:
        return cls(**{k: v for k, v in vars(row).items() if k in ApprovalOut.model_fields}, **more)


class DecisionOut(ApprovalOut):
    plan_approved: bool = Field(description="The plan may be carried out now")
    why: str


class JournalOut(CamelModel):
    """One change to the world. `state`: intended, applying, done, already_held, unknown, refused."""

    id: str
    plan_digest: str
    ordinal: int
    kind: str
    model: str
    target: dict[str, Any]
    summary: str
    state: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    attempts: int
    undo_of: str | None
    undone_by: str | None
    kept_because: str | None
    error: str | None
    intended_at: datetime
    done_at: datetime | None

    @classmethod
    def of(cls, row: journal.Row) -> JournalOut:
        values = {k: v for k, v in vars(row).items() if k in cls.model_fields}
        return cls(**values | {k: camel(values[k]) for k in ("target", "before", "after")})


class FindingOut(CamelModel):
    key: str
    state: str = Field(description="ok, suspect or unknown")
    source: str
    value: Any
    sentence: str


class ActionItemOut(CamelModel):
    id: int
    incident_id: str
    action: str
    owner_role: str
    due_at: datetime
    status: ItemStatus
    ended_at: datetime | None
    ended_by: str | None
    note: str
    overdue: bool

    @classmethod
    def of(cls, item: Item, now: datetime) -> ActionItemOut:
        return cls(**vars(item), overdue=item.is_overdue(now))


class ClockOut(CamelModel):
    """A deadline of the law. Not legal advice."""

    clock: ClockName
    case: Case
    law: str
    aware_at: datetime
    deadline: datetime
    seconds_left: float | None = Field(description="Negative when overdue; null when it has ended")
    why: str
    ended_at: datetime | None
    ended_by: str | None
    reference: str
    not_required: str
    sentence: str

    @classmethod
    def of(cls, clock: Clock, now: datetime) -> ClockOut:
        left = clock.left(now).total_seconds() if clock.runs else None
        known = {k: v for k, v in asdict(clock).items() if k != "name"}
        return cls(clock=clock.name, law=clock.law, seconds_left=left, sentence=clock.sentence(now), **known)


class EvidenceOut(CamelModel):
    name: str
    media_type: str
    sha256: str
    bytes: int
    taken_at: datetime


class DutyOut(CamelModel):
    """Who leads, and who approves."""

    duty: Duty
    role: Role = Field(description="The role it falls to at this severity")
    name: str = Field(description="The person, where the policy or a hand-over names one")


class IncidentDetail(IncidentOut):
    """The whole incident. `triage`, `diagnosis`, `recovery`, `humanResolution`: what the steps recorded; null: not (yet)."""

    unknown_model: str | None = Field(description="Why nothing is planned and changed: nobody knows the model; null: it is known")
    respond_by: datetime = Field(description='When a human must have answered (runbook, "Severity Levels")')
    seconds: SecondsOut
    plans: list[PlanOut] = Field(description="The newest of each kind, and every order of a person")
    orders: list[OrderOut] = Field(description="What people have ordered on the spot, oldest first; of an open incident")
    approvals: list[ApprovalOut]
    actions: list[JournalOut]
    findings: list[FindingOut]
    triage: dict[str, Any] | None
    diagnosis: dict[str, Any] | None
    recovery: dict[str, Any] | None
    human_resolution: dict[str, Any] | None
    action_items: list[ActionItemOut]
    evidence: list[EvidenceOut]
    duties: list[DutyOut]
    subtypes: list[Subtype] = Field(description="The kinds of a security or compliance incident, as far as known")
    clocks: list[ClockOut] = Field(description="The nearest deadline first")
    precedents: list[str] = Field(description="Closed incidents like it and what fixed them, the most telling first")


class EntryOut(CamelModel):
    seq: int
    at: datetime
    kind: str
    actor: str
    text: str
    data: dict[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> EntryOut:
        return cls(**vars(entry) | {"data": camel(entry.data)})


class TimelineOut(CamelModel):
    entries: list[EntryOut]
    after: int | None = Field(description="Ask for the next page with `after` set to this; null: there is none")
    before: int | None = Field(default=None, description="Ask for what came before with `before` set to this; null: nothing did")


def detail(conn: Connection, policy: Policy, incident: Incident, *, now: datetime, who: Identity) -> IncidentDetail:
    """As `who` may read it: a token that is limited to models learns nothing of precedents of others."""
    standing = plans.standing(conn, incident.id, *PlanKind)
    recorded = {step: records.get(conn, incident.id, step) for step in ("triage", "diagnosis", "recovery", "human_resolution")}
    found = records.with_prefix(conn, incident.id, Record.FINDINGS).values()  # as they stand, like the records above
    spans = {name: span.total_seconds() if span else None for name, span in vars(times(incident)).items()}
    whole: IncidentDetail = IncidentDetail.of(
        incident,
        unknown_model=unknown_models.sentence(conn, incident),
        respond_by=respond_by(conn, policy, incident),
        seconds=SecondsOut(**spans),
        plans=[PlanOut.of(conn, policy, plan, now=now) for plan in standing],
        orders=[OrderOut.of(one) for one in standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now)],
        approvals=[ApprovalOut.of(row) for row in plans.approvals_of(conn, incident.id)],
        actions=[JournalOut.of(row) for row in journal.of_incident(conn, incident.id)],
        findings=[FindingOut(**one) for source in found for one in source["findings"]],
        action_items=[ActionItemOut.of(item, now) for item in items.of_incident(conn, incident.id)],
        evidence=[EvidenceOut(**vars(item)) for item in evidence.manifest(conn, incident.id)],
        duties=[DutyOut(**vars(one)) for one in assigned(conn, policy, incident)],
        subtypes=sorted(kinds_of(conn, policy, incident)),
        clocks=[ClockOut.of(clock, now) for clock in regulatory_clocks.of_incident(conn, incident.id)],
        precedents=[case.sentence for case in similar_incidents.of(conn, incident) if who.may_see(case.model)],
        **{step: camel(data) for step, data in recorded.items()},
    )
    return whole


def camel(value: Any) -> Any:
    """Keys that are snake_case names become camelCase, however deep; every other key and all values stay."""
    if isinstance(value, Mapping):
        return {to_camel(k) if isinstance(k, str) and _SNAKE.fullmatch(k) else k: camel(v) for k, v in value.items()}
    return [camel(v) for v in value] if isinstance(value, list | tuple) else value
