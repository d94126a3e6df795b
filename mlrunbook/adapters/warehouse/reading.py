"""The groups that the warehouse counted as the figures of the runbook; rows that could not be read are an error that counts them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from math import isfinite
from typing import Any

from mlrunbook.adapters.fields import MOST, Fields
from mlrunbook.adapters.warehouse.connection import Rows
from mlrunbook.adapters.warehouse.counting import DAY_US, MOST_GROUPS, MOST_TYPES, SLICES, TYPE_SLICES, Window
from mlrunbook.adapters.warehouse.mapping import Log
from mlrunbook.adapters.warehouse.values import time_of
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import Confusion, Rewritten, WindowMetrics
from mlrunbook.domain.observed import Prediction

NOT_SAID = "unknown"  # who corrected an outcome, where the log does not say
UNSCORED = "scoring"  # a request that is logged without a prediction
Row = Mapping[str, Any]


class Repeated(Exception):
    """Rows have a key that others have too: they are counted again, with those that are the same taken once."""


def check_outcomes(log: Log, rows: Rows, *, once: bool) -> Row:
    """The row about the whole. Refused for what makes every figure wrong, with the count, an example and what to do."""
    whole = next(row for row in rows if row["part"] == "whole")
    of, key = log.part.outcomes, log.part.columns.key
    if whole["unread"]:
        raise Refused(
            f"column {of.outcome!r} says {whole['name']!r}, neither yes nor no, for {whole['unread']} predictions or more: add it "
            "to predictions.positive or predictions.negative"
        )
    if whole["torn"]:
        why = "at the same time" if log.reported_at else "and no column says which came last: name it in predictions.outcomes.reported_at"
        raise Refused(f"{whole['torn']} predictions have two outcomes that differ, {why}; keep the one that holds in outcomes_query")
    if whole["untimed"]:
        raise Refused(
            f"{whole['untimed']} outcomes have no {log.reported_at!r}: fill it in outcomes_query, or set outcomes.reported_at to null"
        )
    if (whole["keys"] or 0) < (whole["keyed"] or 0):
        if not once:
            raise Repeated
        raise Refused(
            f"column {key!r} is the same for several predictions ({whole['keyed'] - whole['keys']} of {whole['keyed']}): name the id of "
            "the prediction in predictions.columns.key, or make one row of each in predictions.query"
        )
    return whole


def check_logged(log: Log, row: Row) -> Row:
    if row["unread"]:
        columns = log.part.columns
        if columns.label:
            raise Refused(
                f"column {columns.label!r} says {row['name']!r}, neither yes nor no, in {row['unread']} rows: add it to "
                "predictions.positive or predictions.negative"
            )
        raise Refused(
            f"column {columns.score!r} is {row['name']} in {row['unread']} rows or the like, outside of 0 to 1: name the probability, or "
            "scale it in predictions.query"
        )
    return row


def _whole(value: Any) -> int:
    return int(value or 0)


def confusion_of(rows: Rows) -> Confusion:
    return _confusion(rows[0])


def _confusion(row: Row) -> Confusion:
    return Confusion(*(_whole(row[name]) for name in ("tp", "fp", "fn", "tn")))


def _of(rows: Rows, part: str) -> Rows:
    return [row for row in rows if row["part"] == part]


def _figure(value: Any) -> float | None:
    return float(value) if value is not None and isfinite(value) else None


def window(asked: Window, rows: Rows, made: Row, gaps: int) -> WindowMetrics:
    log = asked.log
    whole = check_outcomes(log, rows, once=asked.once)
    check_logged(log, made)
    slices = _of(rows, "slice")
    if len(slices) > MOST_GROUPS:
        raise Refused(f"column {log.part.columns.segment!r} has too many values to be a segment: name one with fewer in columns.segment")
    n, unscored = _whole(whole["n"]), _whole(made["unscored"])
    tally = _confusion(whole)
    by_slice = _added((row["place"], row) for row in slices)
    ages = [row["figure"] for row in _of(rows, "age") if row["figure"] is not None]
    by_type = _added((row["name"], row) for row in slices) if log.part.columns.segment else {}
    blocks, assets = _clusters(rows, by_type) if tally.positives and log.part.columns.segment else ({}, {})
    return WindowMetrics(
        since=asked.period.since,
        until=asked.period.until,
        predictions=n,
        labelled=tally.n,
        tally=tally,
        flagged_share=_whole(whole["flagged"]) / n if n else None,
        latency_p95_ms=_figure(made["figure"]),
        error_rate=unscored / (n + unscored) if unscored else None,
        null_rate=_worst(made, gaps) / _whole(made["n"]) if n and gaps else None,
        versions=tuple(sorted(row["name"] for row in _of(rows, "version"))),
        by_asset_type=by_type,
        errors={UNSCORED: unscored} if unscored else {},
        label_delay_s=_figure(whole["figure"]),
        mature_age_s=float(max(ages)) if ages else None,
        outcomes_due=_whole(whole["due"]),
        outcomes_missing=_whole(whole["missing"]),
        rewritten=_rewritten(_of(rows, "rewritten"), tally) if log.tells_corrections else None,
        blocks=tuple(by_slice.get(i, Confusion()) for i in range(SLICES)) if tally.n else (),
        blocks_by_asset_type=blocks,
        assets_by_asset_type=assets,
    )


def _worst(made: Row, gaps: int) -> int:
    return max((_whole(made[f"f{i}"]) for i in range(gaps)), default=0)


def _added(rows: Iterable[tuple[Any, Row]]) -> dict[Any, Confusion]:
    found: dict[Any, Confusion] = defaultdict(Confusion)
    for key, row in rows:
        found[key] += _confusion(row)
    return dict(found)


_Parts = dict[str, tuple[Confusion, ...]]


def _clusters(rows: Rows, by_type: Mapping[str, Confusion]) -> tuple[_Parts, _Parts]:
    """Of the segments with most failures: slices of time, and assets."""
    failing = sorted((name for name, counts in by_type.items() if counts.positives), key=lambda name: (-by_type[name].positives, name))
    chosen = set(failing[:MOST_TYPES])
    joined = SLICES // TYPE_SLICES
    slices = _added(((row["name"], row["place"] // joined), row) for row in _of(rows, "slice") if row["name"] in chosen)
    blocks = {name: tuple(slices.get((name, i), Confusion()) for i in range(TYPE_SLICES)) for name in chosen}
    assets: dict[str, list[tuple[str, Confusion]]] = defaultdict(list)
    for row in _of(rows, "asset"):
        if row["name"] in chosen:
            assets[row["name"]].append((row["of"] or "", _confusion(row)))
    return blocks, {name: tuple(counts for _, counts in sorted(of, key=lambda one: one[0])) for name, of in assets.items()}


def _rewritten(rows: Rows, known: Confusion) -> Rewritten:
    """`first`: the same outcomes, with each of those groups put back to what was first reported."""
    by: Counter[str] = Counter()
    first = known
    for row in rows:
        count, (label, outcome) = _whole(row["n"]), divmod(_whole(row["place"]), 2)
        by[row["name"] or NOT_SAID] += count
        yes, no = ("tp", "fp") if label else ("fn", "tn")
        now, before = (yes, no) if outcome else (no, yes)
        first = replace(first, **{now: getattr(first, now) - count, before: getattr(first, before) + count})
    return Rewritten(count=by.total(), of=known.n, by=dict(by), first=first, now=known)


def rewritten_lately(rows: Rows, known: Confusion, oldest: datetime, newest: datetime) -> Rewritten:
    return replace(_rewritten(rows, known), oldest=oldest, newest=newest)


def days(log: Log, rows: Rows, made: Rows, gaps: int, *, once: bool) -> list[DayFigures]:
    check_outcomes(log, rows, once=once)
    logged = {int(row["place"]): check_logged(log, row) for row in made}
    counted: dict[int, Row] = {int(row["place"]): row for row in _of(rows, "day")}
    versions: dict[int, list[str]] = defaultdict(list)
    for row in _of(rows, "version"):
        versions[int(row["place"])].append(row["name"])
    found = []
    for day, of in sorted(logged.items()):
        one = counted.get(day)
        n, unscored = _whole(one["n"]) if one else 0, _whole(of["unscored"])
        if not n and not unscored:
            continue
        found.append(
            DayFigures(
                day=_day(day),
                predictions=n,
                confusion=_confusion(one) if one else Confusion(),
                flagged_share=_whole(one["flagged"]) / n if one and n else None,
                latency_p95_ms=_figure(of["figure"]),
                error_rate=unscored / (n + unscored) if unscored else None,
                null_rate=_worst(of, gaps) / _whole(of["n"]) if n and gaps else None,
                versions=tuple(sorted(versions[day])),
            )
        )
    return found


def _day(number: int) -> date:
    return time_of(number * DAY_US).date()


def blocks(log: Log, rows: Rows, count: int, *, once: bool) -> tuple[tuple[Confusion, ...], tuple[Confusion, ...]]:
    check_outcomes(log, rows, once=once)
    by_block = {int(row["place"]): _confusion(row) for row in _of(rows, "block")}
    return tuple(by_block.get(i, Confusion()) for i in range(count)), tuple(_confusion(row) for row in _of(rows, "asset"))


def predictions(log: Log, rows: Rows, features: Mapping[str, str], *, once: bool) -> list[Prediction]:
    written = [row["written"] for row in rows if row["unscored"]]
    said = [row["said"] for row in rows if row.get("said") is not None]
    keys = [row["key"] for row in rows if row["key"] is not None]
    troubles = {name: sum(bool(row[name]) for row in rows) for name in ("torn", "untimed")}
    seen = {**troubles, "unread": len(said), "name": next(iter(said), None), "keys": len(set(keys)), "keyed": len(keys)}
    check_logged(log, {"unread": len(written), "name": next(iter(written), None)})
    check_outcomes(log, [{"part": "whole", **seen}], once=once)
    return [_prediction(log, row, features) for row in rows]


def _prediction(log: Log, row: Row, features: Mapping[str, str]) -> Prediction:
    """`features`: the column of `row` by name."""
    part = log.part
    score = row["score"] if row["score"] is not None else float(row["yes"])
    return Prediction(
        id=_number(row["key"]),
        at=time_of(row["us"]),
        asset_id=row["asset"] or f"row {row['key']}",
        asset_type=row["segment"] or "unknown",
        features=_features(row, features, "features_json" in row),
        score=float(score),
        label=bool(row["yes"]),
        version=row["version"] or NOT_SAID,
        threshold=float(row["threshold"]) if row["threshold"] is not None else part.threshold,
        latency_ms=_figure(row["latency"]),
        outcome=None if row["outcome"] is None else bool(row["outcome"]),
    )


def _features(row: Row, features: Mapping[str, str], is_json: bool) -> Mapping[str, Any]:
    """Plain values: what JSON has no word for is a text, NaN a gap."""
    if is_json:
        said = row["features_json"]
        given = json.loads(said) if isinstance(said, str | bytes) else said
        return Fields({"features": given if isinstance(given, Mapping) else {}}).any_of("features")
    return Fields({"features": {name: _plain(row[column]) for name, column in features.items()}}).any_of("features")


def _plain(value: Any) -> Any:
    if hasattr(value, "as_tuple"):  # Decimal
        return float(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value


def _number(key: Any) -> int:
    """Of the prediction: its key where that is a number, else one that is always the same for this key."""
    if isinstance(key, int) and abs(key) <= MOST:
        return key
    return int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:6])


def sample_keys(texts: Sequence[Any]) -> list[str]:
    """Of JSON objects."""
    found: dict[str, None] = {}
    for text in texts:
        given = json.loads(text) if isinstance(text, str | bytes) else text
        if isinstance(given, Mapping):
            found |= dict.fromkeys(str(key) for key in given)
    return list(found)
