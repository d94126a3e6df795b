"""Alerts as they came in, one row an alert identity (sender, source, fingerprint, start); repeats are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import ARRAY, Connection, DateTime, Text, cast, exists, func, or_, select, text

from mlrunbook.base.db import to_json
from mlrunbook.domain.detection.alerts import PROVEN_AS
from mlrunbook.domain.policy.intake import UNPROVEN
from mlrunbook.store.incident_search import seen
from mlrunbook.store.tables import ONE_OPEN, alerts, incidents

SILENCED = "silenced"  # in the body of an alert that came in a silence: why
IN_SILENCE = alerts.c.incident_id.is_(None) & alerts.c.body.has_key(SILENCED)


@dataclass(frozen=True)
class Identity:
    """What tells one alert from another. The same fingerprint that starts anew is another alert, and so is that of another sender."""

    source: str
    fingerprint: str
    starts_at: datetime
    sender: str = ""  # empty: ours

    @cached_property
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
    end_noted: bool = False


@dataclass(frozen=True)
class Stored:
    """`end_noted`: that it ended is on the timeline of its incident."""

    status: str
    incident_id: str | None
    end_noted: bool = False
    level: str = ""  # as it was last read


def record(
    conn: Connection, alert: Identity, *, status: str, body: Mapping[str, Any], incident_id: str | None = None, now: datetime
) -> None:
    """Store or count one alert. A known one moves to `incident_id` where that is given."""
    record_all(conn, [Told(alert, status, body, incident_id)], now=now)


def record_all(conn: Connection, told: Sequence[Told], *, now: datetime) -> None:
    """Each identity once. What is kept of a known one is its first body, with the level it has now, until it is silenced: the end of the
    silence goes by that."""
    if not told:
        return
    ordered = sorted(told, key=lambda one: one.identity.at)  # two at once wait for each other, and never both
    columns: dict[str, list[Any]] = {
        "incident_ids": [one.incident_id for one in ordered],
        "sources": [one.identity.source for one in ordered],
        "senders": [one.identity.sender for one in ordered],
        "fingerprints": [one.identity.fingerprint for one in ordered],
        "keys": [one.identity.key for one in ordered],
        "starts": [one.identity.starts_at for one in ordered],
        "statuses": [one.status for one in ordered],
        "ends_noted": [one.end_noted for one in ordered],
        "bodies": [to_json(dict(one.body)) for one in ordered],
        "counts": [one.times for one in ordered],
    }
    conn.execute(_RECORD, {**columns, "now": now, "silenced": SILENCED})


# As text: SQLAlchemy compiles an INSERT ... ON CONFLICT anew each time, which was most of its cost.
_RECORD = text("""
    INSERT INTO alerts
        (incident_id, source, sender, fingerprint, key, starts_at, status, end_noted, body, count, received_at, last_seen_at)
    SELECT incident_id, source, sender, fingerprint, key, starts_at, status, end_noted, CAST(body AS jsonb), count,
        CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:incident_ids AS text[]), CAST(:sources AS text[]), CAST(:senders AS text[]), CAST(:fingerprints AS text[]),
        CAST(:keys AS text[]), CAST(:starts AS timestamptz[]), CAST(:statuses AS text[]), CAST(:ends_noted AS boolean[]),
        CAST(:bodies AS text[]), CAST(:counts AS integer[])
    ) AS given (incident_id, source, sender, fingerprint, key, starts_at, status, end_noted, body, count)
    ON CONFLICT ON CONSTRAINT alert_identity DO UPDATE SET
        status = excluded.status,
        last_seen_at = excluded.last_seen_at,
        count = alerts.count + excluded.count,
        incident_id = coalesce(excluded.incident_id, alerts.incident_id),
        end_noted = alerts.end_noted OR excluded.end_noted,
        body = CASE WHEN jsonb_exists(excluded.body, :silenced) THEN excluded.body ELSE alerts.body END
            || jsonb_strip_nulls(jsonb_build_object('level', excluded.body ->> 'level'))
