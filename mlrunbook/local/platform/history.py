"""A model's figures by day of UTC, counted by PostgreSQL in one statement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.local.platform import change_log
from mlrunbook.local.platform.predictions import REFUSED

# The null rate is that of the day's worst feature, as in `metrics`; errors count per minute, so a day begins on one.
_BY_DAY = """
    WITH mine AS NOT MATERIALIZED (
        SELECT p.*, CAST(p.at AT TIME ZONE 'UTC' AS date) AS day FROM platform.predictions p
        WHERE p.model = :model AND p.at >= :since AND p.at < :until
    ), nulls AS (
        SELECT day, max(n) AS most FROM (
            SELECT day, f.key, count(*) AS n FROM mine, jsonb_each(features) AS f
            WHERE null_count > 0 AND f.value = 'null' GROUP BY day, f.key
        ) AS by_feature GROUP BY day
    ), failed AS (
        SELECT CAST(minute AT TIME ZONE 'UTC' AS date) AS day, sum(count) AS n FROM platform.serving_errors
        WHERE model = :model AND minute >= :since AND minute < :until AND kind <> ALL (:refused) GROUP BY 1
    ), made AS (
        SELECT day, count(*) AS n, count(*) FILTER (WHERE label) AS flagged,
            count(*) FILTER (WHERE label AND outcome) AS tp, count(*) FILTER (WHERE label AND NOT outcome) AS fp,
            count(*) FILTER (WHERE NOT label AND outcome) AS fn, count(*) FILTER (WHERE NOT label AND NOT outcome) AS tn,
            percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS latency_p95_ms,
            array_agg(DISTINCT version ORDER BY version) AS versions
        FROM mine GROUP BY day
    )
    SELECT day, coalesce(made.n, 0) AS n, coalesce(flagged, 0) AS flagged, coalesce(tp, 0) AS tp, coalesce(fp, 0) AS fp,
        coalesce(fn, 0) AS fn, coalesce(tn, 0) AS tn, latency_p95_ms, versions,
        coalesce(most, 0) AS nulls, coalesce(failed.n, 0) AS errors
    FROM made FULL JOIN failed USING (day) LEFT JOIN nulls USING (day) ORDER BY day
"""


def by_day(conn: Connection, model: str, *, days: int, until: datetime) -> list[DayFigures]:
    """The day that `until` is in, up to `until`, and the days before it, `days` in all; oldest first. Days on which nothing was asked for
    are left out. NotFound for an unknown model."""
    change_log.find(conn, model)
    last = (until.astimezone(UTC) - timedelta(microseconds=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = {"model": model, "since": last - timedelta(days=days - 1), "until": until, "refused": list(REFUSED)}
    rows = conn.execute(text(_BY_DAY), asked).mappings()
    return [
        DayFigures(
            day=r["day"],
            predictions=r["n"],
            confusion=Confusion(tp=r["tp"], fp=r["fp"], fn=r["fn"], tn=r["tn"]),
            flagged_share=r["flagged"] / r["n"] if r["n"] else None,
            latency_p95_ms=r["latency_p95_ms"],
            error_rate=int(r["errors"]) / (r["n"] + int(r["errors"])),
            null_rate=r["nulls"] / r["n"] if r["n"] else None,
            versions=tuple(r["versions"] or ()),
        )
        for r in rows
    ]
