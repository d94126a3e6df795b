"""An incident that begins in Prefect: the UI's custom run, the API, a schedule, or a path started alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Subtype
from mlrunbook.domain.owned import is_model_id
from mlrunbook.domain.policy import Policy
from mlrunbook.intake import take_in
from mlrunbook.known_models import refusal
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
    by_person: bool = True,
    unknown_model: bool = False,
) -> str:
    """The id of the incident. A run that begins again from the top (resumed, retried) gets the one it has opened, and asks no second
    time: `by_run` is its id. `request` names a path a person asks for ({"path", "by", "reason", ...}): it goes the same way
    through plan, approval and journal, only the diagnosis does not choose it; while a breach has the model server isolated it joins that
    incident, or says which one it was. Invalid, and no incident, where the request names what does not exist. `start`: the caller is not
    the run of the incident. NotFound for a model that nobody knows, unless `unknown_model`: a person reports it all the same."""
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
        by_person=by_person,
    )
    if not is_model_id(report.model):
        raise Invalid(f"{report.model[:100]!r} is no model id: letters, digits, '.', '_' and '-', 100 at most", field="model")
    if by_run and (opened := _opened_by(world, by_run)):
        return opened
    standing = world.known_models.of(world.policy, [report.model], fresh=True)[report.model]
    if standing.is_unknown and (request or not unknown_model):
        raise NotFound(refusal(report.model, standing.hint))
    if request:
        existing.check_request(world, report.model, request)
    with world.transaction() as conn:
        isolated_by = _isolating(conn, report.model) if request else None
        if isolated_by and isolated_by.status.is_open:
            report = replace(report, type=isolated_by.type, family=isolated_by.family)
        incident, is_new = take_in(conn, world.policy, report, now=world.now(), start=start, standing=standing)
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


def _opened_by(world: World, run: str) -> str | None:
    with world.transaction() as conn:
        return records.incident_with(conn, f"opened_by:{run}")


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
