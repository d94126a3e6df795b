"""Steps 5 and 6: the resolution notice that closes the incident, and the draft of its review."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.actions import FlagWorkOrders, PlanKind, Restart
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.durations import review_due, times
from mlrunbook.domain.communication.messages import NOT_ESTIMATED, Figures, ResolutionFacts, resolution_notification
from mlrunbook.domain.communication.updates import late_updates
from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.containment.in_force import UNSEEN, Seen
from mlrunbook.domain.containment.orders import WHAT_ANSWERS, thing_of
from mlrunbook.domain.detection.reports import FirstReport
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.domain.resolution.recovery import Recovery
from mlrunbook.domain.review import review
from mlrunbook.domain.review.review import Drafted, Event, ReviewFacts
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.escalation import updates
from mlrunbook.response.communication.notifications import actions_taken, send_to_stakeholders, stop
from mlrunbook.response.lifecycle import post_close_check
from mlrunbook.response.review import contained, reminders
from mlrunbook.response.review.action_items import add_drafted
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import incidents, journal, plans, records, regulatory_clocks, timeline

REVIEW_EVENTS = frozenset(
    {
        "detected",
        "status",
        "severity",
        "page",
        "plan",
        "approval",
        "action",
        "acknowledged",
        "response",
        "handover",
        "flapping",
        "diagnosis",
        "candidate",
        "recovery",
        "run",
        "reported",
        "breach",
        "clock",
        "evidence",
    }
)


def announce_resolution(run: Run) -> None:
    """Resolved, told, closed. Refused while a containment action is neither taken back nor kept with a reason."""
    incident = run.incident()
    if incident.status is Status.CLOSED:
        return
    with run.write() as conn:
        policy, now = run.world.policy, run.world.now()
        if open_ends := unexplained(conn, run.incident_id):
            raise Refused(f"{run.incident_id} cannot close: {', '.join(open_ends)} is neither taken back nor kept with a reason")
        if reported := reports.unanswered(conn, run.incident_id):
            raise Refused(f"{run.incident_id} does not close by a measurement: {reported}")
        recovery = records.recall(conn, run.incident_id, Recovery)
        if recovery is None or not recovery.recovered:
            raise Refused(f"{run.incident_id} cannot close by itself: no recovery has been measured")
        incident = incidents.set_status(conn, run.incident_id, Status.RESOLVED, why=recovery.sentence, actor=ACTOR, now=now)
        assert incident.resolved_at is not None
        stop(conn, run.incident_id, now=now)
        followed = [i.action for i in review.action_items(_cause(conn, run.incident_id), incident.severity, incident.resolved_at)]
        message = resolution_notification(
            ResolutionFacts(
                incident_id=incident.id,
                model=incident.model,
                severity=incident.severity,
                resolution_time=times(incident).to_resolve,
                root_cause=root_cause(conn, incident.id),
                resolution=resolution_words(conn, incident.id),
                preventive_measures=followed,
                figures=recovery.figures or Figures(),
                deadlines=[clock.sentence(now) for clock in regulatory_clocks.of_incident(conn, incident.id)],
                impact=[one.sentence for one in contained.outages_of(conn, incident)],
            )
        )
        send_to_stakeholders(conn, policy, incident, message, key="resolved", now=now)
        incidents.set_review_due(conn, run.incident_id, review_due(incident.resolved_at, policy))
        incidents.set_status(conn, run.incident_id, Status.CLOSED, why="the resolution notice is out", actor=ACTOR, now=now)
        post_close_check.schedule(conn, policy, run.incident_id, now=now)


def draft_review(run: Run) -> str:
    """The review in Markdown, drafted once, with its action items in the store."""
    seen = contained.look(run)
    with run.write() as conn:
        return draft(conn, run.world.policy, run.incident_id, seen=seen, now=run.world.now())


def draft(conn: Connection, policy: Policy, incident_id: str, *, seen: Seen = UNSEEN, now: datetime) -> str:
    """The review of a resolved or closed incident, from the record; also for one that a person has closed. What it says about containment
    is kept beside it: `reviews.current` corrects what no longer holds."""
    if standing := records.recall(conn, incident_id, Drafted):
        return standing.markdown
    incident = incidents.get(conn, incident_id)
    entries = timeline.of_kind(conn, incident_id, *REVIEW_EVENTS)
    diagnosis = records.recall(conn, incident_id, Diagnosed)
    recovery = records.recall(conn, incident_id, Recovery)
    triage, first = records.recall(conn, incident_id, Triage), records.recall(conn, incident_id, FirstReport)
    measured = triage.figures if triage else Figures()
    left, outages = contained.left(conn, incident, seen), contained.outages_of(conn, incident, seen)
    sent = updates(conn, incident_id, until=incident.resolved_at or now)
    facts = ReviewFacts(
        incident=incident,
        events=[Event(e.at, e.text) for e in entries],
        root_cause=root_cause(conn, incident.id),
        chain=diagnosis.chain if diagnosis else (),
        cause=diagnosis.cause if diagnosis else None,
        resolution=resolution_words(conn, incident.id),
        during=(diagnosis.figures if diagnosis else None) or measured,
        after=(recovery and recovery.figures) or Figures(),
        detected_automatically=first is not None and first.by_alert,
        paged_at=next((e.at for e in entries if e.kind == "page"), None),
        updates_due=len(sent),
        updates_on_time=sum(update.in_time for update in sent),
        late_updates=late_updates(sent),
        containment_left=list(left.values()),
        deadlines=[clock.sentence(now) for clock in regulatory_clocks.of_incident(conn, incident.id)],
        business_impact=_business_impact(incident.impact, measured, has_work_orders=triage is None or triage.has_work_orders),
        outages=[one.sentence for one in outages],
    )
    told = {f"left:{key}": sentence for key, sentence in left.items()}
    told |= {f"outage:{one.change.id}": one.sentence for one in outages if one.end is None and not one.over}
    todo = review.action_items(facts.cause, incident.severity, incident.resolved_at or now)
    markdown = review.draft(facts, todo, policy)
    for item in todo:
        add_drafted(conn, policy, incident.id, item, by=ACTOR, now=now)
    reminders.schedule(conn, policy, incident, now=now)
    due = incident.review_due_at
    said = f"Review drafted, due {due:%Y-%m-%d %H:%M} UTC" if due else "Review drafted"
    timeline.append(conn, incident_id, "review", said, actor=ACTOR, at=now)
    return records.keep(conn, incident_id, Drafted(markdown, told), now=now).markdown


def unexplained(conn: Connection, incident_id: str) -> list[str]:
    """Containment and mitigation that is, or may be, in force, that nobody has taken back, and no reason says why."""
    return [row.summary for row in left_in_force(conn, incident_id)]


def left_in_force(conn: Connection, incident_id: str) -> list[journal.Row]:
    """Of what answers requests the newest change says what is in force, also where it was so already when it was ordered. A restart leaves
    nothing behind."""
    rows = [r for r in journal.of_incident(conn, incident_id) if r.state != "refused" and r.undone_by is None]
    rows = sorted((r for r in rows if r.may_have_happened and r.kind != Restart.kind), key=lambda r: r.number)
    found = {r.plan_digest: plans.get(conn, incident_id, r.plan_digest) for r in rows}
    newest: dict[str, journal.Row] = {}
    for row in rows:
        if row.settled and thing_of(found[row.plan_digest].actions[row.ordinal]) in WHAT_ANSWERS:
            newest[row.kind] = row
    left = []
    for row in rows:
        plan = found[row.plan_digest]
        if row.kept_because is not None or not limits_damage(plan, row.ordinal) or row.kind == FlagWorkOrders.kind:
            continue  # a flag is a mark for people: nothing of it is in force, and no order takes it back
        answers = thing_of(plan.actions[row.ordinal]) in WHAT_ANSWERS
        if answers and row.kind in newest and newest[row.kind].number > row.number:
            continue
        if row.state != "already_held" or (answers and plan.kind is PlanKind.EMERGENCY):
            left.append(row)
    return left


def root_cause(conn: Connection, incident_id: str) -> str | None:
    by_word = records.recall(conn, incident_id, HumanResolution)
    diagnosis = records.recall_if_readable(conn, incident_id, Diagnosed)
    return (by_word.root_cause if by_word else None) or (diagnosis.headline if diagnosis else None)


def resolution_words(conn: Connection, incident_id: str) -> list[str]:
    by_word = records.recall(conn, incident_id, HumanResolution)
    return actions_taken(conn, incident_id) + ([by_word.words] if by_word else [])


def _cause(conn: Connection, incident_id: str) -> Cause | None:
    diagnosis = records.recall(conn, incident_id, Diagnosed)
    return diagnosis.cause if diagnosis else None


def _business_impact(reported: str, measured: Figures, *, has_work_orders: bool) -> str | None:
    parts = [reported] if reported else []
    if measured.unnecessary_share is not None:
        parts.append(measured.unnecessary_words if has_work_orders else measured.false_alarm_words)
    parts.append(f"cost {measured.cost_words}" if measured.cost_words == NOT_ESTIMATED else f"estimated cost {measured.cost_words}")
    return "; ".join(parts)
