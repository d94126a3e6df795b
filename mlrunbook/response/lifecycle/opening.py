"""How an incident begins: one transaction that opens or joins it, plans its first pages and asks for its run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.containment.breach import subtype_for
from mlrunbook.domain.detection.lifecycle import OpenedBy
from mlrunbook.domain.detection.reports import FirstReport, NewReport, Origin, Report, StatedSubtype
from mlrunbook.domain.detection.severity_change import SeverityDoubted
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Incident, Subtype
from mlrunbook.domain.policy.intake import UNPROVEN
from mlrunbook.domain.policy.owned import Known, Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import CANDIDATE_RECORDS, Record
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response import known_people
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.escalation import taken_up
from mlrunbook.response.communication.notifications import Page, page, request_action
from mlrunbook.response.execution import existing
from mlrunbook.response.known_models import refusal
from mlrunbook.response.lifecycle import flapping, reopening, severity_change, unknown_models
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, records, timeline

KNOWN, ACCEPTED = Standing(Known.KNOWN), Standing(Known.UNREACHABLE)


def take_in(
    conn: Connection, policy: Policy, report: Report, *, now: datetime, start: bool = True, standing: Standing = ACCEPTED
) -> tuple[Incident, bool]:
    """Open the incident, or join the one that is open for this model and failure family. The second value: it was opened.

    Whoever accepts the report answers 2xx only after this transaction commits. An alert's severity is only a first guess; a person's is a
    floor. `start=False`: the caller is the run itself. `standing`: what is known of the model's name, asked before the transaction
    (`World.known_models`); an unknown one gets no run.
    """
    if policy.names(report.model):
        standing = KNOWN
    by_alert = report.origin is Origin.ALERT
    if by_alert and not standing.is_unknown and (closed := reopening.find_closed(conn, policy, report.model, report.family, now=now)):
        back = reopening.reopen_for_alert(conn, policy, closed, report, now=now)
        flapping.note_opening(conn, policy, back, now=now)
        return back, True
    incident, is_new = incidents.open_or_join(conn, report, now=now, unproven=not flapping.counts(policy, report.proven_as))
    if not is_new:
        return _join(conn, policy, incident, report, start=start, standing=standing, now=now), False
    _keep_words(conn, incident.id, report, now=now)
    records.keep(conn, incident.id, FirstReport(by_alert, report.severity, report.type, report.proven_as, report.reported_by), now=now)
    if standing.is_unknown:
        unknown_models.opened(conn, policy, incident, standing, by=report.reported_by, sender=report.budget, now=now)
    else:
        unknown_models.begin(conn, policy, incident, now=now)
        begin_response(conn, policy, incident, by=report.reported_by, start=start, now=now)
    return incident, True


def begin_response(conn: Connection, policy: Policy, incident: Incident, *, by: str, start: bool, now: datetime) -> None:
    if start:
        leases.request_start(conn, incident.id, why=f"opened by {by}", now=now)
    else:
        leases.expect(conn, incident.id)
    flapping.note_opening(conn, policy, incident, now=now)


def _keep_words(conn: Connection, incident_id: str, report: Report, *, now: datetime) -> int | None:
    """What a person has said outlives the report. Returns its number; None where no person reports."""
    if subtype := subtype_for(report.type, report.subtype):
        said = StatedSubtype(report.reported_by, now, report.proven_as)
        standing = records.keep(conn, incident_id, said, subtype, now=now)
        if standing.proven_as == UNPROVEN != said.proven_as:
            records.replace(conn, incident_id, said, subtype, now=now)
    return reports.note(conn, incident_id, report, now=now) if report.by_person else None


def _keep_words_and_page(conn: Connection, policy: Policy, incident: Incident, report: Report, *, now: datetime) -> int | None:
    """A person's words take up what was only observed so far."""
    was_quiet = is_quiet(conn, policy, incident)
    number = _keep_words(conn, incident.id, report, now=now)
    if was_quiet:
        taken_up(conn, policy, incident, by=report.reported_by, now=now)
    return number


def _join(
    conn: Connection, policy: Policy, incident: Incident, report: Report, *, start: bool, standing: Standing, now: datetime
) -> Incident:
    number = _keep_words_and_page(conn, policy, incident, report, now=now)
    words = f"Reported again by {report.reported_by}: {report.told}"
    proves = incidents.unproven_opening(conn, incident.id) if flapping.counts(policy, report.proven_as) else None
    data: dict[str, Any] = {reports.BY_PERSON: True} if report.by_person else {}
    data |= {} if proves is None else {incidents.PROVES_OPENING: proves}
    timeline.append(conn, incident.id, "reported", words, actor=report.reported_by, at=now, data=data)
    if unknown_models.is_unknown(conn, incident.id):
        if standing.known is not Known.KNOWN:
            if report.by_person:
                unknown_models.reported_again(conn, policy, incident, words, now=now)
            else:
                unknown_models.vouched_for(conn, policy, incident, report, now=now)
            return incident
        unknown_models.recognise(conn, policy, incident, why=f"{report.reported_by} reports on it", now=now)
        begin_response(conn, policy, incident, by=report.reported_by, start=start, now=now)
    elif proves is not None:
        flapping.note_opening(conn, policy, incident, now=now)
    if _waits_for_outcomes(conn, incident.id):  # what has come may decide
        leases.wake(conn, incident.id, why=words, key=f"unproven-{now.isoformat()}", now=now)
    if subtype := report.subtype:  # what follows from it does not wait for whatever the run is waiting for
        leases.wake(conn, incident.id, why=f"{report.reported_by} reports {subtype.words}", key=f"subtype-{subtype}", now=now)
    if number is not None:
        return _heard(conn, policy, incident, report, number, now=now)
    if report.severity.rank <= incident.severity.rank:
        return incident
    if report.origin is Origin.ALERT:
        _doubt_severity(conn, policy, incident, report, now=now)
        return incident
    return severity_change.say(conn, policy, incident.id, _said(report), now=now)


