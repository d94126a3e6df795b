"""Step 1: is it real, how severe, what does it touch; then page and post."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.containment.containment import is_stopped
from mlrunbook.domain.containment.orders import OrderState
from mlrunbook.domain.detection.severity import AlertSignal, Assessment, assess, on_a_persons_word
from mlrunbook.domain.detection.severity_change import is_measured_as_it_was, risen
from mlrunbook.domain.errors import RunbookError, Transient
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.policy import CostAssumptions
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.escalation import escalate, schedule_update
from mlrunbook.response.communication.notifications import opened_at, reopening, send_message, snapshot, stop
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.execution.standing_orders import of_run, summary_of
from mlrunbook.response.lifecycle.reopening import close_as_it_was, discard, is_unproven
from mlrunbook.response.lifecycle.severity_change import change_severity, lowered_from
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import alerts, incidents, records


def triage(run: Run) -> dict[str, Any]:
    """Look until the evidence decides or the looks are used up, then record the outcome and tell people."""
    found = run.recorded("triage")
    if found and not _is_outgrown(run, found):
        if run.recorded(Record.SEVERITY_DOUBTED):
            reassess_severity(run)
        return run.recorded("triage") or found
    policy = run.world.policy
    for number in range(1, policy.triage.looks + 1):
        final = number == policy.triage.looks
        assessment, metrics, status = look(run, final_look=final)
        if assessment.real is not None and not (assessment.may_be_worse and not final):
            break
        with run.write() as conn:
            run.note(conn, "triage", f"Look {number} of {policy.triage.looks}: {assessment.reasons[0]}")
        run.world.sleep(policy.triage.seconds_between_looks)
    if not assessment.real and (asked := _asked(run)):  # a person wants a change: there is work to do, whatever is measured
        assessment = replace(assessment, real=True, insufficient=True, reasons=(asked, *assessment.reasons))
    again = run.recorded(Record.REOPENED)
    if again and not is_unproven(again):  # measured: a fix that did not hold is no false alarm
        unproven = assessment.insufficient or not assessment.real
        reasons = (f"reopened: {again['why']}", *assessment.reasons)
        assessment = replace(assessment, real=True, insufficient=unproven, reasons=reasons)
    return _settle(run, assessment, metrics, status)


def _asked(run: Run) -> str | None:
    """What a person wants changed: a path, or containment that was ordered on the spot."""
    if request := run.recall(Request):
        return request.sentence
    return ordered(run)


def _is_outgrown(run: Run, found: dict[str, Any]) -> bool:
    """A critical failure was missed after triage: what it found is put aside, and so is the containment that followed from it."""
    if not missed_failure(run) or affects_safety(found) or run.recall(Applied):
        return False
    with run.write() as conn:
        run.note(conn, "triage", "A critical failure was missed since: judged and contained anew")
        records.forget(conn, run.incident_id, "triage", "containment", "contained")
    return True


def reassess_after_investigation(run: Run) -> bool:
    """Step 3, once the checklist is answered: True when the severity rose, and containment is to be planned anew."""
    if run.recorded(Record.GRADED_AGAIN):
        return False
    rose = reassess_severity(run)
    with run.write() as conn:
        run.record(conn, Record.GRADED_AGAIN, {"rose": rose})
    return rose


def reassess_severity(run: Run) -> bool:
    """One more look, where what is measured is still the failure and not what was done about it."""
    found = run.recorded("triage") or {}
    with run.write() as conn:
        records.forget(conn, run.incident_id, Record.SEVERITY_DOUBTED)  # what comes from here on is another doubt
    if not found.get("real") or run.recall(Applied) or not is_measured_as_it_was([e.action for e in executed_containment(run)]):
        return False
    seen, metrics, status = look(run, final_look=True)
    if metrics is None or status is None or not status.server_healthy or not seen.real:
        return False  # a platform or a server that does not answer is an incident of its own
    with run.write() as conn:
        incident = incidents.get(conn, run.incident_id, lock=True)
        to = risen(incident.severity, seen.severity, lowered_from(conn, run.incident_id))
        if to is incident.severity:
            return False
        words = f"measured again, it is {to} and no longer {incident.severity}: {'; '.join(seen.reasons)}"
        change_severity(conn, run.world.policy, incident, to, replace(seen, severity=to), words=words, by=ACTOR, now=run.world.now())
    return True


def missed_failure(run: Run) -> str:
    """The critical failure that was missed, as its alert tells it; "" where none was."""
    with run.world.transaction() as conn:
        signals = [_signal(run, a["body"]) for a in alerts.of_incident(conn, run.incident_id)]
    return next((s.summary or s.name for s in signals if s.name == MISSED_FAILURE_ALERT), "")


def look(run: Run, *, final_look: bool = False) -> tuple[Assessment, ModelMetrics | None, ServingStatus | None]:
    """One assessment from what the store and the platform say right now."""
    with run.world.transaction() as conn:
        incident = incidents.get(conn, run.incident_id)
        reported = records.get(conn, run.incident_id, "report") or {}
        by_person = (records.get(conn, run.incident_id, Record.SEVERITY_SET) or {}).get("by_person", False)
        again = records.get(conn, run.incident_id, Record.REOPENED)
        begun = datetime.fromisoformat(again["at"]) if again and is_unproven(again) else incident.detected_at
        told = _told_since(conn, incident)
        fired = [a["body"] for a in alerts.of_incident(conn, run.incident_id) if a["last_seen_at"] >= begun]
    metrics = status = None
    reachable = True
    try:
        status = run.world.platform.status(incident.model)
        metrics = measured.metrics(run, version=status.server_version or status.serving_version)
        if is_stopped(executed_containment(run)):  # a server that was stopped on purpose is no outage
            status = replace(status, server_healthy=True)
    except Transient:
        reachable = False
    except RunbookError as error:  # it answers, but has nothing on this model: judge by the report
        with run.write() as conn:
            run.note(conn, "triage", f"The model platform has no metrics for {incident.model}: {error}")
    severity: Severity | None = incident.severity
    type_: IncidentType | None = incident.type
    if reported.get("by_alert") and not by_person:  # its severity is a guess: what people have reported since is none
        severity = max((t.severity for t in told), key=lambda s: s.rank, default=None)
        type_ = told[0].type if told else None
    assessment = assess(
        reported_severity=severity,
        reported_type=type_,
        alerts=[_signal(run, body) for body in fired],
        metrics=metrics,
        status=status,
        platform_reachable=reachable,
        policy=run.world.policy.severity,
        fairness=run.world.policy.fairness,
        final_look=final_look,
    )
    return assessment, metrics, status


def _told_since(conn: Connection, incident: Incident) -> list[reports.Told]:
    """What people have reported since it was opened, or opened again."""
    begun = opened_at(conn, incident) if reopening(conn, incident.id) else incident.detected_at
    return [one for one in reports.of_incident(conn, incident.id) if one.at >= begun]


def _signal(run: Run, body: dict[str, Any]) -> AlertSignal:
    labels, annotations = body.get("labels", {}), body.get("annotations", {})
    name = str(labels.get("alertname", "alert"))
    level, summary = str(labels.get("severity", "warning")), messages.line(str(annotations.get("summary", "")))
    return AlertSignal(name, level, run.world.policy.type_of_alert(name), summary)


def _settle(run: Run, found: Assessment, metrics: ModelMetrics | None, status: ServingStatus | None) -> dict[str, Any]:
    pending = _pending_work_orders(run)
    with run.write() as conn:
        if standing := records.get(conn, run.incident_id, "triage"):
            return standing
        policy, now = run.world.policy, run.world.now()
        verdict = "triage found it real"
        if _told_since(conn, incidents.get(conn, run.incident_id)):
            verdict = verdict if found.real else "a person reported it, and no measurement shows it"
            found = on_a_persons_word(found, metrics)
        if lowered := lowered_from(conn, run.incident_id):  # a person's word before triage spoke
            found = replace(found, severity=risen(incidents.get(conn, run.incident_id).severity, found.severity, lowered))
        summary = "; ".join(found.reasons)
        data = {
            "real": bool(found.real),
            "severity": found.severity,
            "type": found.type,
            "summary": summary,
            "assessment": asdict(found),
            "baseline": asdict(metrics.baseline.confusion) if metrics else None,
            "baseline_by_type": {name: asdict(c) for name, c in metrics.baseline.by_asset_type.items()} if metrics else {},
            "figures": asdict(figures_of(metrics, policy.costs)),
            "affected": {
                "model": incidents.get(conn, run.incident_id).model,
                "version": status.serving_version if status else None,
                "asset_types": sorted(metrics.current.by_asset_type) if metrics else [],
                "pending_work_orders": pending,
            },
        }
        recorded = run.record(conn, "triage", data)
        again = records.get(conn, run.incident_id, Record.REOPENED)
        if not found.real and is_unproven(again):
            close_as_it_was(conn, run.incident_id, why=summary, actor=ACTOR, now=now)
            stop(conn, run.incident_id, now=now)
            return recorded
        if is_unproven(again):
            discard(conn, run.incident_id)
        if not found.real:
            incidents.set_status(conn, run.incident_id, Status.FALSE_ALARM, why=summary, actor=ACTOR, now=now)
            stop(conn, run.incident_id, now=now)
            incident = incidents.get(conn, run.incident_id)
            text = messages.Rendered(f"[FALSE ALARM] {messages.model_name(incident.model)}", f"{incident.id}: {summary}")
            send_message(conn, incident, "incidents", "#ml-incidents", text, key="false-alarm", now=now)
            return recorded
        version = status.server_version or status.serving_version if status else None
        incident = incidents.classify(
            conn, run.incident_id, severity=found.severity, type=found.type, why=summary, actor=ACTOR, now=now, model_version=version
        )
        _tell_people(run, conn, incident, verdict)
        incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=verdict, actor=ACTOR, now=now)
    return recorded


def _tell_people(run: Run, conn: Connection, incident: Incident, verdict: str) -> None:
    """Page by the ladder of the severity found; low is a ticket for the queue and no page."""
    policy, now = run.world.policy, run.world.now()
    told = replace(snapshot(conn, policy, incident, now=now), status=Status.INVESTIGATING)
    escalate(conn, policy, incident, now=now)
    if incident.severity is Severity.LOW:
        send_message(conn, incident, "tickets", "the ticket queue", messages.ticket(told), key="ticket", now=now)
        return
    post = messages.page(told, Role.ONCALL_ML_ENGINEER, verdict)
    send_message(conn, incident, "incidents", "#ml-incidents", post, key="triage", now=now)
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


def _pending_work_orders(run: Run) -> int | None:
    try:
        return len(run.world.platform.work_orders(run.incident().model, state="pending"))
    except RunbookError:
        return None


def affects_safety(recorded: dict[str, Any]) -> bool:
    return bool(recorded["assessment"].get("safety_risk"))


def ordered(run: Run) -> str | None:
    """Who has ordered what, of the newest order that nobody has withdrawn; None where there is none."""
    with run.world.transaction() as conn:
        known = [o for o in of_run(run, conn) if o.state is not OrderState.REJECTED]
    return f"{known[-1].plan.reasons[0]}: {summary_of(known[-1].plan)}" if known else None
