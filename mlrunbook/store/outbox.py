"""The outbox: everything that must happen at or after a time, exactly as long as it takes.

A row is put in the transaction that causes it, claimed by any dispatcher (`FOR UPDATE SKIP LOCKED`), and tried until it is
delivered or cancelled. A dispatcher that dies holding a claim loses it after its time: the row then goes out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.store.tables import outbox

SETTLE = "settle_pages"
UPDATE = "update"
RESPONSE = "response_due"
EXPIRY = "expire_approval"
ORDER_OVERDUE = "order_overdue"

CLAIM_S = 60.0
CLAIM_OF_PAGES_S = 20.0  # a page may repeat; one that a dead dispatcher held must not wait a minute
MAX_BACKOFF_S = 60.0
MAX_BACKOFF_OF_RUNS_S = 5.0  # the Prefect server is ours, and an approved fix waits for it

PENDING = outbox.c.delivered_at.is_(None) & outbox.c.cancelled_at.is_(None)


@dataclass(frozen=True)
class Item:
    id: int
    incident_id: str | None
    kind: str
    dedup_key: str
    payload: Mapping[str, Any]
    attempts: int


def put(
    conn: Connection,
    kind: str,
    dedup_key: str,
    payload: Mapping[str, Any],
    *,
    now: datetime,
    incident_id: str | None = None,
    at: datetime | None = None,
) -> bool:
    """Put one row; False when one with that key was there already, whatever became of it."""
    row = insert(outbox).values(
        incident_id=incident_id,
        kind=kind,
        dedup_key=dedup_key,
        payload=_json(payload),
        not_before=at or now,
        created_at=now,
    )
    return conn.execute(row.on_conflict_do_nothing().returning(outbox.c.id)).scalar_one_or_none() is not None


@dataclass(frozen=True)
class Due:
    """A row to put."""

    dedup_key: str
    payload: Mapping[str, Any]
    at: datetime


def put_all(conn: Connection, kind: str, due: Sequence[Due], *, now: datetime) -> None:
    """Many of no incident at once; those whose key was there already stay as they are."""
    if due:
        rows = [{"kind": kind, "dedup_key": d.dedup_key, "payload": _json(d.payload), "not_before": d.at, "created_at": now} for d in due]
        conn.execute(insert(outbox).on_conflict_do_nothing(), rows)


def reschedule(conn: Connection, dedup_key: str, at: datetime, payload: Mapping[str, Any] | None = None) -> None:
    """Move a row that has not gone out, with another payload when one is given."""
    values: dict[str, Any] = {"not_before": at} | ({"payload": _json(payload)} if payload is not None else {})
    conn.execute(update(outbox).where(outbox.c.dedup_key == dedup_key, PENDING).values(**values))


def cancel(
    conn: Connection, *, now: datetime, incident_id: str, kinds: tuple[str, ...] = (), key_prefix: str = "", spare: tuple[str, ...] = ()
) -> int:
    """Cancel what of this incident has not gone out, except keys that begin like one of `spare`; a claimed row may still arrive once."""
    query = update(outbox).where(outbox.c.incident_id == incident_id, PENDING)
    if kinds:
        query = query.where(outbox.c.kind.in_(kinds))
    if key_prefix:
        query = query.where(outbox.c.dedup_key.startswith(key_prefix, autoescape=True))
    for prefix in spare:
        query = query.where(~outbox.c.dedup_key.startswith(prefix, autoescape=True))
    return conn.execute(query.values(cancelled_at=now)).rowcount


def waiting(conn: Connection, *, now: datetime) -> dict[str, tuple[int, int]]:
    """By kind: how many are due or were tried and have not gone out, and how many of these were tried."""
    tried = outbox.c.attempts > 0
    rows = conn.execute(
        select(outbox.c.kind, func.count().label("n"), func.count().filter(tried).label("tried"))
        .where(PENDING, or_(outbox.c.not_before <= now, tried))
        .group_by(outbox.c.kind)
    )
    return {r.kind: (r.n, r.tried) for r in rows}


def oldest_due(conn: Connection, kind: str, *, now: datetime) -> datetime | None:
    """Since when the longest-waiting row of this kind should have gone out; None while none waits.

    `not_before` moves with every failed try, so the tries' waits are counted back from it: the row itself says how long it has waited,
    whichever dispatcher tried it and whenever the gateway was restarted.
    """
    rows = conn.execute(
        select(outbox.c.not_before, outbox.c.attempts, outbox.c.claimed_until).where(
            PENDING, outbox.c.kind == kind, or_(outbox.c.not_before <= now, outbox.c.attempts > 0)
        )
    )
    since = [r.not_before - _waited(kind, r.attempts - (r.claimed_until is not None)) for r in rows]  # a claimed try has not failed yet
    return min(since, default=None)


def _waited(kind: str, failures: int) -> timedelta:
    return timedelta(seconds=sum(_backoff_s(kind, n) for n in range(1, min(failures, 1000) + 1)))


def _backoff_s(kind: str, failures: int) -> float:
    longest_s = MAX_BACKOFF_OF_RUNS_S if kind in ("start_run", "resume_run") else MAX_BACKOFF_S
    return min(2.0 ** min(failures - 1, 10), longest_s)


def claim(conn: Connection, *, now: datetime, kinds: tuple[str, ...] = (), limit: int = 20) -> list[Item]:
    """Take due rows (of these kinds) for this dispatcher; commit before delivering them."""
    due = (
        select(outbox.c.id)
        .where(
            PENDING,
            outbox.c.kind.in_(kinds) if kinds else true(),
            outbox.c.not_before <= now,
            or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until < now),
        )
        .order_by(outbox.c.not_before, outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = conn.execute(
        update(outbox)
        .where(outbox.c.id.in_(due))
        .values(
            claimed_until=case(
                (outbox.c.kind == "page", now + timedelta(seconds=CLAIM_OF_PAGES_S)), else_=now + timedelta(seconds=CLAIM_S)
            ),
            attempts=outbox.c.attempts + 1,
        )
        .returning(outbox)
    )
    items = [Item(r.id, r.incident_id, r.kind, r.dedup_key, r.payload, r.attempts) for r in rows]
    return sorted(items, key=lambda i: i.id)


def delivered(conn: Connection, item: Item, *, now: datetime) -> None:
    conn.execute(update(outbox).where(outbox.c.id == item.id).values(delivered_at=now, claimed_until=None, last_error=None))


def failed(conn: Connection, item: Item, error: str, *, now: datetime) -> None:
    """Try again after 1, 2, 4 ... 60 s (flow runs: 5 s), for ever."""
    wait_s = _backoff_s(item.kind, item.attempts)
    conn.execute(
        update(outbox)
        .where(outbox.c.id == item.id)
        .values(not_before=now + timedelta(seconds=wait_s), claimed_until=None, last_error=error[:500])
    )


def stands(conn: Connection, item: Item) -> bool:
    """It is still to be delivered: nobody has cancelled it meanwhile."""
    return conn.execute(select(outbox.c.id).where(outbox.c.id == item.id, PENDING)).first() is not None


def is_delivered(conn: Connection, dedup_key: str) -> bool:
    return conn.execute(select(outbox.c.id).where(outbox.c.dedup_key == dedup_key, outbox.c.delivered_at.is_not(None))).first() is not None


def of_incident(conn: Connection, incident_id: str, *kinds: str) -> list[dict[str, Any]]:
    """Rows as plain dicts, oldest first: for the review, the summary and tests."""
    query = select(outbox).where(outbox.c.incident_id == incident_id).order_by(outbox.c.id)
    return [dict(r._mapping) for r in conn.execute(query.where(outbox.c.kind.in_(kinds)) if kinds else query)]


def _json(payload: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(payload, default=str))
