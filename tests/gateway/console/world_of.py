"""What is stored, as values that can be compared."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import select

from mlrunbook.base.db import metadata
from mlrunbook.response.world import World
from mlrunbook.store import incidents, plans, timeline

OF_SESSIONS = ("tokens", "console_sessions")  # when somebody was last here is noted
_AT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^ ]*( UTC)?")


def everything(world: World) -> dict[str, list[Any]]:
    """Every row of every table but those that say who was here."""
    with world.transaction() as conn:
        tables = [table for table in metadata.sorted_tables if table.name not in OF_SESSIONS]
        return {table.name: sorted(map(repr, conn.execute(select(table)))) for table in tables}


def effect(world: World, incident_id: str) -> dict[str, Any]:
    """What became of an incident, whichever it is and whichever door was taken."""
    with world.transaction() as conn:
        one = incidents.get(conn, incident_id)
        entries = timeline.read(conn, incident_id)
        said = plans.approvals_of(conn, incident_id)
    return {
        "incident": (one.status, one.severity, one.acknowledged_by, one.resolved_at is not None, one.closed_at is not None),
        "timeline": [(e.kind, e.actor, _same(e.text, one.id, one.model)) for e in entries],
        "approvals": [(a.decision, a.approver, a.role, a.person, a.verified, a.reason) for a in said],
    }


def _same(text: str, incident_id: str, model: str) -> str:
    for old, new in ((incident_id, "INCIDENT"), (model, "MODEL"), ("by console", "by DOOR"), ("by rest", "by DOOR")):
        text = text.replace(old, new)
    text = re.sub(r"Action item \d+", "Action item N", text)
    return re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", _AT.sub("THEN", text))
