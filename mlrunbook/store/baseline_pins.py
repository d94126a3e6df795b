"""The period that each model was last proven healthy in. It stays until something else is."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.domain.evaluation.outcome_window import Span
from mlrunbook.store.tables import baseline_pins


def get(conn: Connection, model: str) -> Span | None:
    row = conn.execute(select(baseline_pins.c.since, baseline_pins.c.until).where(baseline_pins.c.model == model)).one_or_none()
    return Span(row.since, row.until) if row else None


def put(conn: Connection, model: str, pinned: Span, *, why: str, now: datetime, instead_of: Span | None = None) -> None:
    """Unless another one than `instead_of` stands by now: of two looks the first counts."""
    values = {"model": model, "since": pinned.since, "until": pinned.until, "why": why, "pinned_at": now}
    new = upsert(baseline_pins).values(values)
    if instead_of is None:
        conn.execute(new.on_conflict_do_nothing())
        return
    stands = (baseline_pins.c.since == instead_of.since) & (baseline_pins.c.until == instead_of.until)
    conn.execute(new.on_conflict_do_update(index_elements=["model"], set_={k: v for k, v in values.items() if k != "model"}, where=stands))


def forget(conn: Connection, model: str) -> None:
    """The next look pins it anew."""
    conn.execute(delete(baseline_pins).where(baseline_pins.c.model == model))
