"""How long `mlrunbook train` takes and what it needs in memory: 10, 50 and 100 thousand labelled predictions of 1,000 assets.

Each size in a process of its own, so that its peak is its own; predictions and readings are entered by another. The features come
through Feast's point-in-time join, the predictions from PostgreSQL.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlrunbook.adapters.feast.api import load_feast, open_store
from mlrunbook.base import db
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.features import lake
from mlrunbook.local.features.definitions import SERVICE
from mlrunbook.local.features.repository import apply, readings_folder, write_config
from mlrunbook.local.platform import predictions
from mlrunbook.local.platform.training import Sources, Wanted, train_version
from mlrunbook.local.postgres import EmbeddedPostgres

SIZES = (10_000, 50_000, 100_000)
ASSETS = 1000
EVERY = timedelta(minutes=10)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = ("have a known outcome", "joined for", "fitted", "saved")  # words of the lines that end them
Result = dict[str, float]


def main() -> None:
    results: dict[int, Result] = {}
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-", dir="/tmp") as folder, EmbeddedPostgres(Path(folder) / "store") as postgres:
        for size in SIZES:
            repo, urls = Path(folder) / f"repo_{size}", {}
            repo.mkdir()
            for name in ("mlrunbook", "feast"):
                postgres.create_database(f"{name}_{size}")
                urls[name] = postgres.url(f"{name}_{size}")
            write_config(repo, database_url=urls["feast"])
            with multiprocessing.get_context("spawn").Pool(1) as other:
                other.apply(_enter, (repo, urls["mlrunbook"], size))
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                results[size] = fresh.apply(_measure, (repo, urls["mlrunbook"], size))
    _report(results)


def _enter(repo: Path, url: str, size: int) -> None:
    import pandas as pd

    apply(open_store(repo), repo)
    engine = db.engine(url)
    db.upgrade(engine)
    fleet = Fleet(1, assets=ASSETS)
    for number in range(size // ASSETS):
        at = BEGAN + number * EVERY
        rows = fleet.readings(ASSETS)
        lake.land(readings_folder(repo), rows.assign(event_timestamp=pd.Timestamp(at), created=pd.Timestamp(at)))
        seen = zip(rows["asset_id"], rows["type"], rows["failed"], strict=True)
        scored = [
            predictions.Scored(at + timedelta(seconds=1), asset, type_, {}, 0.1, outcome=bool(failed)) for asset, type_, failed in seen
        ]
        with db.transaction(engine) as conn:
            predictions.record(conn, scored, model="m", version="v1.5.0", threshold=0.5, latency_ms=1.0)


def _measure(repo: Path, url: str, size: int) -> Result:
    engine, begun, said = db.engine(url), time.perf_counter(), dict[str, float]()
    load_feast()
    imported = time.perf_counter()
    end = BEGAN + (size // ASSETS) * EVERY
    made = train_version(
        Wanted("m", "v2.0.0", BEGAN, end),
        Sources(engine, repo, SERVICE, repo / "models"),
        now=end,
        say=lambda line: said.update({word: time.perf_counter() for word in STEPS if word in line}),
    )
    read, joined, fitted, saved = (said[word] for word in STEPS)
    steps = {"import_s": imported - begun, "read_s": read - imported, "join_s": joined - read, "fit_s": fitted - joined}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return steps | {"save_s": saved - fitted, "total_s": saved - begun, "peak_mb": peak_mb, "f1": made.metrics["f1"] or 0.0}


def _report(results: dict[int, Result]) -> None:
    table = Table(title="mlrunbook train, by labelled predictions")
    table.add_column("rows")
    for name in next(iter(results.values())):
        table.add_column(name)
    for size, result in results.items():
        table.add_row(f"{size:,}", *(f"{value:.2f}" if name != "peak_mb" else f"{value:.0f}" for name, value in result.items()))
    Console().print(table)
    print(json.dumps({"benchmark": "training", "by_rows": {str(n): {k: round(v, 3) for k, v in r.items()} for n, r in results.items()}}))
