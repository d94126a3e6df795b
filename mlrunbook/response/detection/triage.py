"""Step 1: is it real, how severe, what does it touch; then page and post."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.containment.orders import OrderState
from mlrunbook.domain.containment.taking_back import is_stopped
from mlrunbook.domain.detection.alerts import proven_as, type_of
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.reports import FirstReport, PersonsReport
from mlrunbook.domain.detection.severity import AlertSignal, Assessment, Claims, Measurements, assess, on_a_persons_word
from mlrunbook.domain.detection.severity_change import GradedAgain, SeverityDoubted, SeveritySet, is_measured_as_it_was, risen
from mlrunbook.domain.detection.triage import Affected, Backed, Triage
from mlrunbook.domain.errors import NotFound, RunbookError, Transient
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import Incident, Severity, Status
from mlrunbook.domain.observed import Missing, ServingStatus
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.policy import CostAssumptions
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.escalation import escalate, is_ticket, schedule_update
from mlrunbook.response.communication.notifications import INCIDENTS, TICKETS, opened_at, send_message, snapshot, stop
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.execution.standing_orders import of_run, summary_of
from mlrunbook.response.lifecycle import flapping
from mlrunbook.response.lifecycle.reopening import close_as_it_was, discard
from mlrunbook.response.lifecycle.severity_change import SeverityChange, change_severity, lowered_from
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.response.tried import or_none, tried, unexpected
from mlrunbook.store import alerts, incidents, records
from mlrunbook.store.incidents import Classification


@dataclass(frozen=True)
class Look:
    """What one look has shown; None: the platform gave nothing."""

    assessment: Assessment
    metrics: ModelMetrics | None
    status: ServingStatus | None
    backed: Backed | None = None


def triage(run: Run) -> Triage:
    """Look until the evidence decides or the looks are used up, then record the outcome and tell people."""
    found = run.recall(Triage)
    if found and not _is_outgrown(run, found):
        if run.recall(SeverityDoubted):
            reassess_severity(run)
        return run.recall(Triage) or found
    policy = run.world.policy.triage
    most = max(policy.looks, int(policy.page_anyway_after_s // policy.seconds_between_looks))
    for number in range(1, most + 1):
        final = number >= policy.looks
        seen = look(run, final_look=final)
        assessment = seen.assessment
        decided = final or (assessment.real is not None and not assessment.may_be_worse)
        if decided and not _is_decided_soon(run, assessment, most - number):
            break
        if number <= policy.looks:
            with run.write() as conn:
                run.note(conn, "triage", f"Look {number} of {policy.looks}: {assessment.reasons[0]}")
        run.world.sleep(policy.seconds_between_looks)
    if not assessment.real and (wanted := asked(run)):  # a person wants a change: there is work to do, whatever is measured
        assessment = replace(assessment, real=True, insufficient=True, reasons=(wanted, *assessment.reasons))
    again = run.recall(Reopened)
    if again and again.measured:  # a fix that did not hold is no false alarm
        unproven = assessment.insufficient or not assessment.real
        reasons = (f"reopened: {again.why}", *assessment.reasons)
        assessment = replace(assessment, real=True, insufficient=unproven, unproven=False, undecided_until=None, reasons=reasons)
    return _settle(run, replace(seen, assessment=assessment))


def _is_decided_soon(run: Run, found: Assessment, looks_left: int) -> bool:
    """Where outcomes that decide come within the looks left, and those end as the page goes out anyway. Else looks bring none."""
    left = timedelta(seconds=looks_left * run.world.policy.triage.seconds_between_looks)
    return looks_left > 0 and found.undecided_until is not None and found.undecided_until <= run.world.now() + left


def asked(run: Run) -> str | None:
    """What a person wants changed: a path, or containment that was ordered on the spot."""
    if request := run.recall(Request):
        return request.sentence
    return ordered(run)


def _is_outgrown(run: Run, found: Triage) -> bool:
    """A critical failure was missed after triage: what it found is put aside, and so is the containment that followed from it."""
    if not missed_failure(run) or found.assessment.safety_risk or run.recall(Applied):
        return False
    with run.write() as conn:
        run.note(conn, "triage", "A critical failure was missed since: judged and contained anew")
        records.forget(conn, run.incident_id, Record.TRIAGE, Record.CONTAINMENT, Record.CONTAINED)
    return True


def reassess_after_investigation(run: Run) -> bool:
    """Step 3, once the checklist is answered: True when the severity rose, and containment is to be planned anew."""
    if run.recall(GradedAgain):
        return False
    rose = reassess_severity(run)
    with run.write() as conn:
        run.keep(conn, GradedAgain(rose))
    return rose


def reassess_severity(run: Run) -> bool:
    """One more look, where what is measured is still the failure and not what was done about it."""
    found = run.recall(Triage)
    with run.write() as conn:
        records.forget(conn, run.incident_id, Record.SEVERITY_DOUBTED)  # what comes from here on is another doubt
    if found is None or not found.real or run.recall(Applied):
        return False
    if not is_measured_as_it_was([e.action for e in executed_containment(run)]):
        return False
    now = look(run, final_look=True)
    seen = now.assessment
    if now.metrics is None or now.status is None or not now.status.server_healthy or not seen.real:
        return False  # a platform or a server that does not answer is an incident of its own
    with run.write() as conn:
        incident = incidents.get(conn, run.incident_id, lock=True)
        to = risen(incident.severity, seen.severity, lowered_from(conn, run.incident_id))
        if to is incident.severity:
            return False
        words = f"measured again, it is {to} and no longer {incident.severity}: {'; '.join(seen.reasons)}"
        change = SeverityChange(to, replace(seen, severity=to), words, ACTOR, backed=now.backed)
        change_severity(conn, run.world.policy, incident, change, now=run.world.now())
    return True


def missed_failure(run: Run) -> str:
    """The critical failure that was missed, as its alert tells it; "" where none was."""
    with run.world.transaction() as conn:
        signals = [_signal(run, a["body"]) for a in alerts.of_incident(conn, run.incident_id)]
    return next((s.summary or s.name for s in signals if s.name == MISSED_FAILURE_ALERT), "")


def look(run: Run, *, final_look: bool = False) -> Look:
    """One assessment from what the store and the platform say right now."""
    with run.world.transaction() as conn:
        incident = incidents.get(conn, run.incident_id)
        claims, believed, without = _claims(run, conn, incident), _believed(run, conn, incident), _unproven(run, conn, incident)
    policy = run.world.policy.for_model(incident.model)

    def judged(of: Measurements) -> Look:
        found = assess(claims, of, policy.severity, policy.fairness, final_look=final_look)
        alone = assess(believed, of, policy.severity, policy.fairness, final_look=final_look) if without else None
        return Look(found, of.metrics, of.status, Backed(alone, without) if alone else None)

    seen = _measured(run, incident.model)
    found = tried("the judgement of the measurements", lambda: judged(seen))
    if isinstance(found, Missing):  # judged by the report: nothing is changed on figures that nobody understood
        with run.write() as conn:
            run.note(conn, "triage", f"The measurements do not count: {found.reason}")
        serving = tried("the judgement of what serves", lambda: judged(Measurements(None, seen.status, seen.platform_reachable)))
        return judged(Measurements(None, None)) if isinstance(serving, Missing) else serving
    return found


def _measured(run: Run, model: str) -> Measurements:
    """What the platform answers now; what cannot be read is on the timeline, and the report alone is judged then."""
    metrics = status = None
    try:
        status = run.world.platform.status(model)
        metrics = measured.with_all_outcomes(run, version=status.server_version or status.serving_version)
        if is_stopped(executed_containment(run)):  # a server that was stopped on purpose is no outage
            status = replace(status, server_healthy=True)
    except Transient:
        return Measurements(metrics, status, platform_reachable=False)
    except Exception as error:  # it answers, but has nothing on this model, or what nobody understands
        why = str(error) if isinstance(error, RunbookError) else unexpected("the look at the platform", error).reason
        with run.write() as conn:
            run.note(conn, "triage", f"The model platform has no metrics for {model}: {why}")
    return Measurements(metrics, status)


def _claims(run: Run, conn: Connection, incident: Incident, trusts: Callable[[str], bool] = lambda _: True) -> Claims:
    """What people say it is, and the alerts since it was opened, or opened again by an alert; of those alerts that are trusted."""
    first, again = records.recall(conn, incident.id, FirstReport), records.recall(conn, incident.id, Reopened)
    said = records.recall(conn, incident.id, SeveritySet)
    begun = again.at if again and not again.measured else incident.detected_at
    rows = [a["body"] for a in alerts.of_incident(conn, incident.id) if a["last_seen_at"] >= begun]
    fired = [_signal(run, body) for body in rows if trusts(proven_as(body))]
    if first and first.by_alert and not (said and said.by_person):  # its severity is a guess: what people have reported since is none
        told = _told_since(conn, incident)
        severity = max((t.severity for t in told), key=lambda s: s.rank, default=None)
        return Claims(severity, told[0].type if told else None, fired)
    return Claims(incident.severity, incident.type, fired)


def _believed(run: Run, conn: Connection, incident: Incident) -> Claims:
    """The same, of those alone whom policy trusts for containment."""
    trusts = partial(run.world.policy.intake.trusted_for.trusts, "containment")
    first, said = records.recall(conn, incident.id, FirstReport), records.recall(conn, incident.id, SeveritySet)
    claims, again = _claims(run, conn, incident, trusts), records.recall(conn, incident.id, Reopened)
    by_an_alert = again is not None and not again.measured  # what people said before that was about something else
    words_are_theirs = first is None or (not first.by_alert and trusts(first.proven_as)) or (said is not None and said.by_person)
    if words_are_theirs and not by_an_alert and (said is None or not said.by_person or trusts(said.proven_as)):
        return claims
    told = [one for one in _told_since(conn, incident) if trusts(one.proven_as)]
    severity = max((one.severity for one in told), key=lambda s: s.rank, default=None)
    return Claims(severity, told[0].type if told else None, claims.alerts)


def _unproven(run: Run, conn: Connection, incident: Incident) -> tuple[str, ...]:
    """Whose word is heard, and nothing done by itself on it alone."""
    trusts = partial(run.world.policy.intake.trusted_for.trusts, "containment")
    first, said = records.recall(conn, incident.id, FirstReport), records.recall(conn, incident.id, SeveritySet)
    heard = [(first.proven_as, first.by)] if first else []
    heard += [(one.proven_as, one.by) for one in reports.of_incident(conn, incident.id)]
    heard += [(said.proven_as, said.by)] if said else []
    heard += [(proven_as(a["body"]), a["sender"] or a["source"]) for a in alerts.of_incident(conn, incident.id)]
    return tuple(dict.fromkeys(name for proven, name in heard if not trusts(proven)))


def _told_since(conn: Connection, incident: Incident) -> list[PersonsReport]:
    """What people have reported since it was opened, or opened again."""
    begun = opened_at(conn, incident) if records.recall(conn, incident.id, Reopened) else incident.detected_at
    return [one for one in reports.of_incident(conn, incident.id) if one.at >= begun]


def _signal(run: Run, body: dict[str, Any]) -> AlertSignal:
    labels, annotations = body.get("labels", {}), body.get("annotations", {})
    name = str(labels.get("alertname", "alert"))
    level = str(body.get("level") or labels.get("severity", "warning"))
    summary = messages.line(str(annotations.get("summary", "")))
    return AlertSignal(name, level, type_of(run.world.policy, body), summary)


def _settle(run: Run, seen: Look) -> Triage:
    pending, has_work_orders = _pending_work_orders(run)
    with run.write() as conn:
        if standing := records.recall(conn, run.incident_id, Triage):
            return standing
        reported = incidents.get(conn, run.incident_id)
        found, verdict = in_the_light_of_people(conn, reported, seen)
        made = replace(_triaged(found, seen, reported.model, pending, run.world.policy.costs), has_work_orders=has_work_orders)
        triaged = run.keep(conn, made)
        again = records.recall(conn, run.incident_id, Reopened)
        unproven = again if again and not again.measured else None
        if not triaged.real:
            end_false_alarm(run, conn, triaged.summary, unproven)
            return triaged
        if unproven:
            discard(conn, run.incident_id)
        version = seen.status.server_version or seen.status.serving_version if seen.status else None
        proves = incidents.unproven_opening(conn, run.incident_id) if _is_measured(triaged) else None
        judged, now = Classification(found.severity, found.type, version, proves), run.world.now()
        incident = incidents.classify(conn, run.incident_id, judged, why=triaged.summary, actor=ACTOR, now=now)
        if proves is not None:
            flapping.note_opening(conn, run.world.policy, incident, now=now)
        _tell_people(run, conn, incident, verdict)
        incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=verdict, actor=ACTOR, now=now)
    return triaged


def _is_measured(found: Triage) -> bool:
    """Real without the word of whoever is not trusted."""
    assessment = found.backed.assessment if found.backed else found.assessment
    return bool(assessment.real) and not assessment.insufficient


def in_the_light_of_people(conn: Connection, incident: Incident, seen: Look) -> tuple[Assessment, str]:
    """The assessment after what people have reported and set meanwhile, and what stakeholders are told of it."""
    found = seen.assessment
    verdict = f"not proven yet: {found.reasons[0]}" if found.unproven else "triage found it real"
    if _told_since(conn, incident):
        verdict = verdict if found.real and not found.unproven else "a person reported it, and no measurement shows it"
        found = on_a_persons_word(found, seen.metrics)
    if lowered := lowered_from(conn, incident.id):  # a person's word before triage spoke
        found = replace(found, severity=risen(incident.severity, found.severity, lowered))
    return found, verdict


def _triaged(found: Assessment, seen: Look, model: str, pending_work_orders: int | None, costs: CostAssumptions) -> Triage:
    metrics, status = seen.metrics, seen.status
    asset_types = tuple(sorted(metrics.current.by_asset_type)) if metrics else ()
    return Triage(
        real=bool(found.real),
        severity=found.severity,
        type=found.type,
        summary="; ".join(found.reasons),
        assessment=found,
        affected=Affected(model, status.serving_version if status else None, asset_types, pending_work_orders),
        baseline=metrics.baseline.tally if metrics else None,
        baseline_by_type=metrics.baseline.by_asset_type if metrics else {},
        figures=figures_of(metrics, costs),
        backed=seen.backed,
    )


def end_false_alarm(run: Run, conn: Connection, why: str, unproven: Reopened | None) -> None:
    """What an alert has opened again ends as it had ended, and nobody hears of it a second time."""
    now = run.world.now()
    if unproven:
        close_as_it_was(conn, run.incident_id, unproven, why=why, actor=ACTOR, now=now)
        stop(conn, run.incident_id, now=now)
        return
    incident = incidents.set_status(conn, run.incident_id, Status.FALSE_ALARM, why=why, actor=ACTOR, now=now)
    stop(conn, run.incident_id, now=now)
    text = messages.Rendered(f"[FALSE ALARM] {messages.model_name(incident.model)}", f"{incident.id}: {why}")
    send_message(conn, run.world.policy, incident, INCIDENTS, text, key="false-alarm", now=now)


def _tell_people(run: Run, conn: Connection, incident: Incident, verdict: str) -> None:
    """Page by the ladder of the severity found; low is a ticket for the queue and no page, and so is what is not proven and no high one."""
    policy, now = run.world.policy, run.world.now()
    told = replace(snapshot(conn, policy, incident, now=now), status=Status.INVESTIGATING)
    escalate(conn, policy, incident, now=now)
    if incident.severity is Severity.LOW:
        send_message(conn, policy, incident, TICKETS, messages.ticket(told), key="ticket", now=now)
        return
    post = messages.page(told, Role.ONCALL_ML_ENGINEER, verdict)
    send_message(conn, policy, incident, INCIDENTS, post, key="triage", now=now)
    if is_ticket(conn, incident):
        send_message(conn, policy, incident, TICKETS, messages.ticket(told), key="ticket", now=now)
        return
    at = now + timedelta(minutes=policy.communication.update_every_min)
    schedule_update(conn, policy, incident, now=now, at=at)


def figures_of(metrics: ModelMetrics | None, costs: CostAssumptions) -> Figures:
    """The numbers people are told, from the platform's metrics; None where nothing was measured."""
    if metrics is None:
        return Figures(currency=costs.currency)
    now = metrics.current
    unnecessary = None if now.confusion.precision is None else 1 - now.confusion.precision
    days = (now.until - now.since).total_seconds() / 86_400
    flagged_a_day = now.predictions * now.flagged_share / days if now.flagged_share is not None and days > 0 else None
    return Figures(
        f1_baseline=metrics.baseline.confusion.f1,
        f1_now=now.confusion.f1,
        unnecessary_share=unnecessary,
        cost_per_day=messages.cost_per_day(
            flagged_a_day * unnecessary if flagged_a_day is not None and unnecessary is not None else None, costs
        ),
        currency=costs.currency,
        predictions=now.predictions,
        labelled=now.labelled,
        label_delay_s=now.label_delay_s,
    )


def _pending_work_orders(run: Run) -> tuple[int | None, bool]:
    """How many wait, and whether there are any at all: a platform without them says that it keeps none."""

    def read() -> int | NotFound:
        try:
            return len(run.world.platform.work_orders(run.incident().model, state="pending"))
        except NotFound as error:
            return error

    found = or_none("the list of work orders", read)
    return (None, False) if isinstance(found, NotFound) else (found, True)


def ordered(run: Run) -> str | None:
    """Who has ordered what, of the newest order that nobody has withdrawn; None where there is none."""
    with run.world.transaction() as conn:
        known = [o for o in of_run(run, conn) if o.state is not OrderState.REJECTED]
    return f"{known[-1].plan.reasons[0]}: {summary_of(known[-1].plan)}" if known else None
