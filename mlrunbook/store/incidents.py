"""Incidents: open or join, read, and move along. Every write locks the incident's row first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Connection, Row, Text, cast, exists, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.domain.detection.flapping import Ending
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status, transition
from mlrunbook.domain.records import Record
from mlrunbook.store import row_events, timeline
from mlrunbook.store.tables import ONE_OPEN, OPENING, incidents, leases
from mlrunbook.store.tables import records as records_table
from mlrunbook.store.tables import timeline as timeline_table

OPEN = incidents.c.status.not_in([s.value for s in Status if not s.is_open])
NEXT_NUMBER = text("SELECT nextval(pg_get_serial_sequence('incidents', 'number'))")
IS_OPENING = text(f"(timeline.{OPENING.replace(' OR ', ' OR timeline.')})")
# In the data of entries: an opening that rests on an unproven sender's word alone; what vouches for one, by the opening's number.
UNPROVEN, PROVES_OPENING = "unproven", "proves_opening"
PROVING = ("reported", "severity")
FIELDS = [c for c in incidents.c if c.name not in ("number", "moved_s")]


def open_or_join(conn: Connection, report: Report, *, now: datetime, unproven: bool = False) -> tuple[Incident, bool]:
    """The open incident of this model and family, made when there is none. The second value says whether it is new. `unproven`: see
    `openings`.

    Two reporters at once get the same incident: the unique index decides, the loser joins.
    """
    existing = open_of(conn, report.model, report.family)
    if existing:
        return existing, False
    number = conn.execute(NEXT_NUMBER).scalar_one()
    row = row_events.add(
        conn,
        f"incident_{number}",
        upsert(incidents)
        .values(
            number=number,
            id=f"incident_{number}",
            model=report.model,
            model_version=report.model_version,
            type=report.type.value,
            family=report.family,
            severity=report.severity.value,
            status=Status.DETECTED.value,
            description=report.description,
            impact=report.impact,
            reported_by=report.reported_by,
            started_at=report.started_at,
            detected_at=now,
        )
        .on_conflict_do_nothing(index_elements=["model", "family"], index_where=text(ONE_OPEN)),
    )
    if row is None:
        joined = open_of(conn, report.model, report.family)
        if joined is None:  # it closed between our two looks
            return open_or_join(conn, report, now=now, unproven=unproven)
        return joined, False
    made = str(row["id"])
    conn.execute(insert(leases).values(incident_id=made, generation=1, state="free"))
    timeline.append(
        conn,
        made,
        "detected",
        f"Incident detected: {report.told}",
        actor=report.reported_by,
        at=now,
        data={UNPROVEN: True} if unproven else None,
    )
    return get(conn, made), True


def of_ids(conn: Connection, incident_ids: Iterable[str]) -> dict[str, Incident]:
    rows = conn.execute(select(*FIELDS).where(incidents.c.id == func.any(cast(list(incident_ids), ARRAY(Text)))))
    return {r.id: incident_of(r) for r in rows}


def get(conn: Connection, incident_id: str, *, lock: bool = False) -> Incident:
    query = select(*FIELDS).where(incidents.c.id == incident_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no incident {incident_id!r}; list them with `mlrunbook incidents list`")
    return incident_of(row)


def find(
    conn: Connection,
    *,
    model: str | None = None,
    status: Status | None = None,
    only_open: bool = False,
    before: int | None = None,
    limit: int = 100,
) -> list[Incident]:
    """Newest first, below the number `before`."""
    query = select(*FIELDS).order_by(incidents.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(incidents.c.number < before)
    if model:
        query = query.where(incidents.c.model == model)
    if status:
        query = query.where(incidents.c.status == status.value)
    if only_open:
        query = query.where(OPEN)
    return [incident_of(r) for r in conn.execute(query)]


def models(conn: Connection) -> list[str]:
    """Every model that has had an incident, by name. Goes from one name to the next, however many incidents each has."""
    return [row.model for row in conn.execute(_MODELS)]


_MODELS = text("""
    WITH RECURSIVE named AS (
        SELECT min(model) AS model FROM incidents
        UNION ALL
        SELECT (SELECT min(model) FROM incidents WHERE model > named.model) FROM named WHERE named.model IS NOT NULL
    ) SELECT model FROM named WHERE model IS NOT NULL
