"""What a look at a warehouse costs: a log of 100 million predictions as Parquet, a folder a day, outcomes two weeks late.

Each look runs in a process of its own: wall and CPU time without the imports, and the most memory with them. Beside it, DuckDB alone counts
the rows of the same days. `make bench ARGS="warehouse --keep /data/bench"` keeps the log for the next time; making it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.warehouse_log import CORRECTED_AFTER_DAYS, DELAY_DAYS, Log, made

ROWS, DAYS = 100_000_000, 365
UNTIL = date(2026, 11, 30)
LATE_DAYS = DELAY_DAYS + CORRECTED_AFTER_DAYS + 1
GOALS_S = {"metrics": 3.0, "a day's audit": 10.0}
GOAL_MB = 500


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks warehouse", description=(__doc__ or "").strip())
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--keep", type=Path, help="make the log here, or use the one that is here")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    asked = parser.parse_args(given)
    if asked.look:
        print(json.dumps(_measured(_looks(asked.keep)[asked.look])))
        return 0
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-") as temporary:
        folder = asked.keep or Path(temporary)
        made(Log(folder, asked.rows, asked.days, UNTIL))
        found = {name: _best(folder, name, asked.times) for name in _looks(folder)}
    _report(asked.rows, asked.days, found)
    return 0


def _looks(folder: Path) -> dict[str, Callable[[], Any]]:
    from mlrunbook.adapters.warehouse.log import WarehouseLog
    from mlrunbook.domain.policy.connections import Columns, OutcomeColumns, PredictionsPart

    columns = Columns(day="day", asset_id="asset_id", segment="segment", latency_ms="latency_ms")
    part = PredictionsPart(
        "lake",
        table="predictions",
        outcomes_table="outcomes",
        columns=columns,
        outcomes=OutcomeColumns(day="day"),
        late_outcomes_days=LATE_DAYS,
        timeout_s=300.0,
    )
    now = datetime.combine(UNTIL, datetime.min.time(), UTC)
    log = WarehouseLog("lake", f"duckdb://{folder}", lambda _: part, now=lambda: now)
    late = now - timedelta(days=DELAY_DAYS)
    day = late - timedelta(days=CORRECTED_AFTER_DAYS)
    return {
        "metrics": lambda: log.metrics("m", since=late - timedelta(days=1), until=late).current.labelled,
        "a day's audit": lambda: log.history("m", days=1, until=day)[0].confusion.n,
        "blocks of a week": lambda: log.outcome_blocks("m", since=late - timedelta(days=7), until=late, block_s=3600).by_asset and 1,
        "newest 5,000 rows": lambda: len(log.prediction_log("m", limit=5000)),
        "rows of the days, counted": lambda: _counted(folder, late - timedelta(days=8), late),
    }


def _counted(folder: Path, since: datetime, until: datetime) -> int:
    """What `metrics` must read at least: the window, its baseline, and the outcomes that may be of them."""
    import duckdb

    db = duckdb.connect(config={"threads": 2, "memory_limit": "256MB"})
    total = 0
    reports = until + timedelta(days=LATE_DAYS)
    for table, column, ends in (("predictions", "score", until), ("outcomes", "outcome", reports)):
        scan = f"read_parquet('{folder}/{table}/*/*.parquet', hive_partitioning = true)"
        days = f"day BETWEEN '{since.date()}' AND '{ends.date()}'"
        (n, _) = db.execute(f"SELECT count(*), count(DISTINCT {column}) FROM {scan} WHERE {days}").fetchone() or (0, 0)
        total += n
    return total


def _measured(look: Callable[[], Any]) -> dict[str, float]:
    import duckdb  # noqa: F401
    import ibis

    ibis.duckdb  # noqa: B018
    wall, cpu = time.perf_counter(), time.process_time()
    found = look()
    assert found, "an empty log"
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return took | {"rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _best(folder: Path, name: str, times: int) -> dict[str, float]:
    """The quickest of several: what else the machine does only ever adds."""
    command = [sys.executable, "-m", "benchmarks", "warehouse", "--keep", str(folder), "--look", name]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ).stdout) for _ in range(times)]
    return min(runs, key=lambda run: run["wall_s"]) | {"rss_mb": max(run["rss_mb"] for run in runs)}


def _report(rows: int, days: int, found: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    plain = found["rows of the days, counted"]["cpu_s"]
    table = Table(f"{rows:,} predictions, {days} days", "wall, s", "CPU, s", "times a plain scan", "memory, MB", "goal")
    for name, took in found.items():
        goal = f"{GOALS_S[name]:g} s, {GOAL_MB} MB" if name in GOALS_S else ""
        ratio = f"{took['cpu_s'] / plain:.1f}"
        table.add_row(name, f"{took['wall_s']:.2f}", f"{took['cpu_s']:.2f}", ratio, f"{took['rss_mb']:.0f}", goal)
    Console().print(table)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    print(json.dumps({"benchmark": "warehouse", "rows": rows, "days": days, "load": load, "looks": found}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
