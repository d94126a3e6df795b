"""What a trusted sender sent and we could not use: kept as it came, until somebody has it read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.errors import NotFound
from mlrunbook.store.tables import quarantine

DISCARDED = "discarded"
WAITING = quarantine.c.replayed_at.is_(None)


@dataclass(frozen=True)
class Discarded:
    """A person has looked at it: nobody needs it."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Listed:
    """Without the message. `replayed_into` is what became of it at `replayed_at`: the receipt of the replay, or who has discarded it and
    why. `proof`: how the sender was proven (None: not known), `times`: how often it came."""

    id: int
    source: str
    sender: str
    error: str
    received_at: datetime
    size_bytes: int
    replayed_at: datetime | None
    replayed_into: Mapping[str, Any] | None
    times: int
    proof: Mapping[str, Any] | None

    @property
    def discarded(self) -> Discarded | None:
        said = (self.replayed_into or {}).get(DISCARDED)
        return Discarded(str(said["by"]), str(said["reason"]), self.replayed_at) if said and self.replayed_at else None


LISTED = [func.octet_length(quarantine.c.body) if f.name == "size_bytes" else quarantine.c[f.name] for f in fields(Listed)]


@dataclass(frozen=True)
class Quarantined(Listed):
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """One message or part of one, as it came."""

    source: str
    body: bytes
    error: str
    sender: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        about = json.dumps([self.source, self.sender, dict(self.headers), self.proof], sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(about).digest() + self.body).hexdigest()


def keep(conn: Connection, message: Message, *, now: datetime) -> int:
    """Keep it; returns the row's number. One that waits here already is counted, and is no second row."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    row = insert(quarantine).values(**values | {"headers": dict(message.headers), "key": message.key, "received_at": now})
    again = row.on_conflict_do_update(index_elements=[quarantine.c.key], index_where=WAITING, set_={"times": quarantine.c.times + 1})
    return int(conn.execute(again.returning(quarantine.c.id)).scalar_one())


def waiting(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(quarantine).where(WAITING)).scalar_one())


def waiting_by_source(conn: Connection) -> dict[str, int]:
    rows = conn.execute(select(quarantine.c.source, func.count().label("n")).where(WAITING).group_by(quarantine.c.source))
    return {r.source: r.n for r in rows}


def find(
    conn: Connection, *, replayed: bool = False, source: str | None = None, before: int | None = None, limit: int = 100
) -> list[Listed]:
    """Newest first, below the number `before`; those that wait, and with `replayed` the others too. The bodies may be large: they stay."""
    query = select(*LISTED).order_by(quarantine.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(quarantine.c.id < before)
    if not replayed:
        query = query.where(WAITING)
    if source:
        query = query.where(quarantine.c.source == source)
    return [Listed(*r) for r in conn.execute(query)]


def get(conn: Connection, number: int, *, lock: bool = False) -> Quarantined:
    query = select(quarantine).where(quarantine.c.id == number)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"nothing with the number {number} is quarantined; see `mlrunbook quarantine list`")
    return _row(row)


def mark_replayed(conn: Connection, number: int, receipt: Mapping[str, Any], *, now: datetime) -> None:
    conn.execute(update(quarantine).where(quarantine.c.id == number).values(replayed_at=now, replayed_into=dict(receipt)))


def discard(conn: Connection, number: int, *, by: str, reason: str, now: datetime) -> None:
    """The message stays, with who needs it no more and why."""
    mark_replayed(conn, number, {DISCARDED: {"by": by, "reason": reason}}, now=now)


def _row(r: Any) -> Quarantined:
    body = bytes(r.body)
    listed = {f.name: getattr(r, f.name) for f in fields(Listed) if f.name != "size_bytes"}
    return Quarantined(**listed, size_bytes=len(body), body=body, headers=r.headers)