""")


def last_ended(conn: Connection, model: str, *, by: datetime) -> datetime | None:
    """When the last incident of this model that was none of false alarm was resolved, or closed, by then; None: never."""
    ended = func.coalesce(incidents.c.resolved_at, incidents.c.closed_at)
    query = select(func.max(ended)).where(incidents.c.model == model, incidents.c.status != Status.FALSE_ALARM.value, ended <= by)
    found: datetime | None = conn.execute(query).scalar_one()
    return found


def open_since(conn: Connection, model: str) -> datetime | None:
    """When the oldest incident of this model that is open was detected; None: there is none."""
    found: datetime | None = conn.execute(select(func.min(incidents.c.detected_at)).where(incidents.c.model == model, OPEN)).scalar_one()
    return found


def number_of(conn: Connection, incident_id: str) -> int:
    return int(conn.execute(select(incidents.c.number).where(incidents.c.id == incident_id)).scalar_one())


def open_by_kind(conn: Connection) -> dict[tuple[str, str, str], int]:
    """How many are not over, by model, type and severity."""
    kind = (incidents.c.model, incidents.c.type, incidents.c.severity)
    return {(r.model, r.type, r.severity): r.n for r in conn.execute(select(*kind, func.count().label("n")).where(OPEN).group_by(*kind))}


def unproven_by_kind(conn: Connection) -> dict[tuple[str, str], int]:
    """How many of those that are not over rest on what triage calls unproven, by model and severity. They are in `open_by_kind` too."""
    kind = (incidents.c.model, incidents.c.severity)
    unproven = (records_table.c.step == Record.TRIAGE.value) & (records_table.c.data["assessment"]["unproven"].astext == "true")
    query = select(*kind, func.count().label("n")).join(records_table, records_table.c.incident_id == incidents.c.id).where(OPEN, unproven)
    return {(r.model, r.severity): r.n for r in conn.execute(query.group_by(*kind))}


def set_status(conn: Connection, incident_id: str, to: Status, *, why: str, actor: str, now: datetime) -> Incident:
    """Move along the runbook's path. Staying put writes nothing."""
    incident = get(conn, incident_id, lock=True)
    if incident.status is to:
        return incident
    transition(incident.status, to)
    stamps: dict[str, Any] = {"status": to.value}
    for status, column in ((Status.CONTAINED, "contained_at"), (Status.RESOLVED, "resolved_at"), (Status.CLOSED, "closed_at")):
        if to is status and getattr(incident, column) is None:
            stamps[column] = now
    if to is Status.FALSE_ALARM:
        stamps["closed_at"] = now
    _set(conn, incident_id, **stamps)
    timeline.append(conn, incident_id, "status", f"Status {incident.status} -> {to}: {why}", actor=actor, at=now, data={"to": to.value})
    return get(conn, incident_id)


def close_again(conn: Connection, incident_id: str, ended: Ending, *, why: str, actor: str, now: datetime) -> Incident:
    """What was opened again by mistake ends when it had ended."""
    set_status(conn, incident_id, Status.RESOLVED, why=why, actor=actor, now=now)
    closed = set_status(conn, incident_id, Status.CLOSED, why=why, actor=actor, now=now)
    _set(conn, incident_id, **asdict(ended))
    return get(conn, closed.id)


def openings(conn: Connection, model: str, family: str, *, since: datetime) -> list[datetime]:
    """When incidents of this model and family were opened, and opened again, after `since`; oldest first. Without those that rest on the
    word of an unproven sender alone."""
    entry, proof = timeline_table, timeline_table.alias()
    proven = exists().where(
        proof.c.incident_id == entry.c.incident_id,
        proof.c.kind.in_(PROVING),
        proof.c.data[PROVES_OPENING].astext == cast(entry.c.seq, Text),
    )
    query = (
        select(entry.c.at)
        .join(incidents, entry.c.incident_id == incidents.c.id)
        .where(incidents.c.model == model, incidents.c.family == family, entry.c.at > since, IS_OPENING)
        .where(or_(entry.c.data[UNPROVEN].astext.is_(None), proven))
    )
    return list(conn.execute(query.order_by(entry.c.at)).scalars())


def unproven_opening(conn: Connection, incident_id: str) -> int | None:
    """The number of the timeline's entry with which the incident was opened last, where nobody but unproven senders has vouched for it."""
    t = timeline_table.c
    mine = (t.incident_id == incident_id) & t.kind.in_(("detected", "status"))
    last = conn.execute(select(t.seq, t.data).where(mine, IS_OPENING).order_by(t.seq.desc()).limit(1)).first()
    if last is None or UNPROVEN not in last.data:
        return None
    vouched = (t.incident_id == incident_id) & t.kind.in_(PROVING) & (t.data[PROVES_OPENING].astext == str(last.seq))
    return None if conn.execute(select(t.seq).where(vouched).limit(1)).first() else int(last.seq)


def reopen(conn: Connection, incident_id: str, *, why: str, actor: str, now: datetime, unproven: bool = False) -> Incident:
    """A closed incident that is not over: investigated again, and its times of resolution and closing are yet to come."""
    incident = get(conn, incident_id, lock=True)
    to = transition(incident.status, Status.INVESTIGATING)
    _set(conn, incident_id, status=to.value, **asdict(Ending(None, None, None)))
    data = {"to": to.value, "reopened": True} | ({UNPROVEN: True} if unproven else {})
    timeline.append(conn, incident_id, "status", f"Status {incident.status} -> {to}: {why}", actor=actor, at=now, data=data)
    return get(conn, incident_id)


