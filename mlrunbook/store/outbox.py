"""The outbox: everything that must happen at or after a time, exactly as long as it takes.

A row is put in the transaction that causes it, claimed by any dispatcher (`FOR UPDATE SKIP LOCKED`), and tried until it is
delivered or cancelled. A dispatcher that dies holding a claim loses it after its time: the row then goes out again.

A row waits for as long as lies between `set_at` and `not_before`. Where a clock was set back, or the writer's runs ahead of ours, its times
are moved so that the wait stays what it was: early rather than late. What is bound to the calendar is not moved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, literal, or_, select, text, update

from mlrunbook.base.db import to_json
from mlrunbook.domain.incident import Severity
from mlrunbook.store.tables import ONE_OPEN, incidents, outbox

SETTLE = "settle_pages"
UPDATE = "update"
RESPONSE = "response_due"
EXPIRY = "expire_approval"
ORDER_OVERDUE = "order_overdue"
SILENCE_ENDS = "silence_ends"
FLAPPING = "automation_back"
CALENDAR = (SILENCE_ENDS, FLAPPING)  # what ends then is compared with the clock again: it ends by that clock, never early

CLAIM_S = 60.0
CLAIM_OF_PAGES_S = 20.0  # a page may repeat; one that a dead dispatcher held must not wait a minute
MAX_BACKOFF_S = 60.0
MAX_BACKOFF_OF_RUNS_S = 5.0  # the Prefect server is ours, and an approved fix waits for it

SET_ASIDE = "set_aside"  # the kind of rows that nobody can read; their payload holds what they were
CHANNEL = outbox.c.payload["channel"].astext  # NULL where there is none
OF_CRITICAL = outbox.c.incident_id.in_(select(incidents.c.id).where(incidents.c.severity == Severity.CRITICAL.value, text(ONE_OPEN)))
CLOCKS_DIFFER = timedelta(seconds=5)  # two clocks that are both well kept
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
    values = {
        "incident_id": incident_id,
        "kind": kind,
        "dedup_key": dedup_key,
        "payload": to_json(_json(payload)),
        "not_before": at or now,
        "now": now,
    }
    return conn.execute(_PUT, values).first() is not None


# As text: SQLAlchemy compiles an INSERT ... ON CONFLICT anew each time, and an incident begins with a dozen of them.
_PUT = text("""
    INSERT INTO outbox (incident_id, kind, dedup_key, payload, not_before, set_at, created_at)
    VALUES (:incident_id, :kind, :dedup_key, CAST(:payload AS jsonb), :not_before, :now, :now)
    ON CONFLICT DO NOTHING RETURNING id