""")


def find(conn: Connection, alert: Identity) -> Stored | None:
    return known(conn, [alert]).get(alert.at)


def known(conn: Connection, wanted: Iterable[Identity]) -> dict[tuple[str, datetime], Stored]:
    """What is stored of these, by `Identity.at`."""
    at = list({one.at for one in wanted})
    given = func.unnest(cast([key for key, _ in at], ARRAY(Text)), cast([start for _, start in at], ARRAY(DateTime(timezone=True))))
    asked = given.table_valued("key", "starts_at").render_derived("asked")
    level = alerts.c.body["level"].astext.label("level")
    query = select(alerts.c.key, alerts.c.starts_at, alerts.c.status, alerts.c.incident_id, alerts.c.end_noted, level).join(
        asked, (alerts.c.key == asked.c.key) & (alerts.c.starts_at == asked.c.starts_at)
    )
    return {(r.key, r.starts_at): Stored(r.status, r.incident_id, r.end_noted, r.level or "") for r in conn.execute(query)}


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


def ended(conn: Connection, keys: Iterable[str]) -> set[str]:
    """Of these keys, those whose alert came before and is over."""
    is_firing = func.bool_or(alerts.c.status == "firing")
    query = (
        select(alerts.c.key).where(alerts.c.key == func.any(cast(list(set(keys)), ARRAY(Text)))).group_by(alerts.c.key).having(~is_firing)
    )
    return set(conn.execute(query).scalars())


def silenced(conn: Connection, *, before: int | None = None, models: Sequence[str] = (), limit: int) -> list[dict[str, Any]]:
    """Alerts that came in a silence and belong to no incident, below the number `before`; those that came last first. `models`: patterns,
    of a limited token."""
    query = select(alerts).where(IN_SILENCE, seen(alerts.c.body["model"].astext, models))
    if before is not None:
        query = query.where(alerts.c.id < before)
    return [dict(r._mapping) for r in conn.execute(query.order_by(alerts.c.id.desc()).limit(limit))]


def models_silenced(conn: Connection) -> list[str]:
    """The models with a silenced alert that still fires."""
    query = select(alerts.c.body["model"].astext).where(IN_SILENCE, alerts.c.status == "firing").distinct()
    return sorted(conn.execute(query).scalars())


def silenced_and_firing(conn: Connection, model: str, *, after: int, limit: int) -> list[dict[str, Any]]:
    """A page of the model's silenced alerts that still fire, above the number `after`, the oldest first."""
    of_model = alerts.c.body["model"].astext == model
    query = select(alerts).where(IN_SILENCE, alerts.c.status == "firing", of_model, alerts.c.id > after)
    return [dict(r._mapping) for r in conn.execute(query.order_by(alerts.c.id).limit(limit))]


def of_incident(conn: Connection, incident_id: str) -> list[dict[str, Any]]:
    rows = conn.execute(select(alerts).where(alerts.c.incident_id == incident_id).order_by(alerts.c.id))
    return [dict(r._mapping) for r in rows]


def messages(conn: Connection, incident_id: str, *, after: int, limit: int) -> list[dict[str, Any]]:
    """A page of its alerts, above the number `after`, the first that came first."""
    query = select(alerts).where(alerts.c.incident_id == incident_id, alerts.c.id > after).order_by(alerts.c.id).limit(limit)
    return [dict(r._mapping) for r in conn.execute(query)]


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


def firing_by_model(conn: Connection) -> dict[str, int]:
    """How many alerts of incidents that are not over still fire, by model."""
    query = select(incidents.c.model, func.count().label("n")).join(alerts, alerts.c.incident_id == incidents.c.id)
    query = query.where(text(f"incidents.{ONE_OPEN}"), alerts.c.status == "firing").group_by(incidents.c.model)
    return {row.model: row.n for row in conn.execute(query)}


def told_by_others(conn: Connection, *, name: str, model: str, source: str, since: datetime, begun: datetime) -> bool:
    """Has anybody but `source`, who is proven, told that this alert fires, and told it again since then? For what began at `begun`: an
    incident that was over by then is about something else, however long its alert is repeated."""
    return bool(
        conn.execute(
            select(
                exists().where(
                    alerts.c.incident_id == incidents.c.id,
                    incidents.c.model == model,
                    or_(incidents.c.closed_at.is_(None), incidents.c.closed_at >= begun),
                    alerts.c.source != source,
                    alerts.c.body[PROVEN_AS].astext.is_distinct_from(UNPROVEN),
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
