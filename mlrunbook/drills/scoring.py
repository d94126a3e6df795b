"""One incident in numbers, and whether it ended as it should have: for the demo and its summary.json."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.action_state import SETTLED
from mlrunbook.domain.actions import PlanKind, RollBack
from mlrunbook.domain.communication.durations import times
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.resolution.candidate import Validation
from mlrunbook.domain.resolution.fix import Applied
from mlrunbook.domain.resolution.recovery import Recovery
from mlrunbook.domain.review.review import Drafted
from mlrunbook.drills.simulator.faults import Truth
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.response.review.reviews import current
from mlrunbook.store import incidents, journal, leases, outbox, plans, records, timeline

TOLERANCE = 0.05  # F1 counts as back within this share of the baseline


def has_ended(conn: Connection, incident_id: str) -> bool:
    """Closed or a false alarm, no run has anything left to do, and everybody has been told."""
    if incidents.get(conn, incident_id).status.is_open or leases.get(conn, incident_id).state != "done":
        return False
    return all(row["delivered_at"] or row["cancelled_at"] for row in outbox.of_incident(conn, incident_id, "page", "message"))


def waiting_for_decision(conn: Connection, incident_id: str) -> str | None:
    """The digest of the resolution plan that nobody has decided about."""
    plan = plans.current(conn, incident_id, PlanKind.RESOLUTION)
    if plan is None or leases.get(conn, incident_id).state != "waiting":
        return None
    return None if plans.approvals_of(conn, incident_id, plan.digest) else plan.digest


def waiting_for_release(conn: Connection, incident_id: str) -> str | None:
    """The digest of the plan to lift an isolation that nobody has decided about."""
    plan = plans.current(conn, incident_id, PlanKind.ISOLATION)
    if plan is None or leases.get(conn, incident_id).state != "waiting":
        return None
    return None if plans.approvals_of(conn, incident_id, plan.digest) else plan.digest


def review_of(conn: Connection, incident_id: str) -> str | None:
    return current(conn, incident_id) if records.recall(conn, incident_id, Drafted) else None


def summarise(conn: Connection, incident_id: str, *, fault: str, injected_at: datetime, applied: dict[str, int]) -> dict[str, Any]:
    """summary.json. `applied`: changes by kind as the platform itself counted them since the fault."""
    incident = incidents.get(conn, incident_id)
    triage = records.recall(conn, incident_id, Triage)
    diagnosis = records.recall(conn, incident_id, Diagnosed)
    recovery, done = records.recall(conn, incident_id, Recovery), records.recall(conn, incident_id, Applied)
    validation = records.recall(conn, incident_id, Validation)
    during = (diagnosis.figures if diagnosis else None) or (triage.figures if triage else Figures())
    return {
        "incident_id": incident.id,
        "model": incident.model,
        "fault": fault,
        "type": str(incident.type),
        "severity": str(incident.severity),
        "status": str(incident.status),
        "recommended_path": str(diagnosis.path) if diagnosis and diagnosis.path else None,
        "applied_path": str(done.path) if done else None,
        "cause": str(diagnosis.cause) if diagnosis else None,
        "causes": _first_three(diagnosis),
        "candidate": validation.to_record() if validation else None,
        "f1": {"baseline": during.f1_baseline, "during": during.f1_now, "after": recovery.f1 if recovery else None},
        "seconds": _seconds(incident, injected_at),
        "actions": _actions(conn, incident_id, applied),
        "platform_applied": applied,
        "pages": [_sent(row) for row in outbox.of_incident(conn, incident_id, "page") if row["delivered_at"]],
        "approvals": [
            {"plan": a.plan_digest, "decision": a.decision, "approver": a.approver, "door": a.door, "verified": a.verified, "at": a.at}
            for a in plans.approvals_of(conn, incident_id)
        ],
        "timeline": [{"at": e.at, "kind": e.kind, "actor": e.actor, "text": e.text} for e in timeline.read(conn, incident_id)],
        "files": [],
    }


def _first_three(diagnosis: Diagnosed | None) -> list[str]:
    """The causes that are not ruled out, best first; `unknown` is the first where none is supported well enough."""
    if diagnosis is None:
        return []
    return list(dict.fromkeys(str(cause) for cause in (diagnosis.cause, *(lead.cause for lead in diagnosis.leads))))[:3]


def nothing_happened(*, fault: str, injected_at: datetime, applied: dict[str, int], model: str = MODEL) -> dict[str, Any]:
    """summary.json where no incident has opened."""
    empty: dict[str, Any] = dict.fromkeys(
        ("incident_id", "type", "severity", "status", "recommended_path", "applied_path", "cause", "candidate")
    )
    return (
        empty
        | {
            "model": model,
            "fault": fault,
            "causes": [],
            "f1": dict.fromkeys(("baseline", "during", "after")),
            "seconds": dict.fromkeys(("to_detect", "to_acknowledge", "to_contain", "to_resolve")),
            "platform_applied": applied,
            "injected_at": injected_at,
        }
        | {key: [] for key in ("actions", "pages", "approvals", "timeline", "files")}
    )


def differences(facts: dict[str, Any], truth: Truth) -> list[str]:
    """Where the outcome is not the known truth; empty when it is."""
    false_alarm = truth.status is Status.FALSE_ALARM
    if facts["incident_id"] is None:
        changed = [kind for kind, n in facts["platform_applied"].items() if n]
        wrong = [] if truth.quiet_s else ["no incident has opened"]
        return wrong + ([f"production was changed: {', '.join(changed)}"] if changed else [])
    expected = {"status": str(truth.status)}
    if not false_alarm:
        expected |= {"severity": str(truth.severity), "type": str(truth.type), "cause": str(truth.diagnosed)}
    path = str(truth.path) if truth.path else None
    wrong = [f"{key} is {facts[key]}, should be {want}" for key, want in expected.items() if facts[key] != want]
    if facts["applied_path"] != path:
        wrong.append(f"applied path is {facts['applied_path']}, should be {path}")
    applied = {kind: n for kind, n in facts["platform_applied"].items() if n}
    if false_alarm:
        changed = [a["name"] for a in facts["actions"]] + list(applied)
        return wrong + ([f"production was changed: {', '.join(changed)}"] if changed else [])
    if path is None and (changed := sorted({"rollback", "promote"} & set(applied))):
        wrong.append(f"another version was made to serve ({', '.join(changed)}), which nobody was to be offered")
    candidate = facts["candidate"] or {}
    refused = candidate["version"] if candidate.get("verdict") == "do_not_promote" else None
    if refused != truth.refused:
        wrong.append(f"the refused candidate is {refused}, should be {truth.refused}")
    f1 = facts["f1"]
    if not f1["after"] or not f1["baseline"] or f1["after"] < f1["baseline"] * (1 - TOLERANCE):
        wrong.append(f"F1 after is {f1['after']}, not within 5 % of the baseline {f1['baseline']}")
    wrong += [f"{a['name']}: {a['state']}" for a in facts["actions"] if a["state"] not in SETTLED]
    return wrong


def in_words(facts: dict[str, Any]) -> str:
    if facts["incident_id"] is None:
        return "no incident; nothing was changed."
    if facts["status"] == Status.FALSE_ALARM:
        return "a false alarm, recognised; nothing was changed."
    if facts["applied_path"] is None:
        return f"{facts['severity']}, no safe automatic path, fixed by people, recovered and closed."
    return f"{facts['severity']}, path {facts['applied_path']}, recovered and closed."


def _actions(conn: Connection, incident_id: str, applied: dict[str, int]) -> list[dict[str, Any]]:
    """Applied counts are the platform's own where it counts (rollbacks), else how often execute() applied."""
    rows = journal.of_incident(conn, incident_id)
    kinds = {row.plan_digest: plans.get(conn, incident_id, row.plan_digest).kind for row in rows}
    names = {row.id: row.summary for row in rows}
    return [
        {
            "name": row.summary,
            "kind": row.kind,
            "plan": str(kinds[row.plan_digest]),
            "target": row.target,
            "state": row.state,
            "applied_count": applied.get("rollback", 0) if row.kind == RollBack.kind else row.attempts,
            "undone": _afterwards(row, names, kinds[row.plan_digest]),
        }
        for row in rows
    ]


def _afterwards(row: journal.Row, names: dict[str, str], kind: PlanKind) -> str | None:
    if row.undone_by:
        return f"taken back: {names.get(row.undone_by, row.undone_by)}"
    if row.kept_because:
        return f"kept: {row.kept_because}"
    if kind is PlanKind.ISOLATION and not row.target.get("isolated"):
        return "stays: a named person's decision"
    if kind is PlanKind.STAGING:
        return "stays: nothing serves it by that"
    return "takes containment back" if row.undo_of or kind is PlanKind.UNDO else None


def _seconds(incident: Incident, injected_at: datetime) -> dict[str, float | None]:
    took = times(incident)
    spans = {"to_acknowledge": took.to_acknowledge, "to_contain": took.to_contain, "to_resolve": took.to_resolve}
    seconds = {key: round(span.total_seconds(), 1) if span is not None else None for key, span in spans.items()}
    return {"to_detect": round((incident.detected_at - injected_at).total_seconds(), 1), **seconds}


def _sent(row: dict[str, Any]) -> dict[str, Any]:
    return {"to": row["payload"]["to"], "why": row["payload"]["reason"], "at": row["delivered_at"]}
