"""Changes near a model that other systems told us of; the model platform keeps its own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.observed import Change
from mlrunbook.store.tables import changes

MOST = 5_000  # a flood of changes must not hold up who looks for one


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


def of_model(conn: Connection, model: str, *, since: datetime, until: datetime | None = None, limit: int = MOST) -> list[Change]:
    """Newest first."""
    query = select(changes).where(changes.c.model == model, changes.c.at >= since)
    if until is not None:
        query = query.where(changes.c.at <= until)
    rows = conn.execute(query.order_by(changes.c.at.desc(), changes.c.id).limit(limit))
    return [Change(r.kind, r.ref, r.author, r.at, r.detail) for r in rows]


def models_told(conn: Connection, *, source: str, since: datetime) -> dict[str, datetime]:
    """Of which models `source` has told since then, and when last."""
    newest = func.max(changes.c.received_at).label("newest")
    query = select(changes.c.model, newest).where(changes.c.source == source, changes.c.received_at >= since).group_by(changes.c.model)
    return {row.model: row.newest for row in conn.execute(query)}