def _waits_for_outcomes(conn: Connection, incident_id: str) -> bool:
    triage = records.recall_if_readable(conn, incident_id, Triage)
    return triage is not None and triage.real and triage.assessment.waits_for_outcomes


def _said(report: Report) -> severity_change.Said:
    return severity_change.Said(report.severity, report.reported_by, report.description, report.proven_as)


def _doubt_severity(conn: Connection, policy: Policy, incident: Incident, report: Report, *, now: datetime) -> None:
    """An alert's level is a guess: triage measures, people must hear of it now."""
    records.keep(conn, incident.id, SeverityDoubted(report.severity, now), now=now)
    leases.wake(conn, incident.id, why=report.description, key=f"worse-{report.severity}-{now.isoformat()}", now=now)
    why = f"{report.reported_by} reports {report.severity}, it is handled as {incident.severity}: {report.description}"
    for role in (Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD):
        page(conn, policy, incident, Page(role, why, f"reported-{report.severity}:{role}"), now=now)


def _heard(conn: Connection, policy: Policy, incident: Incident, report: Report, number: int, *, now: datetime) -> Incident:
    """A person's report joins: somebody hears of it, and no measurement ends what it is about."""
    words = f"reported again by {report.reported_by}: {report.description}"
    halted = reports.halt_closing(conn, incident, why=words, now=now)
    if report.severity.rank > incident.severity.rank:  # a person's severity is a floor
        return severity_change.say(conn, policy, incident.id, _said(report), now=now)
    why = f"{words}. Its recovery was being measured; it does not close by that any more" if halted else words
    todo = reports.how_to_end(incident.id) if halted else f"Look: mlrunbook incidents show {incident.id}"
    incident = incidents.get(conn, incident.id)
    request_action(conn, policy, incident, Page(Role.ONCALL_ML_ENGINEER, why, f"reported:{number}", todo), now=now)
    return incident


def stated_subtypes(conn: Connection, incident_id: str) -> dict[Subtype, StatedSubtype]:
    """The kinds of breach that people have named in their reports, and who has."""
    return {Subtype(name): said for name, said in records.of_kind(conn, incident_id, StatedSubtype).items()}


# --- a report that a run begins with


def open_or_join(
    world: World,
    said: NewReport,
    request: Request | None = None,
    *,
    by_run: str | None = None,
    start: bool = False,
    unknown_model: bool = False,
) -> str:
    """The id of the incident. A run that begins again from the top (resumed, retried) gets the one it has opened, and asks no second
    time: `by_run` is its id. `request` names a path a person asks for: it goes the same way
    through plan, approval and journal, only the diagnosis does not choose it; while a breach has the model server isolated it joins that
    incident, or says which one it was. Invalid, and no incident, where the request names what does not exist. `start`: the caller is not
    the run of the incident. NotFound for a model that nobody knows, unless `unknown_model`: a person reports it all the same."""
    report = said.checked(world.policy)
    if by_run and (opened := _opened_by(world, by_run)):
        return opened
    with world.transaction() as conn:
        report = replace(report, reported_by=known_people.checked(conn, world.policy, report.reported_by, "reportedBy"))
        if request:
            request = replace(request, by=known_people.checked(conn, world.policy, request.by, "requestedBy"))
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
            records.keep(conn, incident.id, OpenedBy(is_new), by_run, now=world.now())
        if request:
            text = _request_path(conn, world.policy, incident, request, isolated_by, now=world.now())
            if not is_new:  # a run that waits for a decision about another plan must plan anew
                key = f"request-{hashlib.sha256(json.dumps(request.to_record(), sort_keys=True).encode()).hexdigest()[:12]}"
                leases.wake(conn, incident.id, why=text, key=key, now=world.now())
    return incident.id


def _opened_by(world: World, run: str) -> str | None:
    with world.transaction() as conn:
        return records.incident_with(conn, Record.OPENED_BY.of(run))


def _request_path(
    conn: Connection, policy: Policy, incident: Incident, request: Request, isolated_by: Incident | None, *, now: datetime
) -> str:
    """Planned anew, by a person's word; returns what the timeline says."""
    fix = (Record.RESOLUTION_PLAN, Record.APPLIED, Record.HUMAN_RESOLUTION, *CANDIDATE_RECORDS)
    records.forget(conn, incident.id, Record.REQUEST, *fix)
    records.keep(conn, incident.id, request, now=now)
    text = f"{request.sentence}: {request.reason or 'no reason given'}"
    if isolated_by:
        text += f". {_isolated_words(policy, isolated_by)}"
    timeline.append(conn, incident.id, "plan", text, actor=request.by, at=now)
    return text


def _isolating(conn: Connection, model: str) -> Incident | None:
    """The newest incident that has cut this model's server off, open or closed; None: nobody has, or it was connected again."""
    return next((i for i in incidents.find(conn, model=model) if journal.isolations(conn, i.id)), None)


def _isolated_words(policy: Policy, by: Incident) -> str:
    """What whoever asks for a path has to know, and who can help."""
    who = " or ".join(role.words for role in policy.for_model(by.model).approvals.isolation.roles)
    if by.status.is_open:
        return f"The model server is isolated: {who} decides about lifting that first; a path may be taken while it stays isolated"
    return (
        f"The model server is isolated since {by.id}, which is closed: a path changes what it will serve, and nobody reaches it. "
        f"Report an incident of type {by.type}: there {who} may lift it"
    )
