"""Every change of a model's mode that was seen in policy. Rows are only added, and explained once by a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, text, update

from mlrunbook.domain.policy.modes import Mode
from mlrunbook.store.tables import mode_changes

_ONE_AT_A_TIME = 0x6D6F6465  # advisory lock


@dataclass(frozen=True)
class ModeChange:
    """`model`: a name or pattern of `models`, or "*" for the top of the policy. `was` None: it was not on record before. `by` None: nobody
    has said why."""

    id: int
    model: str
    was: Mode | None
    mode: Mode
    at: datetime
    policy: str
    by: str | None = None
    why: str | None = None


def lock(conn: Connection) -> None:
    conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})


def newest(conn: Connection) -> dict[str, Mode]:
    """By model, the mode that was seen last."""
    query = select(mode_changes.c.model, mode_changes.c.mode).distinct(mode_changes.c.model)
    return {r.model: Mode(r.mode) for r in conn.execute(query.order_by(mode_changes.c.model, mode_changes.c.id.desc()))}


def add(conn: Connection, model: str, was: Mode | None, mode: Mode, *, policy: str, now: datetime) -> None:
    conn.execute(insert(mode_changes).values(model=model, was=was, mode=mode, policy=policy, at=now))


def find(conn: Connection, *, model: str | None = None, limit: int = 100) -> list[ModeChange]:
    """The newest first."""
    query = select(mode_changes).order_by(mode_changes.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(mode_changes.c.model == model)
    return [_change(dict(row._mapping)) for row in conn.execute(query)]


def explain(conn: Connection, id_: int, *, by: str, why: str, now: datetime) -> ModeChange:
    row = conn.execute(
        update(mode_changes).where(mode_changes.c.id == id_).values(by=by, why=why, explained_at=now).returning(*mode_changes.c)
    ).one()
    return _change(dict(row._mapping))


def _change(row: dict[str, object]) -> ModeChange:
    was = row["was"]
    return ModeChange(
        id=int(str(row["id"])),
        model=str(row["model"]),
        was=Mode(str(was)) if was else None,
        mode=Mode(str(row["mode"])),
        at=row["at"],  # type: ignore[arg-type]
        policy=str(row["policy"]),
        by=row["by"] if row["by"] is None else str(row["by"]),
        why=row["why"] if row["why"] is None else str(row["why"]),
    )
