"""Alerts as they came in, one row an alert identity (source, fingerprint, start); repeats are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.store.tables import alerts, incidents


@dataclass(frozen=True)
class Identity:
    """What tells one alert from another. The same fingerprint that starts anew is another alert."""

    source: str
    fingerprint: str
    starts_at: datetime


def record(
    conn: Connection, alert: Identity, *, status: str, body: Mapping[str, Any], incident_id: str | None = None, now: datetime
) -> bool:
    """Store or count one alert; True when this identity is new. A known one moves to `incident_id` where that is given."""
    made = conn.execute(
        upsert(alerts)
        .values(
            incident_id=incident_id,
            source=alert.source,
            fingerprint=alert.fingerprint,
            starts_at=alert.starts_at,
            status=status,
            body=dict(body),
            received_at=now,
            last_seen_at=now,
        )
        .on_conflict_do_nothing(constraint="alert_identity")
        .returning(alerts.c.id)
    ).scalar_one_or_none()
    if made is not None:
        return True
    conn.execute(
        update(alerts)
        .where(_is(alert))
        .values(status=status, last_seen_at=now, count=alerts.c.count + 1, incident_id=incident_id or alerts.c.incident_id)
    )
    return False


def find(conn: Connection, alert: Identity) -> dict[str, Any] | None:
    row = conn.execute(select(alerts).where(_is(alert))).one_or_none()
    return dict(row._mapping) if row else None


def _is(alert: Identity) -> ColumnElement[bool]:
    return (alerts.c.source == alert.source) & (alerts.c.fingerprint == alert.fingerprint) & (alerts.c.starts_at == alert.starts_at)


def silenced(conn: Connection, *, limit: int) -> list[dict[str, Any]]:
    """Alerts that came in a silence and belong to no incident, the newest first."""
    query = select(alerts).where(alerts.c.incident_id.is_(None), alerts.c.body.has_key("silenced"))
    return [dict(r._mapping) for r in conn.execute(query.order_by(alerts.c.last_seen_at.desc(), alerts.c.id.desc()).limit(limit))]


def of_incident(conn: Connection, incident_id: str) -> list[dict[str, Any]]:
    rows = conn.execute(select(alerts).where(alerts.c.incident_id == incident_id).order_by(alerts.c.id))
    return [dict(r._mapping) for r in rows]


def firing(conn: Connection, *, source: str, model: str) -> list[dict[str, Any]]:
    """What `source` told of `model` and has not told as resolved."""
    of_model = alerts.c.incident_id == incidents.c.id
    rows = conn.execute(
        select(alerts)
        .join(incidents, of_model)
        .where(incidents.c.model == model, alerts.c.source == source, alerts.c.status == "firing")
        .order_by(alerts.c.id)
    )
    return [dict(r._mapping) for r in rows]


def told_by_others(conn: Connection, *, name: str, model: str, source: str, since: datetime) -> bool:
    """Has anybody but `source` told that this alert fires, and told it again since then?"""
    return bool(
        conn.execute(
            select(
                exists().where(
                    alerts.c.incident_id == incidents.c.id,
                    incidents.c.model == model,
                    alerts.c.source != source,
                    alerts.c.status == "firing",
                    alerts.c.body["labels"]["alertname"].astext == name,
                    alerts.c.last_seen_at >= since,
                )
            )
        ).scalar()
    )


def firing_since(conn: Connection, *, source: str, fingerprint: str) -> datetime | None:
    """The start of this sender's alert that is not told as resolved, the newest of several."""
    newest = (
        select(alerts.c.starts_at)
        .where(alerts.c.source == source, alerts.c.fingerprint == fingerprint, alerts.c.status == "firing")
        .order_by(alerts.c.starts_at.desc())
        .limit(1)
    )
    return conn.execute(newest).scalar_one_or_none()


def incident_of(conn: Connection, *, source: str, fingerprint: str) -> str | None:
    """The incident that this sender's alert belongs to; the newest, where it came more than once."""
    newest = (
        select(alerts.c.incident_id)
        .where(alerts.c.source == source, alerts.c.fingerprint == fingerprint, alerts.c.incident_id.is_not(None))
        .order_by(alerts.c.starts_at.desc(), alerts.c.id.desc())
        .limit(1)
    )
    return conn.execute(newest).scalar_one_or_none()
