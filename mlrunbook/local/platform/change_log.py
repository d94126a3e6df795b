"""Who asked to change what, whether it was done, and what therefore changed near a model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select

from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.observed import Change
from mlrunbook.local.platform.tables import changes, models, requests


def lock(conn: Connection, model: str) -> RowMapping:
    """The model's row, locked to the end of the transaction: changes of one model happen one after the other. NotFound."""
    row = conn.execute(select(models).where(models.c.name == model).with_for_update()).mappings().one_or_none()
    return _known(row, model)


def find(conn: Connection, model: str) -> RowMapping:
    """The model's row without a lock. NotFound."""
    return _known(conn.execute(select(models).where(models.c.name == model)).mappings().one_or_none(), model)


def _known(row: RowMapping | None, model: str) -> RowMapping:
    if row is None:
        raise NotFound(f"there is no model {model!r}: check its name, or register a version of it first")
    return row


def is_repeat(conn: Connection, model: str, kind: str, key: str | None, target: Mapping[str, Any]) -> bool:
    """True when this Idempotency-Key was used already, so that nothing may be applied again. Call with the model locked.

    Invalid when it was used for another target: the caller mixed up two requests.
    """
    if key is None:
        return False
    stored = conn.execute(
        select(requests.c.target).where(requests.c.model == model, requests.c.kind == kind, requests.c.key == key)
    ).scalar_one_or_none()
    if stored is not None and stored != dict(target):
        raise Invalid(f"Idempotency-Key {key!r} was used for {stored}, not {dict(target)}: use a new key", field="Idempotency-Key")
    return stored is not None


def record(
    conn: Connection, model: str, kind: str, *, target: Mapping[str, Any], applied: bool, at: datetime, key: str | None = None
) -> None:
    """Note one request and whether it changed anything."""
    conn.execute(insert(requests).values(model=model, kind=kind, key=key, target=dict(target), applied=applied, at=at))


def applied_counts(conn: Connection, model: str) -> dict[str, int]:
    """How many requests of each kind really changed something."""
    rows = conn.execute(
        select(requests.c.kind, func.count()).where(requests.c.model == model, requests.c.applied).group_by(requests.c.kind)
    ).tuples()
    return dict(sorted(rows.all()))


def note_change(
    conn: Connection, model: str, kind: str, *, ref: str, author: str, at: datetime, detail: Mapping[str, Any] | None = None
) -> None:
    conn.execute(insert(changes).values(model=model, kind=kind, ref=ref, author=author, at=at, detail=dict(detail or {})))


def list_changes(conn: Connection, model: str, *, since: datetime, limit: int = 500) -> list[Change]:
    """Newest first."""
    rows = conn.execute(
        select(changes)
        .where(changes.c.model == model, changes.c.at >= since)
        .order_by(changes.c.at.desc(), changes.c.id.desc())
        .limit(limit)
    )
    return [Change(kind=r.kind, ref=r.ref, author=r.author, at=r.at, detail=r.detail) for r in rows]
