"""Failures of critical assets that the model called safe, as their outcomes come."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, or_, select

from mlrunbook.domain.detection.critical_assets import MissedFailure, is_missed
from mlrunbook.domain.policy.alerting import SafetyPolicy
from mlrunbook.local.platform.tables import predictions

WINDOW = timedelta(minutes=60)


def missed_failures(conn: Connection, model: str, policy: SafetyPolicy, *, now: datetime) -> tuple[MissedFailure, ...]:
    """Those whose outcome came within the last 60 min, oldest first, whatever version predicted. When the asset failed is taken as when
    its outcome came: one that is told later than the horizon is not counted."""
    p = predictions.c
    if not policy.critical_asset_types and not policy.critical_assets:
        return ()
    critical = or_(p.asset_type.in_(policy.critical_asset_types), p.asset_id.in_(policy.critical_assets))
    came = (p.outcome_at > now - WINDOW) & (p.outcome_at <= now)
    rows = conn.execute(select(predictions).where(p.model == model, p.outcome & ~p.label, came, critical).order_by(p.outcome_at, p.id))
    return tuple(
        MissedFailure(r.id, r.asset_id, r.asset_type, r.score, r.threshold, r.at, r.outcome_at)
        for r in rows
        if is_missed(r.asset_id, r.asset_type, flagged=r.label, failed=r.outcome, predicted_at=r.at, failed_at=r.outcome_at, policy=policy)
    )
