"""Alerts as they came in, one row an alert identity (sender, source, fingerprint, start); repeats are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, Connection, DateTime, Text, cast, exists, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.store.tables import alerts, incidents


@dataclass(frozen=True)
class Identity:
    """What tells one alert from another. The same fingerprint that starts anew is another alert, and so is that of another sender."""

    source: str
    fingerprint: str
    starts_at: datetime
    sender: str = ""  # empty: ours

    @property
    def key(self) -> str:
        """Of one length, whatever others wrote."""
        return key_of(self.source, self.fingerprint, self.sender)

    @property
    def at(self) -> tuple[str, datetime]:
        return self.key, self.starts_at


def key_of(source: str, fingerprint: str, sender: str = "") -> str:
    return hashlib.sha256("\x1f".join((sender, source, fingerprint)).encode()).hexdigest()


@dataclass(frozen=True)
class Told:
    """What is to be stored of one identity. `times`: how often it came."""

    identity: Identity
    status: str
    body: Mapping[str, Any]
    incident_id: str | None
    times: int = 1


@dataclass(frozen=True)
class Stored:
    status: str
    incident_id: str | None


def record(
    conn: Connection, alert: Identity, *, status: str, body: Mapping[str, Any], incident_id: str | None = None, now: datetime
) -> None:
    """Store or count one alert. A known one moves to `incident_id` where that is given."""
    record_all(conn, [Told(alert, status, body, incident_id)], now=now)


def record_all(conn: Connection, told: Sequence[Told], *, now: datetime) -> None:
    """Each identity once. What is kept of a known one is its first body."""
    if not told:
        return
    row = upsert(alerts)
    row = row.on_conflict_do_update(
        constraint="alert_identity",
        set_={
            "status": row.excluded.status,
            "last_seen_at": row.excluded.last_seen_at,
            "count": alerts.c.count + row.excluded.count,
            "incident_id": func.coalesce(row.excluded.incident_id, alerts.c.incident_id),
        },
    )
    values = [
        {
            "incident_id": one.incident_id,
            "source": one.identity.source,
            "sender": one.identity.sender,
            "fingerprint": one.identity.fingerprint,
            "key": one.identity.key,
            "starts_at": one.identity.starts_at,
            "status": one.status,
            "body": dict(one.body),
            "count": one.times,
            "received_at": now,
            "last_seen_at": now,
        }
        for one in sorted(told, key=lambda one: one.identity.at)  # two at once wait for each other, and never both
    ]
    conn.execute(row, values)


def find(conn: Connection, alert: Identity) -> Stored | None:
    return known(conn, [alert]).get(alert.at)


def known(conn: Connection, wanted: Iterable[Identity]) -> dict[tuple[str, datetime], Stored]:
    """What is stored of these, by `Identity.at`."""
    at = list({one.at for one in wanted})
    given = func.unnest(cast([key for key, _ in at], ARRAY(Text)), cast([start for _, start in at], ARRAY(DateTime(timezone=True))))
    asked = given.table_valued("key", "starts_at").render_derived("asked")
    query = select(alerts.c.key, alerts.c.starts_at, alerts.c.status, alerts.c.incident_id).join(
        asked, (alerts.c.key == asked.c.key) & (alerts.c.starts_at == asked.c.starts_at)
    )
    return {(r.key, r.starts_at): Stored(r.status, r.incident_id) for r in conn.execute(query)}


def of_key(conn: Connection, key: str) -> list[Stored]:
    """What came under one key, whenever it started."""
    query = select(alerts.c.status, alerts.c.incident_id).where(alerts.c.key == key)
    return [Stored(r.status, r.incident_id) for r in conn.execute(query.order_by(alerts.c.starts_at.desc()).limit(100))]


def firing_since(conn: Connection, keys: Iterable[str]) -> dict[str, datetime]:
    """The starts of the alerts of these keys that are not told as resolved, the newest of several."""
    query = (
        select(alerts.c.key, func.max(alerts.c.starts_at).label("at"))
        .where(alerts.c.key == func.any(cast(list(set(keys)), ARRAY(Text))), alerts.c.status == "firing")
        .group_by(alerts.c.key)
    )
    return {r.key: r.at for r in conn.execute(query)}


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


def incident_of(conn: Connection, *, source: str, fingerprint: str, sender: str) -> str | None:
    """The incident that this sender's alert belongs to; the newest, where it came more than once."""
    for known_as in (sender, ""):  # without a sender: it came before senders were told apart
        newest = (
            select(alerts.c.incident_id)
            .where(alerts.c.key == key_of(source, fingerprint, known_as), alerts.c.incident_id.is_not(None))
            .order_by(alerts.c.starts_at.desc(), alerts.c.id.desc())
            .limit(1)
        )
        if found := conn.execute(newest).scalar_one_or_none():
            return str(found)
    return None
