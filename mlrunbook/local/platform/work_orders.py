"""Maintenance work orders made from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from mlrunbook.domain.observed import ServingConfig, WorkOrder
from mlrunbook.local.platform import change_log
from mlrunbook.local.platform.tables import models, work_orders

OPEN = ("pending", "scheduled")
MOST_SCHEDULED = 50  # open at a time: what the calendar holds; the rest waits, pending, for a planner
MOST_PER_REQUEST = 100  # the riskiest first: a model gone wild must not bury the maintenance team in one call


def hold(conn: Connection, model: str) -> None:
    """To the end of the transaction nobody flags the open orders. Read the switches after this and before `create`: then whoever halts
    creation first and flags afterwards has flagged every order there will be."""
    conn.execute(select(models.c.name).where(models.c.name == model).with_for_update(read=True, key_share=True))


def create(conn: Connection, flagged: Sequence[tuple[int, str, float]], *, model: str, config: ServingConfig, at: datetime) -> int:
    """Order work for `flagged` (prediction id, asset id, score); return how many orders are new. One open order an asset.

    Auto-scheduling books the riskiest while there is room. Human approval outranks it: such an order stays pending until somebody
    approves it.
    """
    riskiest = sorted(flagged, key=lambda f: -f[2])[:MOST_PER_REQUEST]
    if not (config.auto_work_orders and riskiest):
        return 0
    room = 0
    if config.auto_scheduling and not config.human_approval:
        booked = select(func.count()).where(work_orders.c.model == model, work_orders.c.state == "scheduled")
        room = max(0, MOST_SCHEDULED - conn.execute(booked).scalar_one())
    scheduled = {prediction_id for prediction_id, _, _ in riskiest[:room]}
    values = [
        {
            "model": model,
            "prediction_id": prediction_id,
            "asset_id": asset_id,
            "state": "scheduled" if prediction_id in scheduled else "pending",
            "needs_approval": config.human_approval,
            "created_at": at,
        }
        for prediction_id, asset_id, _ in sorted(riskiest, key=lambda f: f[1])  # one lock order: concurrent requests cannot deadlock
    ]
    new = pg_insert(work_orders).values(values)
    one_open = new.on_conflict_do_nothing(index_elements=["model", "asset_id"], index_where=text("state IN ('pending', 'scheduled')"))
    return len(conn.execute(one_open.returning(work_orders.c.id)).all())


def find(conn: Connection, *, model: str, states: Sequence[str] = (), limit: int = 5000) -> list[WorkOrder]:
    """Newest first; all states by default."""
    query = select(work_orders).where(work_orders.c.model == model).order_by(work_orders.c.id.desc()).limit(limit)
    if states:
        query = query.where(work_orders.c.state.in_(states))
    return [
        WorkOrder(id=r.id, asset_id=r.asset_id, state=r.state, flagged_for_review=r.flagged_for_review, created_at=r.created_at)
        for r in conn.execute(query)
    ]


def flag_open(conn: Connection, *, model: str, reason: str, at: datetime) -> list[WorkOrder]:
    """Flag every order not yet carried out, scheduled ones too, for human review; return them all.

    Repeating it flags what has come since: for a safety measure the state counts, so there is no idempotency key.
    """
    change_log.lock(conn, model)
    unflagged = update(work_orders).where(work_orders.c.model == model, work_orders.c.state.in_(OPEN), ~work_orders.c.flagged_for_review)
    done = conn.execute(unflagged.values(flagged_for_review=True, flagged_reason=reason, flagged_at=at)).rowcount
    change_log.record(conn, model, "flag_work_orders", target={"flagged": done}, applied=done > 0, at=at)
    return find(conn, model=model, states=OPEN)
