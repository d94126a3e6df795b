"""The evidence bundle: what the world looked like before the first change (EU AI Act Art. 73(6): do not alter first)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.store import row_events
from mlrunbook.store.tables import evidence


@dataclass(frozen=True)
class Item:
    name: str
    media_type: str
    sha256: str
    bytes: int
    taken_at: datetime


def preserve(conn: Connection, incident_id: str, name: str, content: bytes, media_type: str, *, now: datetime) -> None:
    """Keep `content` under `name`. The first one stands: later calls do not overwrite evidence."""
    row_events.add(
        conn,
        incident_id,
        insert(evidence)
        .values(
            incident_id=incident_id,
            name=name,
            media_type=media_type,
            sha256=hashlib.sha256(content).hexdigest(),
            content=content,
            taken_at=now,
        )
        .on_conflict_do_nothing(),
    )


def manifest(conn: Connection, incident_id: str) -> list[Item]:
    size = func.octet_length(evidence.c.content)  # not the content itself: a drift report has 4 MB
    columns = (evidence.c.name, evidence.c.media_type, evidence.c.sha256, size.label("bytes"), evidence.c.taken_at)
    rows = conn.execute(select(*columns).where(evidence.c.incident_id == incident_id).order_by(evidence.c.name))
    return [Item(*row) for row in rows]


def digests(conn: Connection, incident_id: str) -> dict[str, str]:
    """Name -> SHA-256 of the content as it is now, not as it was noted."""
    of_content = func.encode(func.sha256(evidence.c.content), "hex")
    rows = conn.execute(select(evidence.c.name, of_content).where(evidence.c.incident_id == incident_id))
    return {name: digest for name, digest in rows}


def content(conn: Connection, incident_id: str, name: str) -> tuple[bytes, str] | None:
    """The bytes and their media type."""
    wanted = select(evidence.c.content, evidence.c.media_type).where(evidence.c.incident_id == incident_id, evidence.c.name == name)
    row = conn.execute(wanted).one_or_none()
    return (row.content, row.media_type) if row else None
