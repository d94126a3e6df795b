"""Where each incident's chain stands: the length and last hash of its two strands, kept beside them so that an append reads no more.

The row is no proof, for whoever edits the chain can edit it too; the proof is what was sent out. It makes a gap of a tail that was cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.chain import GENESIS, Head, Length, head_of
from mlrunbook.domain.errors import NotFound
from mlrunbook.store.tables import chain_heads, incidents, row_events, timeline


@dataclass(frozen=True)
class Tip:
    """The last link of one strand."""

    number: int
    hash: str


def lock(conn: Connection, incident_id: str) -> None:
    """Hold the incident's row, which orders both strands."""
    if conn.execute(select(incidents.c.id).where(incidents.c.id == incident_id).with_for_update()).one_or_none() is None:
        raise NotFound(f"there is no incident {incident_id!r}; list them with `mlrunbook incidents list`")


def last_entry(conn: Connection, incident_id: str) -> Tip:
    """For the next append: the caller holds the incident's row."""
    return _tip(conn, incident_id, timeline, "entries")


def last_event(conn: Connection, incident_id: str) -> Tip:
    return _tip(conn, incident_id, row_events, "events")


def _tip(conn: Connection, incident_id: str, strand: Any, name: str) -> Tip:
    """The last row, or the head where that is further on: its row was deleted, and the gap must show."""
    last = select(strand.c.seq, strand.c.hash).where(strand.c.incident_id == incident_id).order_by(strand.c.seq.desc()).limit(1)
    noted = select(chain_heads.c[name], chain_heads.c[f"{name}_hash"]).where(chain_heads.c.incident_id == incident_id)
    rows = [Tip(*row) for row in conn.execute(last.subquery().select().union_all(noted))]
    return max(rows, key=lambda tip: tip.number, default=Tip(0, GENESIS))


def set_entry(conn: Connection, incident_id: str, tip: Tip) -> None:
    _set(conn, incident_id, entries=tip.number, entries_hash=tip.hash)


def set_event(conn: Connection, incident_id: str, tip: Tip) -> None:
    _set(conn, incident_id, events=tip.number, events_hash=tip.hash)


def _set(conn: Connection, incident_id: str, **values: object) -> None:
    new = values | {"changed_at": func.clock_timestamp()}
    conn.execute(insert(chain_heads).values(incident_id=incident_id, **new).on_conflict_do_update(index_elements=["incident_id"], set_=new))


def get(conn: Connection, incident_id: str) -> Head | None:
    # Not when it changed: a time that Python cannot read is none that we wrote, and must not hide the rest.
    noted = (chain_heads.c[name] for name in ("entries", "entries_hash", "events", "events_hash"))
    row = conn.execute(select(*noted).where(chain_heads.c.incident_id == incident_id)).one_or_none()
    return head_of(Length(row.entries, row.events), row.entries_hash, row.events_hash) if row else None


def lengths(conn: Connection, incident_ids: Collection[str]) -> dict[str, Length]:
    """How long each of these chains is, by what is kept beside it: whoever shows them sees by it that something came."""
    noted = select(chain_heads.c.incident_id, chain_heads.c.entries, chain_heads.c.events)
    rows = conn.execute(noted.where(chain_heads.c.incident_id == func.any(sorted(incident_ids))))
    return {r.incident_id: Length(r.entries, r.events) for r in rows}


def at(conn: Connection, incident_id: str, lengths: Sequence[Length]) -> dict[Length, str]:
    """The short hash that a head of each of these lengths must have, by the rows as they stand; shorter chains have none."""
    entries = _hashes(conn, timeline, incident_id, {n.entries for n in lengths})
    events = _hashes(conn, row_events, incident_id, {n.events for n in lengths})
    there = [n for n in lengths if n.entries in entries and n.events in events]
    return {n: head_of(n, entries[n.entries], events[n.events]).hash for n in there}


def _hashes(conn: Connection, strand: Any, incident_id: str, numbers: set[int]) -> dict[int, str]:
    query = select(strand.c.seq, strand.c.hash).where(strand.c.incident_id == incident_id, strand.c.seq == func.any(sorted(numbers)))
    return {0: GENESIS} | {seq: hash_ for seq, hash_ in conn.execute(query)}


@dataclass(frozen=True)
class Changed:
    incident_id: str
    head: Head
    at: datetime


def changed_after(conn: Connection, at: datetime, incident_id: str = "", *, limit: int) -> list[Changed]:
    """The chains that grew after that moment of the database's clock, oldest first; `incident_id` goes on among those of one moment. A
    time to come is none that we wrote, or the clock was set back: whoever went on from there would see nothing for as long."""
    here = tuple_(chain_heads.c.changed_at, chain_heads.c.incident_id)
    grew = (here > tuple_(literal(at), literal(incident_id))) & (chain_heads.c.changed_at <= func.clock_timestamp())
    rows = conn.execute(select(chain_heads).where(grew).order_by(here).limit(limit))
    return [Changed(r.incident_id, head_of(Length(r.entries, r.events), r.entries_hash, r.events_hash), r.changed_at) for r in rows]


def incidents_after(conn: Connection, number: int, *, limit: int) -> list[tuple[int, str]]:
    """Numbers and ids alone: whatever else was done to the row, it is verified."""
    query = select(incidents.c.number, incidents.c.id).where(incidents.c.number > number).order_by(incidents.c.number).limit(limit)
    return [(n, id_) for n, id_ in conn.execute(query)]


def without_incident(conn: Connection, *, limit: int = 1000) -> list[str]:
    """Incidents that have a chain and no row any more."""
    gone = (
        select(chain_heads.c.incident_id).outerjoin(incidents, incidents.c.id == chain_heads.c.incident_id).where(incidents.c.id.is_(None))
    )
    return list(conn.execute(gone.order_by(chain_heads.c.incident_id).limit(limit)).scalars())
