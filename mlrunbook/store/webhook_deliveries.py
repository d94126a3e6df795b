"""Deliveries that their senders numbered: the same number again is answered the same and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.store.tables import deliveries

KEPT = timedelta(days=14)  # PagerDuty repeats a delivery for up to 48 h; a person may ask for one again later


def begin(conn: Connection, source: str, delivery_id: str, *, now: datetime) -> Mapping[str, Any] | None:
    """None when it is new; else what it was answered. Of two at once the second waits for the first one's transaction."""
    conn.execute(delete(deliveries).where(deliveries.c.received_at < now - KEPT))
    row = insert(deliveries).values(source=source, id=delivery_id, receipt={}, received_at=now)
    if conn.execute(row.on_conflict_do_nothing().returning(deliveries.c.id)).scalar_one_or_none() is not None:
        return None
    return dict(conn.execute(select(deliveries.c.receipt).where(_same(source, delivery_id))).scalar_one())


def answered(conn: Connection, source: str, delivery_id: str, receipt: Mapping[str, Any]) -> None:
    conn.execute(update(deliveries).where(_same(source, delivery_id)).values(receipt=dict(receipt)))


def _same(source: str, delivery_id: str) -> Any:
    return (deliveries.c.source == source) & (deliveries.c.id == delivery_id)
