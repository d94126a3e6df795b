"""A model's figures over a window of its prediction log, counted by PostgreSQL in one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, text, update

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.outcomes import due_age_s
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.local.platform import change_log, outcomes
from mlrunbook.local.platform.predictions import REFUSED
from mlrunbook.local.platform.tables import models

CURRENT = timedelta(minutes=60)
BASELINE = timedelta(days=7)
SLICES = 120  # of a window: two are joined where clusters of outcomes are measured, and fewer would measure them worse

TYPE_SLICES = 40  # of the time of one asset type: enough of them to know how much its outcomes come in clusters
MOST_TYPES, MOST_ASSETS = 200, 2000  # those with most failures; the assets of one type

# One row for the whole window, one a risk level, one an asset type, one a slice of its time. `mine` narrows to a version and a
# threshold where asked.
_WINDOW = """
    SELECT p.risk_level, p.asset_type, t.slice,
        GROUPING(p.risk_level) = 0 AS is_risk_level, GROUPING(p.asset_type) = 0 AS is_asset_type, GROUPING(t.slice) = 0 AS is_slice,
        count(*) AS n, count(*) FILTER (WHERE p.label) AS flagged,
        count(*) FILTER (WHERE p.label AND p.outcome) AS tp, count(*) FILTER (WHERE p.label AND NOT p.outcome) AS fp,
        count(*) FILTER (WHERE NOT p.label AND p.outcome) AS fn, count(*) FILTER (WHERE NOT p.label AND NOT p.outcome) AS tn,
        count(*) FILTER (WHERE p.at < :due) AS due, count(*) FILTER (WHERE p.at < :due AND p.outcome IS NULL) AS missing,
        (SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY p.latency_ms) FROM platform.predictions p WHERE {mine}) AS latency_p95_ms,
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM coalesce(p.first_outcome_at, p.outcome_at) - p.at))
         FROM platform.predictions p WHERE {mine} AND p.outcome_at IS NOT NULL) AS label_delay_s,
        (SELECT max(age) FROM (
            SELECT percentile_disc(0.99) WITHIN GROUP (
                ORDER BY extract(epoch FROM coalesce(p.first_outcome_at, p.outcome_at) - p.at)
            ) AS age
            FROM platform.predictions p WHERE {mine} AND p.outcome_at IS NOT NULL GROUP BY p.outcome
        ) AS by_class) AS mature_age_s,
        (SELECT array_agg(DISTINCT p.version ORDER BY p.version) FROM platform.predictions p WHERE {mine}) AS versions,
        (SELECT max(nulls) FROM (
            SELECT count(*) AS nulls FROM platform.predictions p, jsonb_each(p.features) AS f
            WHERE {mine} AND p.null_count > 0 AND f.value = 'null' GROUP BY f.key
        ) AS by_feature) AS most_nulls,
        (SELECT count(*) FROM platform.predictions p WHERE {window}) AS asked,
        (SELECT json_object_agg(kind, n) FROM (
            SELECT e.kind, sum(e.count) AS n FROM platform.serving_errors e
            WHERE e.model = :model AND e.minute >= date_trunc('minute', CAST(:since AS timestamptz)) AND e.minute < :until GROUP BY e.kind
        ) AS by_kind) AS errors
    FROM platform.predictions p, LATERAL (SELECT width_bucket(
        CAST(extract(epoch FROM p.at) AS double precision), :since_s, :until_s, :slices
    ) AS slice) AS t WHERE {mine}
    GROUP BY GROUPING SETS ((), (p.risk_level), (p.asset_type), (t.slice))
"""


# By asset type, slice of time and asset, of the types with most failures: how much their outcomes come in clusters.
_CLUSTERS = """
    WITH mine AS (
        SELECT p.asset_type, p.asset_id, p.label, p.outcome,
            width_bucket(CAST(extract(epoch FROM p.at) AS double precision), :since_s, :until_s, :type_slices) AS slice
        FROM platform.predictions p WHERE {mine} AND p.outcome IS NOT NULL
    ), types AS (
        SELECT asset_type FROM mine GROUP BY asset_type HAVING bool_or(outcome)
        ORDER BY count(*) FILTER (WHERE outcome) DESC, asset_type LIMIT :most_types
    )
    SELECT asset_type, slice, GROUPING(slice) = 0 AS is_slice, {cells}
    FROM mine JOIN types USING (asset_type)
    GROUP BY GROUPING SETS ((asset_type, slice), (asset_type, asset_id)) ORDER BY asset_id