""")


def reschedule(conn: Connection, dedup_key: str, at: datetime, payload: Mapping[str, Any] | None = None, *, now: datetime) -> None:
    """Move a row that has not gone out, with another payload when one is given."""
    values: dict[str, Any] = {"not_before": at, "set_at": now}
    if payload is not None:
        values |= {"payload": _json(payload), "due_at": None}
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


@dataclass(frozen=True)
class Waiting:
    """A row that should have gone out, and since when."""

    since: datetime
    incident_id: str | None
    channel: str | None


def oldest_due(conn: Connection, kind: str, *, now: datetime) -> datetime | None:
    """Since when the longest-waiting row of this kind should have gone out; None while none waits."""
    row = longest_due(conn, kind, now=now)
    return row.since if row else None


def longest_due(conn: Connection, kind: str, *, now: datetime) -> Waiting | None:
    """The row of this kind that has waited longest; None while none waits.

    `not_before` moves with every failed try: the row itself says how long it has waited, whichever dispatcher tried it and whenever the
    gateway was restarted. One that failed under an older version does not; there the waits between its tries are counted back.
    """
    rows = conn.execute(
        select(
            outbox.c.incident_id,
            CHANNEL.label("channel"),
            outbox.c.due_at,
            outbox.c.not_before,
            outbox.c.attempts,
            outbox.c.claimed_until,
        ).where(PENDING, outbox.c.kind == kind, or_(outbox.c.not_before <= now, outbox.c.attempts > 0))
    )
    tried = ((r, r.attempts - (r.claimed_until is not None)) for r in rows)  # a claimed try has not failed yet
    waiting = [Waiting(r.due_at or r.not_before - _waited(kind, failures), r.incident_id, r.channel) for r, failures in tried]
    return min(waiting, key=lambda w: w.since, default=None)


def _waited(kind: str, failures: int) -> timedelta:
    return timedelta(seconds=sum(_backoff_s(kind, n) for n in range(1, min(failures, 1000) + 1)))


def _backoff_s(kind: str, failures: int) -> float:
    longest_s = MAX_BACKOFF_OF_RUNS_S if kind in ("start_run", "resume_run") else MAX_BACKOFF_S
    return min(2.0 ** min(failures - 1, 10), longest_s)


class Lane(NamedTuple):
    """Rows that wait for one another at most: those of one kind to one channel."""

    kind: str
    channel: str | None


def lanes_due(conn: Connection, kinds: tuple[str, ...], *, now: datetime) -> list[Lane]:
    """Where something may be claimed now. What a machine whose clock runs ahead of ours has put waits from now on at the latest."""
    _move(conn, PENDING & (outbox.c.set_at > now + CLOCKS_DIFFER), literal(now) - outbox.c.set_at)
    due = select(outbox.c.kind, CHANNEL).where(outbox.c.kind.in_(kinds), *_claimable(now)).distinct()
    return [Lane(kind, channel) for kind, channel in conn.execute(due)]


def _claimable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return PENDING, outbox.c.not_before <= now, or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until < now)


def claim(conn: Connection, *, now: datetime, kinds: tuple[str, ...] = (), lane: Lane | None = None, limit: int = 20) -> list[Item]:
    """Take due rows (of these kinds, of this lane) for this dispatcher, those of critical incidents first: a storm of other alerts must
    not delay their pages. Commit before delivering them."""
    wanted: list[ColumnElement[bool]] = [outbox.c.kind.in_(kinds)] if kinds else []
    if lane:
        wanted += [outbox.c.kind == lane.kind, CHANNEL.is_not_distinct_from(lane.channel)]
    items = _claim(conn, [*wanted, OF_CRITICAL], now=now, limit=limit)
    if len(items) < limit:
        items += _claim(conn, wanted, now=now, limit=limit - len(items))
    return sorted(items, key=lambda i: i.id)


def _claim(conn: Connection, wanted: list[ColumnElement[bool]], *, now: datetime, limit: int) -> list[Item]:
    due = (
        select(outbox.c.id)
        .where(*wanted, *_claimable(now))
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
            set_at=now,
            attempts=outbox.c.attempts + 1,
        )
        .returning(outbox)
    )
    return [Item(r.id, r.incident_id, r.kind, r.dedup_key, r.payload, r.attempts) for r in rows]


def delivered(conn: Connection, item: Item, *, now: datetime) -> None:
    conn.execute(update(outbox).where(outbox.c.id == item.id).values(delivered_at=now, claimed_until=None, last_error=None))


def failed(conn: Connection, item: Item, error: str, *, now: datetime) -> bool:
    """Try again after 1, 2, 4 ... 60 s (flow runs: 5 s), for ever. False for a try that was given up before: it ends no later one."""
    wait_s = _backoff_s(item.kind, item.attempts)
    mine = (outbox.c.id == item.id) & (outbox.c.attempts == item.attempts) & outbox.c.claimed_until.is_not(None)
    again = {
        "not_before": now + timedelta(seconds=wait_s),
        "due_at": func.coalesce(outbox.c.due_at, outbox.c.not_before),  # tries take time too: the row keeps since when it has waited
        "set_at": now,
        "claimed_until": None,
        "last_error": _storable(error),
    }
    return conn.execute(update(outbox).where(mine).values(**again)).rowcount > 0


def set_aside(conn: Connection, item: Item, why: str, *, now: datetime) -> None:
    """Take a row that nobody can read out of everybody's way, with all that it held; its key is free for the row that was meant."""
    was = {"kind": item.kind, "dedup_key": item.dedup_key, "payload": item.payload}
    conn.execute(
        update(outbox)
        .where(outbox.c.id == item.id, PENDING)
        .values(
            kind=SET_ASIDE,
            dedup_key=f"{SET_ASIDE}:{item.id}:{item.dedup_key}",
            payload=_json(was),
            cancelled_at=now,
            claimed_until=None,
            last_error=_storable(why),
        )
    )


def unknown(conn: Connection, known: tuple[str, ...], *, due_before: datetime, limit: int = 100) -> list[Item]:
    """Rows of kinds that no dispatcher of this version knows, of which nothing was said yet."""
    rows = conn.execute(
        select(outbox)
        .where(PENDING, outbox.c.kind.not_in(known), outbox.c.not_before < due_before, outbox.c.last_error.is_(None))
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [Item(r.id, r.incident_id, r.kind, r.dedup_key, r.payload, r.attempts) for r in rows]


def leave(conn: Connection, item: Item, why: str) -> bool:
    """Note why a row stays where it is; False when that was noted before."""
    noted = update(outbox).where(outbox.c.id == item.id, outbox.c.last_error.is_(None)).values(last_error=_storable(why))
    return conn.execute(noted).rowcount > 0


def _storable(text: str) -> str:
    return text.replace("\x00", "").encode(errors="replace").decode()[:500]


def clock_set_back(conn: Connection, by_s: float) -> None:
    """What waits goes on waiting for as long as it had to, however much the clock that its times were read from has lost."""
    _move(conn, PENDING, timedelta(seconds=-by_s))


def _move(conn: Connection, which: ColumnElement[bool], by: timedelta | ColumnElement[Any]) -> None:
    rows = select(outbox.c.id).where(which).order_by(outbox.c.id).with_for_update()
    moved = {
        "not_before": case((outbox.c.kind.in_(CALENDAR), outbox.c.not_before), else_=outbox.c.not_before + by),
        "due_at": outbox.c.due_at + by,
        "claimed_until": outbox.c.claimed_until + by,
        "set_at": outbox.c.set_at + by,
    }
    conn.execute(update(outbox).where(outbox.c.id.in_(rows)).values(**moved))


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
