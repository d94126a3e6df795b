"""What came true of a prediction, in versions: who reported it, who corrected it, and when. Metrics use the newest; the first is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.evaluation.performance import Confusion, Rewritten
from mlrunbook.domain.policy.judging import OutcomesPolicy
from mlrunbook.local.platform.tables import outcomes, predictions

LATELY = timedelta(hours=24)
SETTLES = timedelta(minutes=OutcomesPolicy().settles_after_min)

# Locked in one order before anything is read: what a version replaces is then what it was, however many report at once.
_LOCK = text("SELECT id FROM platform.predictions WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
_RECORD = text("""
    WITH given AS (SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:outcomes AS boolean[])) AS g (id, outcome)),
    old AS (
        SELECT p.id, p.model, p.at, p.outcome, p.outcome_at, g.outcome AS new,
            (SELECT o.person FROM platform.outcomes o WHERE o.prediction_id = p.id ORDER BY o.id DESC LIMIT 1) AS person
        FROM platform.predictions p JOIN given g USING (id) WHERE p.outcome IS DISTINCT FROM g.outcome
    ),
    changed AS (
        UPDATE platform.predictions p SET outcome = old.new, outcome_at = :at,
            first_outcome_at = CASE WHEN old.outcome IS NOT NULL THEN coalesce(p.first_outcome_at, old.outcome_at) END
        FROM old WHERE p.id = old.id
    )
    INSERT INTO platform.outcomes
        (prediction_id, model, predicted_at, outcome, by, person, token_id, at, previous, previous_at, rewrites)
    SELECT id, model, at, new, :by, :person, :token_id, :at, outcome, outcome_at,
        outcome IS NOT NULL AND (person IS DISTINCT FROM :person OR :at - outcome_at > :settles) FROM old ORDER BY id
""")

# A prediction counts as rewritten while its outcome is not the one first reported, and one of the corrections rewrote it.
_REWRITTEN = """
    WITH corrected AS (
        SELECT prediction_id, (array_agg(previous ORDER BY id))[1] AS first, (array_agg(by ORDER BY id DESC))[1] AS by,
            bool_or(rewrites) AS rewritten
        FROM platform.outcomes WHERE previous IS NOT NULL AND model = :model AND {which} GROUP BY prediction_id
    )
    SELECT c.by, p.label, p.outcome, count(*) AS n, min(p.at) AS oldest, max(p.at) AS newest
    FROM corrected c JOIN platform.predictions p ON p.id = c.prediction_id
    WHERE c.rewritten AND p.outcome <> c.first AND {mine} GROUP BY c.by, p.label, p.outcome
"""
_OF_WINDOW = "predicted_at >= :since AND predicted_at < :until"
_OF_LATELY = """prediction_id IN (
    SELECT prediction_id FROM platform.outcomes WHERE previous IS NOT NULL AND model = :model AND at >= :lately AND at <= :until
)"""
_KNOWN = text("""
    SELECT count(*) FILTER (WHERE label AND outcome) AS tp, count(*) FILTER (WHERE label AND NOT outcome) AS fp,
        count(*) FILTER (WHERE NOT label AND outcome) AS fn, count(*) FILTER (WHERE NOT label AND NOT outcome) AS tn
    FROM platform.predictions WHERE model = :model AND at >= :oldest AND at <= :newest AND outcome IS NOT NULL
""")


@dataclass(frozen=True)
class Version:
    """`by` and `token_id` None: reported before authors were kept. `previous` None: the first report."""

    outcome: bool
    at: datetime | None
    by: str | None = None
    token_id: str | None = None
    previous: bool | None = None
    rewrites: bool = False


def record(conn: Connection, given: Mapping[int, bool], *, who: Identity, at: datetime, settles: timedelta = SETTLES) -> list[int]:
    """Enter the ground truth (prediction id: did the asset fail?). A later report is a new version; the same again is none. Returns the
    unknown ids.

    A version rewrites the one before if somebody else reported that, or it had `settles` to be corrected. Of what was reported before
    authors were kept nobody knows whose it was.
    """
    ids = sorted(given)
    known = set(conn.execute(_LOCK, {"ids": ids}).scalars())
    author = {"by": who.name, "person": who.person, "token_id": who.token_id}
    conn.execute(_RECORD, {"ids": ids, "outcomes": [given[i] for i in ids], "at": at, "settles": settles} | author)
    return [i for i in ids if i not in known]


def versions(conn: Connection, prediction_id: int) -> tuple[str, list[Version]]:
    """The model, and every version of the outcome, oldest first. NotFound without such a prediction."""
    p = predictions.c
    asked = select(p.model, p.outcome, p.outcome_at, p.first_outcome_at).where(p.id == prediction_id)
    row = conn.execute(asked).one_or_none()
    if row is None:
        raise NotFound(f"no prediction has the id {prediction_id}")
    kept = conn.execute(select(outcomes).where(outcomes.c.prediction_id == prediction_id).order_by(outcomes.c.id)).all()
    found = [Version(o.outcome, o.at, o.by, o.token_id, o.previous, o.rewrites) for o in kept]
    if found and kept[0].previous is not None:
        found.insert(0, Version(kept[0].previous, kept[0].previous_at))
    elif not found and row.outcome is not None:
        found.append(Version(row.outcome, row.outcome_at))
    return row.model, found


def rewritten(conn: Connection, mine: str, values: Mapping[str, Any], known: Confusion) -> Rewritten:
    """Of the predictions of a window: `mine` and `values` name it as in `metrics.window`, `known` are its counts now."""
    query = text(_REWRITTEN.format(which=_OF_WINDOW, mine=mine))
    return _counted(conn.execute(query, values).mappings().all(), known)


def rewritten_lately(conn: Connection, model: str, *, until: datetime) -> Rewritten:
    """Within the last `LATELY`, of predictions however old; next to all known outcomes from the oldest to the newest of them."""
    query = text(_REWRITTEN.format(which=_OF_LATELY, mine="p.model = :model"))
    values = {"model": model, "lately": until - LATELY, "until": until}
    rows = conn.execute(query, values).mappings().all()
    if not rows:
        return Rewritten()
    span = {"model": model, "oldest": min(r["oldest"] for r in rows), "newest": max(r["newest"] for r in rows)}
    known = conn.execute(_KNOWN, span).mappings().one()
    return replace(_counted(rows, Confusion(**known)), oldest=span["oldest"], newest=span["newest"])


def _counted(rows: Any, known: Confusion) -> Rewritten:
    by: Counter[str] = Counter()
    first = known
    for row in rows:
        by[row["by"]] += row["n"]
        now, before = ("tp", "fp") if row["label"] else ("fn", "tn")
        now, before = (now, before) if row["outcome"] else (before, now)
        first = replace(first, **{now: getattr(first, now) - row["n"], before: getattr(first, before) + row["n"]})
    return Rewritten(count=by.total(), of=known.n, by=dict(by), first=first, now=known)
