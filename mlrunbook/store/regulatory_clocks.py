"""Regulatory clocks of incidents, as records: one a law, replaced as a whole when a person says more about it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.incident import ClockName
from mlrunbook.store import records

_PREFIX = "clock:"


def get(conn: Connection, incident_id: str, name: ClockName) -> Clock | None:
    body = records.get(conn, incident_id, _PREFIX + name)
    return Clock.from_dict(body) if body else None


def of_incident(conn: Connection, incident_id: str) -> list[Clock]:
    """The nearest deadline first."""
    found = [Clock.from_dict(body) for body in records.with_prefix(conn, incident_id, _PREFIX).values()]
    return sorted(found, key=lambda clock: (clock.deadline, clock.name))


def save(conn: Connection, incident_id: str, clock: Clock, *, now: datetime) -> None:
    """The caller holds the incident's row."""
    records.forget(conn, incident_id, _PREFIX + clock.name)
    records.put(conn, incident_id, _PREFIX + clock.name, clock.as_dict(), now=now)