@dataclass(frozen=True)
class Classification:
    """What triage found: the judgement is `domain.detection.severity.assess`, which knows a person's severity from an alert's.
    `proves_opening`: the opening that was measured to be real, see `unproven_opening`."""

    severity: Severity
    type: IncidentType
    model_version: str | None = None
    proves_opening: int | None = None


def classify(conn: Connection, incident_id: str, found: Classification, *, why: str, actor: str, now: datetime) -> Incident:
    """Set it. A version that is not known leaves the one that was."""
    incident = get(conn, incident_id, lock=True)
    changes: dict[str, Any] = {"severity": found.severity.value, "type": found.type.value}
    if found.model_version:
        changes["model_version"] = found.model_version
    _set(conn, incident_id, **changes)
    words = f"Severity {found.severity.upper()}, type {found.type}: {why}"
    data: dict[str, Any] = {"severity": found.severity.value, "from": incident.severity.value}
    if found.proves_opening is not None:
        data[PROVES_OPENING] = found.proves_opening
    timeline.append(conn, incident_id, "severity", words, actor=actor, at=now, data=data)
    return get(conn, incident_id)


def acknowledge(conn: Connection, incident_id: str, *, by: str, now: datetime, role: str | None = None, key: str = "") -> Incident:
    """Record who has it. The first one counts for the response time; a later one is a hand-over on the timeline. Said again by the
    same person it adds nothing, unless the incident was opened again since. `key` names the sender's message: see `timeline.is_said`."""
    incident = get(conn, incident_id, lock=True)
    said = timeline.of_kind(conn, incident_id, "acknowledged", after=timeline.began(conn, incident_id))
    if said and incident.acknowledged_by == by:
        return incident
    first = incident.acknowledged_at is None
    changes: dict[str, Any] = {"acknowledged_by": by} | ({"acknowledged_at": now} if first else {})
    _set(conn, incident_id, **changes)
    words = f"Handed over from {incident.acknowledged_by} to {by}" if said else f"Acknowledged by {by}"
    data = {name: value for name, value in (("role", role), ("key", key)) if value}
    timeline.append(conn, incident_id, "acknowledged", words, actor=by, at=now, data=data)
    return get(conn, incident_id)


def set_generation(conn: Connection, incident_id: str, generation: int) -> None:
    _set(conn, incident_id, generation=generation)


def _set(conn: Connection, incident_id: str, **values: Any) -> None:
    row_events.change(conn, update(incidents).where(incidents.c.id == incident_id).values(**values))


def count_alerts(conn: Connection, incident_id: str, times: int) -> None:
    conn.execute(update(incidents).where(incidents.c.id == incident_id).values(alert_count=incidents.c.alert_count + times))


def set_started(conn: Connection, incident_id: str, at: datetime) -> None:
    """When the failure began, as the diagnosis found it: an alert only knows when it fired."""
    _set(conn, incident_id, started_at=at)


def set_review_due(conn: Connection, incident_id: str, due_at: datetime) -> None:
    _set(conn, incident_id, review_due_at=due_at)


def open_of(conn: Connection, model: str, family: str) -> Incident | None:
    row = conn.execute(
        select(*FIELDS).where(incidents.c.model == model, incidents.c.family == family, OPEN).with_for_update()
    ).one_or_none()
    return incident_of(row) if row else None


def clock_set_back(conn: Connection, by_s: float) -> None:
    """What falls due so long after the opening of what is open still does."""
    rows = select(incidents.c.id).where(OPEN)
    row_events.change(conn, update(incidents).where(incidents.c.id.in_(rows)).values(moved_s=incidents.c.moved_s - by_s))


def moved_s(conn: Connection, incident_id: str) -> float:
    """How far the clock was set back while it was open: kept beside a moment that is compared with the clock later."""
    return float(conn.execute(select(incidents.c.moved_s).where(incidents.c.id == incident_id)).scalar_one())


def on_this_clock(conn: Connection, incident_id: str, at: datetime, then_moved_s: float = 0.0) -> datetime:
    """A moment of the incident as today's clock would have shown it: no later than was written, early rather than late."""
    return at + timedelta(seconds=min(0.0, moved_s(conn, incident_id) - then_moved_s))


def incident_of(row: Row[Any]) -> Incident:
    """Of a row that has `FIELDS` among its columns."""
    values = {column.name: row._mapping[column.name] for column in FIELDS}
    return Incident(
        **{
            **values,
            "type": IncidentType(values["type"]),
            "severity": Severity(values["severity"]),
            "status": Status(values["status"]),
        }
    )
