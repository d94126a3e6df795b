"""The moves of a registry's aliases, and what its versions are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.domain.alias_moves import Mark, Move
from mlrunbook.store.tables import registry_moves, registry_versions

MOST = 500  # of a model: years of releases


def lock(conn: Connection, model: str) -> None:
    """One look at a model is taken down at a time."""
    conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:model, 0))"), {"model": f"registry of {model}"})


def of_model(conn: Connection, model: str, *, limit: int = MOST) -> list[Move]:
    """Newest first."""
    query = select(registry_moves).where(registry_moves.c.model == model).order_by(registry_moves.c.id.desc()).limit(limit)
    return [_move(row) for row in conn.execute(query).mappings()]


def mark(conn: Connection, model: str) -> Mark:
    of = registry_moves.c
    query = select(func.coalesce(func.max(of.id), 0), func.count().filter(of.made)).where(of.model == model)
    newest, made = conn.execute(query).one()
    return Mark(newest, made)


def with_key(conn: Connection, key: str) -> Move | None:
    row = conn.execute(select(registry_moves).where(registry_moves.c.key == key)).mappings().one_or_none()
    return _move(row) if row else None


def put(conn: Connection, move: Move) -> Move:
    values = {name: value for name, value in asdict(move).items() if name != "id"}
    return _move(conn.execute(insert(registry_moves).values(values).returning(*registry_moves.c)).mappings().one())


def set_made(conn: Connection, move: Move) -> None:
    conn.execute(update(registry_moves).where(registry_moves.c.id == move.id).values(made=True))


def set_answered(conn: Connection, move: Move) -> None:
    conn.execute(update(registry_moves).where(registry_moves.c.id == move.id).values(answered=True))


def versions(conn: Connection, model: str) -> dict[str, str]:
    """What each was made of when it was last seen to be made of something else, or first."""
    rows = conn.execute(select(registry_versions).where(registry_versions.c.model == model))
    return {row.version: row.made_of for row in rows}


def put_versions(conn: Connection, model: str, made_of: Mapping[str, str], *, now: datetime) -> None:
    if not made_of:
        return
    rows = [{"model": model, "version": version, "made_of": what, "seen_at": now} for version, what in made_of.items()]
    new = upsert(registry_versions).values(rows)
    conn.execute(new.on_conflict_do_update(index_elements=["model", "version"], set_={"made_of": new.excluded.made_of, "seen_at": now}))


def _move(row: RowMapping) -> Move:
    return Move(**row)
