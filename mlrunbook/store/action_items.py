"""Action items of the reviews."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.review.action_items import Item
from mlrunbook.store import row_events
from mlrunbook.store.incident_search import seen
from mlrunbook.store.tables import ITEM_IS_OPEN, action_items, incidents

OPEN = text(ITEM_IS_OPEN)


def add(conn: Connection, incident_id: str, action: str, *, owner_role: str, due_at: datetime) -> Item | None:
    """The new item; None when this incident has that action already, which stays as it is."""
    row = insert(action_items).values(incident_id=incident_id, action=action, owner_role=owner_role, due_at=due_at)
    made = row_events.add(conn, incident_id, row.on_conflict_do_nothing())
    return _item(made) if made else None


def get(conn: Connection, item_id: int, *, lock: bool = False) -> Item:
    query = select(action_items).where(action_items.c.id == item_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no action item {item_id}; list them with `mlrunbook actions list`")
    return _item(dict(row._mapping))


def save(conn: Connection, item: Item) -> None:
    """Where the item stands now. What is to be done, by whom and until when does not change."""
    stands = {"status": item.status.value, "ended_at": item.ended_at, "ended_by": item.ended_by, "note": item.note}
    row_events.change(conn, update(action_items).where(action_items.c.id == item.id).values(**stands))


def of_incident(conn: Connection, incident_id: str) -> list[Item]:
    rows = conn.execute(select(action_items).where(action_items.c.incident_id == incident_id).order_by(action_items.c.id))
    return [_item(dict(r._mapping)) for r in rows]


def of_numbers(conn: Connection, numbers: Iterable[int]) -> list[Item]:
    """The earliest due first."""
    query = select(action_items).where(action_items.c.id.in_(list(numbers))).order_by(action_items.c.due_at, action_items.c.id)
    return [_item(dict(r._mapping)) for r in conn.execute(query)]


def find(
    conn: Connection,
    *,
    only_open: bool = True,
    due_before: datetime | None = None,
    after: int | None = None,
    models: Sequence[str] = (),
    limit: int = 1000,
) -> list[Item]:
    """Of all incidents, the earliest due first; those that come after the item `after`. `models`: patterns, of a limited token."""
    query = select(action_items).order_by(action_items.c.due_at, action_items.c.id).limit(limit)
    if only_open:
        query = query.where(OPEN)
    if due_before is not None:
        query = query.where(action_items.c.due_at < due_before)
    if models:
        query = query.where(action_items.c.incident_id.in_(select(incidents.c.id).where(seen(incidents.c.model, models))))
    if after is not None:
        query = query.where(tuple_(action_items.c.due_at, action_items.c.id) > (get(conn, after).due_at, after))
    return [_item(dict(r._mapping)) for r in conn.execute(query)]


def _item(row: Mapping[str, Any]) -> Item:
    return Item(**{**row, "status": ItemStatus(row["status"])})
