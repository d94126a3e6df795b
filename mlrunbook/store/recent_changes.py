"""Changes near a model that other systems told us of; the model platform keeps its own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.observed import Change
from mlrunbook.store.tables import changes


def put(conn: Connection, model: str, change: Change, *, source: str, now: datetime) -> bool:
    """Keep one; False when this change (model, kind, ref, time) is known."""
    row = insert(changes).values(
        model=model,
        kind=change.kind,
        ref=change.ref,
        author=change.author,
        at=change.at,
        source=source,
        detail=dict(change.detail),
        received_at=now,
    )
    return conn.execute(row.on_conflict_do_nothing().returning(changes.c.id)).scalar_one_or_none() is not None


def of_model(conn: Connection, model: str, *, since: datetime) -> list[Change]:
    """Newest first."""
    rows = conn.execute(select(changes).where(changes.c.model == model, changes.c.at >= since).order_by(changes.c.at.desc(), changes.c.id))
    return [Change(r.kind, r.ref, r.author, r.at, r.detail) for r in rows]
