"""One random log, kept twice: in our own platform, and as the tables that a team would have."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from sqlalchemy import Engine, insert

from mlrunbook.adapters.warehouse.log import WarehouseLog
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Identity
from mlrunbook.domain.policy.connections import Columns, OutcomeColumns, PredictionsPart
from mlrunbook.local.platform import outcomes, predictions, tables

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MODEL = "churn"
AUTHORS = ("crm", "billing", "support")
VERSIONS = (("v1", 0.5, 12.5), ("v2", 0.4, 30.25), ("v3", 0.65, 8.0))


@dataclass(frozen=True)
class Predicted:
    id: int
    at: datetime
    asset: str
    segment: str
    features: dict[str, Any]
    score: float
    version: str
    threshold: float
    latency_ms: float


@dataclass(frozen=True)
class Reported:
    id: int
    outcome: bool
    at: datetime
    by: str


@dataclass(frozen=True)
class RandomLog:
    predicted: Sequence[Predicted]
    reported: Sequence[Reported]

    @classmethod
    def of(cls, seed: int, rows: int = 320) -> RandomLog:
        """Ten days until NOW: outcomes late or missing, corrected by themselves or others, at once or later, and repeated."""
        chance = random.Random(seed)
        predicted, reported = [], []
        for number in range(1, rows + 1):
            version, threshold, latency = VERSIONS[min(number * 3 // rows, 2)] if number % 7 else chance.choice(VERSIONS)
            at = NOW - timedelta(seconds=10 * 86_400 * (rows - number) / rows, microseconds=chance.randrange(1_000_000))
            features = {"tenure": chance.choice([None, chance.randrange(60)]), "spend": round(chance.random() * 90, 2)}
            score = round(chance.random(), 4)
            one = Predicted(number, at, f"c{chance.randrange(14)}", chance.choice("LMH"), features, score, version, threshold, latency)
            predicted.append(one)
            reported += _reports(chance, one)
        return cls(predicted, sorted((one for one in reported if one.at <= NOW), key=lambda one: one.at))


def _reports(chance: random.Random, of: Predicted) -> list[Reported]:
    if chance.random() < 0.15:
        return []
    outcome, at, by = of.score > chance.random(), of.at + timedelta(seconds=chance.expovariate(1 / 40_000) + 1), chance.choice(AUTHORS)
    found = [Reported(of.id, outcome, at, by)]
    while chance.random() < 0.3:
        outcome = outcome if chance.random() < 0.3 else not outcome
        at += timedelta(seconds=chance.choice([30.5, 900.0, 3601.0, 90_000.0]))
        found.append(Reported(of.id, outcome, at, by if chance.random() < 0.5 else chance.choice(AUTHORS)))
    return found


def keep_in_our_platform(engine: Engine, model: str, log: RandomLog) -> dict[int, int]:
    """The id that each prediction has there."""
    ids = {}
    with transaction(engine) as conn:
        conn.execute(insert(tables.models).values(name=model, created_at=NOW))
        for one in log.predicted:
            nulls = sum(value is None for value in one.features.values())
            scored = predictions.Scored(one.at, one.asset, one.segment, one.features, one.score, nulls)
            how = {"version": one.version, "threshold": one.threshold, "latency_ms": one.latency_ms}
            (ids[one.id],) = predictions.record(conn, [scored], model=model, **how)
        for report in log.reported:
            who = Identity("0000abcd", report.by, None, frozenset())
            outcomes.record(conn, {ids[report.id]: report.outcome}, who=who, at=report.at)
    return ids


# --- a team's tables: each gives the address and the part of the policy that maps it


@dataclass(frozen=True)
class Kept:
    address: str
    part: PredictionsPart

    def log(self, now: datetime = NOW) -> WarehouseLog:
        return WarehouseLog("lake", self.address, lambda model: self.part, now=lambda: now)


def keep_as_parquet(folder: Path, log: RandomLog) -> Kept:
    """Partitioned by day, times without a zone, an empty feature is NaN, and a redelivered row."""
    import duckdb

    db = duckdb.connect()
    numbers = "threshold DOUBLE, latency DOUBLE, tenure DOUBLE, spend DOUBLE"
    db.execute(f'CREATE TABLE p (id BIGINT, "at" TIMESTAMP, asset VARCHAR, segment VARCHAR, score DOUBLE, version VARCHAR, {numbers})')
    nan = float("nan")
    for one in log.predicted:
        tenure = nan if one.features["tenure"] is None else one.features["tenure"]
        made = [one.id, _naive(one.at), one.asset, one.segment, one.score, one.version, one.threshold, one.latency_ms, tenure]
        db.execute("INSERT INTO p VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*made, one.features["spend"]])
    db.execute("INSERT INTO p SELECT * FROM p WHERE id % 50 = 0")
    db.execute('CREATE TABLE o (id BIGINT, outcome BOOLEAN, "at" TIMESTAMP, who VARCHAR)')
    db.executemany("INSERT INTO o VALUES (?, ?, ?, ?)", [[one.id, one.outcome, _naive(one.at), one.by] for one in log.reported])
    for name, table in (("predictions", "p"), ("outcomes", "o")):
        db.execute(f"COPY (SELECT *, CAST(\"at\" AS DATE) AS day FROM {table}) TO '{folder / name}' (FORMAT parquet, PARTITION_BY (day))")
    columns = Columns(
        key="id", threshold="threshold", day="day", asset_id="asset", segment="segment", latency_ms="latency", features=("tenure", "spend")
    )
    reports = OutcomeColumns(key="id", reported_at="at", reported_by="who", day="day")
    part = PredictionsPart("lake", table="predictions", outcomes_table="outcomes", columns=columns, outcomes=reports)
    return Kept(f"duckdb://{folder}", part)


def keep_as_csv(folder: Path, log: RandomLog) -> Kept:
    """Times of Berlin, words for yes and no."""
    zone = ZoneInfo("Europe/Berlin")
    with (folder / "scores.csv").open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["prediction_id", "at", "customer", "plan", "score", "version", "threshold", "ms", "tenure", "spend"])
        for one in log.predicted:
            given = [f"p-{one.id:05d}", _naive(one.at, zone), one.asset, one.segment, one.score, one.version, one.threshold]
            rows.writerow([*given, one.latency_ms, one.features["tenure"], one.features["spend"]])
    with (folder / "churned.csv").open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["prediction_id", "outcome", "reported_at", "who"])
        rows.writerows([f"p-{one.id:05d}", "Gone" if one.outcome else " stayed", _naive(one.at, zone), one.by] for one in log.reported)
    part = PredictionsPart(
        "lake",
        table="scores",
        outcomes_table="churned",
        columns=Columns(threshold="threshold", asset_id="customer", segment="plan", latency_ms="ms"),
        outcomes=OutcomeColumns(reported_by="who"),
        positive=("gone",),
        negative=("stayed",),
        time_zone="Europe/Berlin",
    )
    return Kept(f"duckdb://{folder}", part)


def keep_in_postgres(url: str, log: RandomLog) -> Kept:
    """Of several models, scores as decimals, features as JSON, a label of its own, outcomes as numbers with empty ones among them."""
    with psycopg.connect(url) as db:
        db.execute('CREATE SCHEMA IF NOT EXISTS "Lake"')
        db.execute('DROP TABLE IF EXISTS "Lake"."Scores", "Lake".truth')
        texts = "asset text, segment text, score numeric(6, 4), flagged text, version text"
        others = "threshold double precision, ms double precision, features jsonb"
        db.execute(f'CREATE TABLE "Lake"."Scores" ("Id" int, model text, "made at" timestamptz, {texts}, {others})')
        db.execute('CREATE TABLE "Lake".truth (id bigint, model text, y smallint, at timestamptz, who text)')
        with db.cursor() as cursor:
            for one in log.predicted:
                label = "true" if one.score >= one.threshold else "F"
                for model, flag in ((MODEL, label), ("another", "true")):
                    made = (one.id, model, one.at, one.asset, one.segment, one.score, flag, one.version, one.threshold, one.latency_ms)
                    row = (*made, json.dumps(one.features))
                    cursor.execute('INSERT INTO "Lake"."Scores" VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)', row)
            for report in log.reported:
                row = (report.id, MODEL, int(report.outcome), report.at, report.by)
                cursor.execute('INSERT INTO "Lake".truth VALUES (%s, %s, %s, %s, %s)', row)
                cursor.execute('INSERT INTO "Lake".truth VALUES (%s, %s, %s, %s, %s)', (report.id, "another", 1, NOW, "nobody"))
    columns = Columns(
        key="id",
        at="made at",
        label="flagged",
        threshold="threshold",
        asset_id="asset",
        segment="segment",
        latency_ms="ms",
        features_json="features",
    )
    part = PredictionsPart(
        "lake",
        table='"Lake"."Scores"',
        outcomes_query='SELECT * FROM "Lake".truth WHERE y IS NOT NULL;',
        columns=columns,
        outcomes=OutcomeColumns(key="id", outcome="y", reported_at="at", reported_by="who"),
        model_column="model",
        model_value=MODEL,
    )
    return Kept(url, part)


def _naive(at: datetime, zone: Any = UTC) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)
