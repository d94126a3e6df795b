"""Regulatory clocks of incidents, as records: one a law, replaced as a whole when a person says more about it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.incident import ClockName
from mlrunbook.domain.records import Record
from mlrunbook.store import records


def get(conn: Connection, incident_id: str, name: ClockName) -> Clock | None:
    return records.recall(conn, incident_id, Clock, name)


def of_incident(conn: Connection, incident_id: str) -> list[Clock]:
    """The nearest deadline first."""
    return sorted(records.of_kind(conn, incident_id, Clock).values(), key=lambda clock: (clock.deadline, clock.name))


def save(conn: Connection, incident_id: str, clock: Clock, *, now: datetime) -> None:
    """The caller holds the incident's row."""
    records.forget(conn, incident_id, Record.CLOCK.of(clock.name))
    records.keep(conn, incident_id, clock, clock.name, now=now)
