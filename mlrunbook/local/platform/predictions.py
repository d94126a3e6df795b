"""The prediction log: what was predicted, what came true, what could not be predicted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert as pg_insert

from mlrunbook.domain.observed import Prediction
from mlrunbook.local.platform.tables import predictions, serving_errors

# Bands of the score, not of the threshold: when the threshold slips, the table by risk level shows where the errors are.
MEDIUM_RISK, HIGH_RISK = 0.3, 0.7
CHUNK = 5000
# Kinds of failed predictions that are the caller's own mistake: counted, and no part of the error rate.
UNKNOWN_MODEL, INVALID_REQUEST = "unknown_model", "invalid_request"
REFUSED = (UNKNOWN_MODEL, INVALID_REQUEST)

_RECORD = text("""
    INSERT INTO platform.predictions
        (id, model, at, asset_id, asset_type, features, score, label, risk_level,
         version, threshold, latency_ms, null_count, outcome, outcome_at, shadow_version, shadow_score)
    SELECT id, :model, at, asset_id, asset_type, features, score, score >= :threshold, risk_level,
           :version, :threshold, :latency_ms, null_count, outcome, CASE WHEN outcome IS NOT NULL THEN at END,
           CASE WHEN shadow_score IS NOT NULL THEN CAST(:shadow_version AS text) END, shadow_score
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r
        (id bigint, at timestamptz, asset_id text, asset_type text, features jsonb, score float8, risk_level text,
         null_count int, outcome boolean, shadow_score float8)
""")
_IDS = text("SELECT nextval(pg_get_serial_sequence('platform.predictions', 'id')) FROM generate_series(1, :n)")


@dataclass(frozen=True)
class Scored:
    """One asset's prediction as the server made it. `score` is the probability of failure; `shadow_score` is staging's."""

    at: datetime
    asset_id: str
    asset_type: str
    features: Mapping[str, Any]
    score: float
    null_count: int = 0
    outcome: bool | None = None
    shadow_score: float | None = None


def risk_level(score: float) -> str:
    """low, medium, high: under 0.3, under 0.7, from 0.7."""
    return "low" if score < MEDIUM_RISK else "medium" if score < HIGH_RISK else "high"


def record(
    conn: Connection,
    rows: Sequence[Scored],
    *,
    model: str,
    version: str,
    threshold: float,
    latency_ms: float,
    shadow_version: str | None = None,
) -> list[int]:
    """Log `rows` in bulk and return their ids in the same order. Labels are `score >= threshold`."""
    ids: list[int] = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        part_ids = list(conn.execute(_IDS, {"n": len(part)}).scalars())
        body = [
            {
                "id": id_,
                "at": r.at.isoformat(),
                "asset_id": r.asset_id,
                "asset_type": r.asset_type,
                "features": r.features,
                "score": r.score,
                "risk_level": risk_level(r.score),
                "null_count": r.null_count,
                "outcome": r.outcome,
                "shadow_score": r.shadow_score,
            }
            for id_, r in zip(part_ids, part, strict=True)
        ]
        values = {"model": model, "version": version, "threshold": threshold, "latency_ms": latency_ms, "shadow_version": shadow_version}
        conn.execute(_RECORD, values | {"rows": json.dumps(body, allow_nan=False)})
        ids += part_ids
    return ids


def models_of(conn: Connection, ids: Iterable[int]) -> list[str]:
    """Of the predictions that are known."""
    return list(conn.execute(select(predictions.c.model).where(predictions.c.id.in_(list(ids))).distinct()).scalars())


def recent(
    conn: Connection,
    *,
    model: str | None = None,
    limit: int = 100,
    since: datetime | None = None,
    until: datetime | None = None,
    labelled_only: bool = False,
) -> list[Prediction]:
    """The newest predictions of [since, until) first."""
    query = select(predictions).order_by(predictions.c.at.desc(), predictions.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(predictions.c.model == model)
    if since is not None:
        query = query.where(predictions.c.at >= since)
    if until is not None:
        query = query.where(predictions.c.at < until)
    if labelled_only:
        query = query.where(predictions.c.outcome.is_not(None))
    return [
        Prediction(
            id=r.id,
            at=r.at,
            asset_id=r.asset_id,
            asset_type=r.asset_type,
            features=r.features,
            score=r.score,
            label=r.label,
            version=r.version,
            threshold=r.threshold,
            latency_ms=r.latency_ms,
            outcome=r.outcome,
            shadow_version=r.shadow_version,
            shadow_score=r.shadow_score,
        )
        for r in conn.execute(query)
    ]


def count_errors(conn: Connection, *, model: str, kind: str, count: int, at: datetime) -> None:
    """Note `count` assets that were asked for and got no prediction."""
    new = pg_insert(serving_errors).values(model=model, minute=at.replace(second=0, microsecond=0), kind=kind, count=count)
    same_minute = [serving_errors.c.model, serving_errors.c.minute, serving_errors.c.kind]
    conn.execute(new.on_conflict_do_update(index_elements=same_minute, set_={"count": serving_errors.c.count + count}))