"""
_CELLS = """
        count(*) FILTER (WHERE label AND outcome) AS tp, count(*) FILTER (WHERE label AND NOT outcome) AS fp,
        count(*) FILTER (WHERE NOT label AND outcome) AS fn, count(*) FILTER (WHERE NOT label AND NOT outcome) AS tn"""


def window(
    conn: Connection,
    model: str,
    *,
    since: datetime,
    until: datetime,
    version: str | None = None,
    threshold: float | None = None,
    due: datetime | None = None,
) -> WindowMetrics:
    """What the model did in [since, until), of one version and threshold where given.

    The outcomes of predictions made before `due` are expected to be known; None: all of them.
    The error rate is errors / (predictions + errors) of the whole model: a request that failed has no version. What was the caller's own
    mistake is no error.
    """
    in_window = "p.model = :model AND p.at >= :since AND p.at < :until"
    mine = in_window
    if version is not None:
        mine += " AND p.version = :version"
    if threshold is not None:
        mine += " AND p.threshold = :threshold"
    values = {"model": model, "since": since, "until": until, "version": version, "threshold": threshold}
    values |= {"due": due or until, "since_s": since.timestamp(), "until_s": until.timestamp(), "slices": SLICES}
    rows = conn.execute(text(_WINDOW.format(mine=mine, window=in_window)), values).mappings().all()
    total = next(r for r in rows if not (r["is_risk_level"] or r["is_asset_type"] or r["is_slice"]))
    by_slice = {r["slice"]: _confusion(r) for r in rows if r["is_slice"]}
    confusion, n, counted = _confusion(total), total["n"], {kind: int(count) for kind, count in (total["errors"] or {}).items()}
    by_kind = {kind: count for kind, count in counted.items() if kind not in REFUSED}
    errors = sum(by_kind.values())
    blocks, assets = _clusters(conn, mine, values) if confusion.positives else ({}, {})
    return WindowMetrics(
        since=since,
        until=until,
        predictions=n,
        labelled=confusion.n,
        tally=confusion,
        flagged_share=total["flagged"] / n if n else None,
        latency_p95_ms=total["latency_p95_ms"],
        error_rate=errors / (total["asked"] + errors) if total["asked"] + errors else None,
        null_rate=(total["most_nulls"] or 0) / n if n else None,
        versions=tuple(total["versions"] or ()),
        by_risk_level={r["risk_level"]: _confusion(r) for r in rows if r["is_risk_level"]},
        by_asset_type={r["asset_type"]: _confusion(r) for r in rows if r["is_asset_type"]},
        errors=by_kind,
        refused={kind: count for kind, count in counted.items() if kind in REFUSED},
        label_delay_s=total["label_delay_s"],
        mature_age_s=float(total["mature_age_s"]) if total["mature_age_s"] is not None else None,
        outcomes_due=total["due"],
        outcomes_missing=total["missing"],
        rewritten=outcomes.rewritten(conn, mine, values, confusion),
        blocks=tuple(by_slice.get(i + 1, Confusion()) for i in range(SLICES)) if confusion.n else (),
        blocks_by_asset_type=blocks,
        assets_by_asset_type=assets,
    )


_Parts = dict[str, tuple[Confusion, ...]]


def _clusters(conn: Connection, mine: str, values: Mapping[str, Any]) -> tuple[_Parts, _Parts]:
    """The counts of slices of time and of assets, by asset type. Those of a type with more than MOST_ASSETS assets are left out."""
    asked = {**values, "type_slices": TYPE_SLICES, "most_types": MOST_TYPES}
    slices: dict[str, dict[int, Confusion]] = defaultdict(dict)
    assets: dict[str, list[Confusion]] = defaultdict(list)
    for row in conn.execute(text(_CLUSTERS.format(mine=mine, cells=_CELLS)), asked).mappings():
        if row["is_slice"]:
            slices[row["asset_type"]][row["slice"]] = _confusion(row)
        else:
            assets[row["asset_type"]].append(_confusion(row))
    blocks = {name: tuple(of.get(i + 1, Confusion()) for i in range(TYPE_SLICES)) for name, of in slices.items()}
    return blocks, {name: tuple(of) for name, of in assets.items() if len(of) <= MOST_ASSETS}


def _confusion(row: RowMapping) -> Confusion:
    return Confusion(tp=row["tp"], fp=row["fp"], fn=row["fn"], tn=row["tn"])


def compare(
    conn: Connection,
    model: str,
    *,
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    version: str | None = None,
    threshold: float | None = None,
) -> ModelMetrics:
    """The current window (the last 60 min unless said otherwise) against the baseline, over all versions: the pinned one,
    else the 7 days before the current window. NotFound for an unknown model; Invalid when the window is empty."""
    row = change_log.find(conn, model)
    until = until or now
    since = since or until - CURRENT
    if since >= until:
        raise Invalid(f"since ({since.isoformat()}) must be before until ({until.isoformat()})", field="since")
    pinned = row["baseline_since"] is not None
    baseline_since = row["baseline_since"] if pinned else since - BASELINE
    baseline_until = row["baseline_until"] if pinned else since
    baseline = window(conn, model, since=baseline_since, until=baseline_until)
    due = until - timedelta(seconds=due_age_s(baseline.label_delay_s))
    current = window(conn, model, since=since, until=until, version=version, threshold=threshold, due=due)
    lately = outcomes.rewritten_lately(conn, model, until=now)
    return ModelMetrics(model=model, current=current, baseline=baseline, rewritten_lately=lately)


def pin_baseline(conn: Connection, model: str, *, since: datetime | None, until: datetime | None, by: str, at: datetime) -> None:
    """Compare with this window from now on; both None: with the 7 days before the current window again. NotFound, Invalid."""
    change_log.lock(conn, model)
    if since is not None and until is not None and since >= until:
        raise Invalid(f"since ({since.isoformat()}) must be before until ({until.isoformat()})", field="since")
    conn.execute(update(models).where(models.c.name == model).values(baseline_since=since, baseline_until=until))
    detail = {"baseline": [since.isoformat(), until.isoformat()] if since and until else None}
    change_log.note_change(conn, model, "config", ref="baseline", author=by, at=at, detail=detail)
