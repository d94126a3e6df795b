"""What each step of the runbook recorded, once a step and incident: how a re-run knows what is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.errors import Unreadable
from mlrunbook.domain.records import Recorded
from mlrunbook.store import row_events
from mlrunbook.store.tables import incidents, records

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Recorded)


def recall(conn: Connection, incident_id: str, kind: type[R], *names: object) -> R | None:
    """What an earlier step has left under the key of `kind`."""
    row = get(conn, incident_id, kind.key.of(*names))
    return None if row is None else kind.from_record(row)


def recall_if_readable(conn: Connection, incident_id: str, kind: type[R], *names: object) -> R | None:
    """For what only helps, in a page or about another incident: None also where another version's row cannot be read."""
    row = get(conn, incident_id, kind.key.of(*names))
    return None if row is None else _if_readable(incident_id, kind, row)


def _if_readable(incident_id: str, kind: type[R], row: Mapping[str, Any]) -> R | None:
    try:
        return kind.from_record(row)
    except Unreadable as error:
        log.warning("%s: %s", incident_id, error)
        return None


def keep(conn: Connection, incident_id: str, record: R, *names: object, now: datetime) -> R:
    """Leave `record` for later steps unless one stands; returns what stands."""
    return type(record).from_record(put(conn, incident_id, record.key.of(*names), record.to_record(), now=now))


def replace(conn: Connection, incident_id: str, record: R, *names: object, now: datetime) -> R:
    """Leave `record` in place of what stands."""
    forget(conn, incident_id, record.key.of(*names))
    return keep(conn, incident_id, record, *names, now=now)


def of_kind(conn: Connection, incident_id: str, kind: type[R]) -> dict[str, R]:
    """All rows of a `kind` whose key ends in a colon, by what follows it, oldest first."""
    return {step.removeprefix(kind.key): kind.from_record(row) for step, row in with_prefix(conn, incident_id, kind.key).items()}


def get(conn: Connection, incident_id: str, step: str) -> dict[str, Any] | None:
    row = conn.execute(select(records.c.data).where(records.c.incident_id == incident_id, records.c.step == step)).one_or_none()
    return dict(row.data) if row else None


def recorded_at(conn: Connection, incident_id: str, step: str) -> datetime | None:
    """When what stands was recorded."""
    at: datetime | None = conn.execute(
        select(records.c.recorded_at).where(records.c.incident_id == incident_id, records.c.step == step)
    ).scalar_one_or_none()
    return at


def put(conn: Connection, incident_id: str, step: str, data: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Record `data` unless the step is recorded already; return what stands recorded."""
    body = dict(json.loads(json.dumps(data, default=str)))
    new = insert(records).values(incident_id=incident_id, step=step, data=body, recorded_at=now).on_conflict_do_nothing()
    if made := row_events.add(conn, incident_id, new):
        return dict(made["data"])
    return get(conn, incident_id, step) or body


def with_prefix(conn: Connection, incident_id: str, prefix: str) -> dict[str, dict[str, Any]]:
    rows = conn.execute(
        select(records.c.step, records.c.data)
        .where(records.c.incident_id == incident_id, records.c.step.startswith(prefix, autoescape=True))
        .order_by(records.c.recorded_at, records.c.step)
    )
    return {r.step: dict(r.data) for r in rows}


def of_incidents(conn: Connection, kind: type[R], incident_ids: Sequence[str]) -> dict[str, R]:
    """What these incidents have recorded of one kind, by incident; those without it are left out, and those of which it cannot be read."""
    rows = conn.execute(
        select(records.c.incident_id, records.c.data).where(records.c.step == kind.key, records.c.incident_id.in_(incident_ids))
    )
    return {r.incident_id: found for r in rows if (found := _if_readable(r.incident_id, kind, r.data))}


class Made(NamedTuple):
    """When an incident has recorded a step."""

    at: datetime
    incident_id: str


def made(conn: Connection, step: str, *, since: datetime, sender: str) -> list[Made]:
    """Where `step` was recorded with this sender after `since`, by whatever incidents; oldest first."""
    query = select(records.c.recorded_at, records.c.incident_id).where(records.c.step == step, records.c.recorded_at > since)
    rows = conn.execute(query.where(records.c.data["sender"].astext == sender).order_by(records.c.recorded_at, records.c.incident_id))
    return [Made(*row) for row in rows]


def incident_with(conn: Connection, step: str) -> str | None:
    """The incident that has recorded `step`, for steps whose name is unique."""
    return conn.execute(select(records.c.incident_id).where(records.c.step == step)).scalar_one_or_none()


def of_family(conn: Connection, step: str, *, model: str, family: str) -> list[dict[str, Any]]:
    """What all incidents of one model and family have recorded under `step`."""
    query = select(records.c.data).join(incidents, records.c.incident_id == incidents.c.id)
    rows = conn.execute(query.where(records.c.step == step, incidents.c.model == model, incidents.c.family == family))
    return [dict(r.data) for r in rows]


def forget(conn: Connection, incident_id: str, *steps: str) -> None:
    """Make steps run again (a reopened investigation). What they found stays on the timeline."""
    row_events.change(conn, delete(records).where(records.c.incident_id == incident_id, records.c.step.in_(steps)))
