"""Deliveries that their senders numbered: the same number again is answered the same and changes nothing.

A number counts only among those of its sender: it is stored as a hash of sender, source and number, all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, bindparam, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.store.tables import deliveries

KEPT = timedelta(days=14)  # PagerDuty repeats a delivery for up to 48 h; a person may ask for one again later
AT_ONCE = 500
Receipts = dict[str, Mapping[str, Any]]


def key_of(source: str, number: str, sender: str) -> str:
    return hashlib.sha256("\x1f".join((sender, source, number)).encode(errors="replace")).hexdigest()


def begin_all(conn: Connection, source: str, keys: Iterable[str], *, now: datetime) -> Receipts:
    """What those that are known were answered; the others are begun. Of two at once the second waits for the first one's transaction."""
    conn.execute(delete(deliveries).where(deliveries.c.received_at < now - KEPT))
    wanted, begun = sorted(set(keys)), set[str]()
    for some in (wanted[i : i + AT_ONCE] for i in range(0, len(wanted), AT_ONCE)):
        rows = upsert(deliveries).values([{"source": source, "id": key, "receipt": {}, "received_at": now} for key in some])
        begun |= set(conn.execute(rows.on_conflict_do_nothing().returning(deliveries.c.id)).scalars())
    return answers(conn, source, set(wanted) - begun)


def answers(conn: Connection, source: str, keys: Iterable[str]) -> Receipts:
    wanted = list(keys)
    if not wanted:
        return {}
    query = select(deliveries.c.id, deliveries.c.receipt)
    rows = conn.execute(query.where(deliveries.c.source == source, deliveries.c.id == func.any(cast(wanted, ARRAY(Text)))))
    return {r.id: dict(r.receipt) for r in rows}


def answered_all(conn: Connection, source: str, receipts: Mapping[str, Mapping[str, Any]]) -> None:
    if receipts:
        row = update(deliveries).where(deliveries.c.source == source, deliveries.c.id == bindparam("key"))
        conn.execute(row.values(receipt=bindparam("said")), [{"key": key, "said": dict(said)} for key, said in receipts.items()])
