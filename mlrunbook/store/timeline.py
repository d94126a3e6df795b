"""The incident's timeline: append-only, numbered, hash-chained, so that a quiet edit shows. One strand of the incident's chain.

hash = SHA-256 over the canonical JSON of (incident, seq, at, kind, actor, text, data, hash of the entry before).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, cast, func, insert, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from mlrunbook.domain.chain import GENESIS, link
from mlrunbook.store import chain_heads
from mlrunbook.store.chain_heads import Tip
from mlrunbook.store.tables import timeline

AT_ONCE = 1_000
LINKED = ("incident_id", "seq", "at", "kind", "actor", "text", "data")


@dataclass(frozen=True)
class Entry:
    seq: int
    at: datetime
    kind: str
    actor: str
    text: str
    data: Mapping[str, Any]


def append(
    conn: Connection, incident_id: str, kind: str, text: str, *, actor: str, at: datetime, data: Mapping[str, Any] | None = None
) -> None:
    """Add one entry. Locks the incident's row, which orders the chain."""
    chain_heads.lock(conn, incident_id)
    last = chain_heads.last_entry(conn, incident_id)
    body = _as_stored(conn, data) if data else {}
    values = {"incident_id": incident_id, "seq": last.number + 1, "at": at, "kind": kind, "actor": actor, "text": text, "data": body}
    hash_ = link(values, last.hash)
    conn.execute(insert(timeline).values(**values, prev_hash=last.hash, hash=hash_))
    chain_heads.set_entry(conn, incident_id, Tip(last.number + 1, hash_))


def read(conn: Connection, incident_id: str, *, after: int = 0, limit: int | None = None) -> list[Entry]:
    """All of it, or a page: a timeline may be long."""
    query = select(timeline).where(timeline.c.incident_id == incident_id, timeline.c.seq > after).order_by(timeline.c.seq)
    return [_entry(r) for r in conn.execute(query.limit(limit))]


def last(conn: Connection, incident_id: str, *, before: int, limit: int) -> list[Entry]:
    """The newest below that number, oldest first."""
    query = select(timeline).where(timeline.c.incident_id == incident_id, timeline.c.seq < before).order_by(timeline.c.seq.desc())
    return [_entry(r) for r in conn.execute(query.limit(limit))][::-1]


def of_kind(conn: Connection, incident_id: str, *kinds: str, after: int = 0) -> list[Entry]:
    """The entries of these kinds alone: the others may be hundreds of thousands."""
    mine = (timeline.c.incident_id == incident_id) & (timeline.c.seq > after)
    return [_entry(r) for r in conn.execute(select(timeline).where(mine, timeline.c.kind.in_(kinds)).order_by(timeline.c.seq))]


def began(conn: Connection, incident_id: str) -> int:
    """The number of the entry with which the response began anew, 0 where it never did: what is newer is told by it, never by a clock."""
    anew = or_(timeline.c.data["reopened"].astext == "true", timeline.c.data["recognised"].astext == "true")
    mine = (timeline.c.incident_id == incident_id) & timeline.c.kind.in_(("status", "reported"))
    return int(conn.execute(select(func.coalesce(func.max(timeline.c.seq), 0)).where(mine, anew)).scalar_one())


def last_not_by(conn: Connection, incident_id: str, actor: str) -> Entry | None:
    query = select(timeline).where(timeline.c.incident_id == incident_id, timeline.c.actor != actor).order_by(timeline.c.seq.desc())
    row = conn.execute(query.limit(1)).one_or_none()
    return _entry(row) if row else None


def is_said(conn: Connection, incident_id: str, kind: str, key: str) -> bool:
    """Whether an entry of this kind has the key in its data."""
    same = (timeline.c.incident_id == incident_id) & (timeline.c.kind == kind) & (timeline.c.data["key"].astext == key)
    return conn.execute(select(timeline.c.seq).where(same).limit(1)).first() is not None


def length(conn: Connection, incident_id: str) -> int:
    return int(conn.execute(select(func.count()).select_from(timeline).where(timeline.c.incident_id == incident_id)).scalar_one())


def _entry(r: Row[Any]) -> Entry:
    return Entry(r.seq, r.at, r.kind, r.actor, r.text, r.data)


def broken_at(conn: Connection, incident_id: str) -> int | None:
    """The first entry that does not fit the chain; None when the whole timeline is as it was written."""
    prev, expected = GENESIS, 1
    query = select(timeline).where(timeline.c.incident_id == incident_id).order_by(timeline.c.seq)
    for row in conn.execute(query, execution_options={"yield_per": AT_ONCE}):
        values = {k: getattr(row, k) for k in LINKED}
        if row.seq != expected or row.prev_hash != prev or row.hash != link(values, prev):
            return expected
        prev, expected = row.hash, expected + 1
    return None


def _as_stored(conn: Connection, data: Mapping[str, Any]) -> dict[str, Any]:
    """As PostgreSQL gives it back: JSONB turns 1e16 into 10000000000000000 and -0.0 into 0.0, and the hash must not see a difference."""
    plain = json.loads(json.dumps(data, default=str))
    return dict(conn.execute(select(cast(plain, JSONB))).scalar_one())
