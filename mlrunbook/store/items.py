"""Action items of the reviews."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.store.tables import action_items


def add(conn: Connection, incident_id: str, action: str, *, owner_role: str, due_on: date) -> None:
    """Add an item; the same action for the same incident stays as it is."""
    due_at = datetime.combine(due_on, time(23, 59), UTC)
    row = insert(action_items).values(incident_id=incident_id, action=action, owner_role=owner_role, due_at=due_at)
    conn.execute(row.on_conflict_do_nothing())


def of_incident(conn: Connection, incident_id: str) -> list[dict[str, Any]]:
    rows = conn.execute(select(action_items).where(action_items.c.incident_id == incident_id).order_by(action_items.c.id))
    return [dict(r._mapping) for r in rows]
