"""Sections about what the incident store records, which more than one audit has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mlrunbook.domain.audits.section import Bars, Section, Table, Verdict, listed
from mlrunbook.domain.communication.durations import in_words, response_deadline, times
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.roles import Role


def incidents_section(
    incidents: Sequence[Incident], causes: Mapping[str, str], now: datetime, policy: Policy, unit: str, group: str = ""
) -> Section:
    """The incidents of the period with their times. Fails when one was not answered within its response time."""
    key, title = "incidents", f"Incidents of the {unit}"
    real = [i for i in incidents if i.status is not Status.FALSE_ALARM]
    if not incidents:
        return Section(key, title, Verdict.PASS, f"no incident in this {unit}", group=group)
    late = [i.id for i in real if is_late(i, now, policy)]
    rows = []
    for one in sorted(incidents, key=lambda i: i.detected_at):
        took = times(one)
        spans = (took.to_detect, took.to_acknowledge, took.to_contain, took.to_resolve)
        words = tuple("-" if span is None else in_words(span) for span in spans)
        cause = causes.get(one.id, "") or one.description
        rows.append((one.id, f"{one.detected_at:%m-%d %H:%M}", one.severity.value, one.status.value.replace("_", " "), *words, cause))
    columns = ("Incident", "Detected, UTC", "Severity", "Status", "To detect", "To answer", "To contain", "To resolve", "Cause")
    table = Table("Incidents and their times", columns, tuple(rows))
    open_ = [i.id for i in real if i.status.is_open]
    said = counted(len(real), "incident")
    if false := len(incidents) - len(real):
        said += f", {counted(false, 'false alarm')}"
    said += f", {len(open_)} still open ({listed(open_)})" if open_ else ""
    charts = (_times_chart(real),) if any(i.resolved_at for i in real) else ()
    if late:
        return Section(
            key, title, Verdict.FAIL, f"{said}; not answered within the response time: {listed(late)}", charts, (table,), group=group
        )
    return Section(key, title, Verdict.PASS, f"{said}; each answered within its response time", charts, (table,), group=group)


def is_late(incident: Incident, now: datetime, policy: Policy) -> bool:
    """Not answered by a person within the response time of its severity. One that ended by itself before then needed no answer."""
    deadline = response_deadline(incident, policy)
    ended = min((at for at in (incident.acknowledged_at, incident.resolved_at, incident.closed_at) if at), default=now)
    return ended > deadline


def _times_chart(incidents: Sequence[Incident], most: int = 12) -> Bars:
    """Minutes from detection: to the answer, from there to containment, from there to the end."""
    newest = sorted(incidents, key=lambda i: i.detected_at)[-most:]
    parts: dict[str, list[float]] = {"to answer": [], "to contain": [], "to resolve": []}
    for one in newest:
        took = times(one)
        reached = 0.0
        for name, span in (("to answer", took.to_acknowledge), ("to contain", took.to_contain), ("to resolve", took.to_resolve)):
            minutes = max(span.total_seconds() / 60, reached) if span is not None else reached
            parts[name].append(minutes - reached)
            reached = minutes
    return Bars("Minutes from detection, by incident", tuple(i.id for i in newest), {k: tuple(v) for k, v in parts.items()}, unit=" min")


def action_items(items: Sequence[Item], now: datetime, group: str = "") -> Section:
    """Fails on one that is overdue. Its owner is reminded; that is no incident."""
    key, title = "action_items", "Open action items"
    open_ = [i for i in items if i.status.is_open]
    overdue = [i for i in open_ if i.is_overdue(now)]
    rows = tuple((i.incident_id, i.action, Role.named(i.owner_role), f"{i.due_at:%Y-%m-%d}", i.standing(now)) for i in open_)
    tables = (Table("Action items", ("Incident", "Action", "Owner", "Due", "Stands"), rows),) if rows else ()
    if overdue:
        return Section(
            key, title, Verdict.FAIL, f"{len(overdue)} of {len(open_)} open action items are overdue", tables=tables, group=group
        )
    sentence = f"{counted(len(open_), 'open action item')}, none overdue" if open_ else "no action item is open"
    return Section(key, title, Verdict.PASS, sentence, tables=tables, group=group)
