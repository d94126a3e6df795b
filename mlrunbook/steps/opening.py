"""An incident that begins in Prefect: the UI's custom run, the API, a schedule, or a path started alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Subtype
from mlrunbook.domain.policy import Policy
from mlrunbook.intake import take_in
from mlrunbook.steps import breach, existing
from mlrunbook.steps.promotion import CANDIDATE_RECORDS
from mlrunbook.store import incidents, leases, records, timeline
from mlrunbook.store.incidents import Report
from mlrunbook.wiring import World


def open_or_join(
    world: World,
    model: str,
    severity: Severity,
    type: IncidentType,
    description: str,
    impact: str,
    reported_by: str,
    request: dict[str, Any] | None = None,
    *,
    by_run: str | None = None,
    subtype: Subtype | None = None,
    start: bool = False,
) -> str:
    """The id of the incident. A run that begins again from the top (resumed, retried) gets the one it has opened, and asks no second
    time: `by_run` is its id. `request` names a path a person asks for ({"path", "by", "reason", ...}): it goes the same way
    through plan, approval and journal, only the diagnosis does not choose it; while a breach has the model server isolated it joins that
    incident, or says which one it was. Invalid, and no incident, where the request names what does not exist. `start`: the caller is not
    the run of the incident."""
    for name, value in (("model", model), ("description", description), ("reportedBy", reported_by)):
        if not value.strip():
            raise Invalid(f"{name} is empty: give an incident id, or model, description and reportedBy", field=name)
    report = Report(
        model=model.strip(),
        type=type,
        family=world.policy.family_of(type),
        severity=severity,
        description=description.strip(),
        impact=impact.strip(),
        reported_by=reported_by.strip(),
        subtype=subtype,
    )
    with world.transaction() as conn:
        opened = records.incident_with(conn, f"opened_by:{by_run}") if by_run else None
    if opened:
        return opened
    if request:
        existing.check_request(world, report.model, request)
    with world.transaction() as conn:
        isolated_by = _isolating(conn, report.model) if request else None
        if isolated_by and isolated_by.status.is_open:
            report = replace(report, type=isolated_by.type, family=isolated_by.family)
        incident, is_new = take_in(conn, world.policy, report, now=world.now(), start=start)
        if by_run:
            records.put(conn, incident.id, f"opened_by:{by_run}", {"new": is_new}, now=world.now())
        if request:
            records.forget(conn, incident.id, "request", "resolution_plan", "applied", "human_resolution", *CANDIDATE_RECORDS)
            records.put(conn, incident.id, "request", request, now=world.now())
            text = f"{request['by']} asks for path {request['path']}: {request['reason'] or 'no reason given'}"
            if isolated_by:
                text += f". {_isolated_words(world.policy, isolated_by)}"
            timeline.append(conn, incident.id, "plan", text, actor=request["by"], at=world.now())
            if not is_new:  # a run that waits for a decision about another plan must plan anew
                key = f"request-{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]}"
                leases.nudge(conn, incident.id, why=text, key=key, now=world.now())
    return incident.id


def _isolating(conn: Connection, model: str) -> Incident | None:
    """The newest incident that has cut this model's server off, open or closed; None: nobody has, or it was connected again."""
    return next((i for i in incidents.find(conn, model=model) if breach.isolations(conn, i.id)), None)


def _isolated_words(policy: Policy, by: Incident) -> str:
    """What whoever asks for a path has to know, and who can help."""
    who = " or ".join(role.words for role in policy.approvals.isolation.roles)
    if by.status.is_open:
        return f"The model server is isolated: {who} decides about lifting that first; a path may be taken while it stays isolated"
    return (
        f"The model server is isolated since {by.id}, which is closed: a path changes what it will serve, and nobody reaches it. "
        f"Report an incident of type {by.type}: there {who} may lift it"
    )
