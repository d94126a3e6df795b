"""How long `mlrunbook backtest` takes on a log of ten million rows, and how much memory: `make bench ARGS="backtest --rows 10000000"`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 10_000_000
MOST_S, MOST_MIB = 60.0, 2048


def main(arguments: list[str] | None = None) -> int:
    rows = int(arguments[1]) if arguments and arguments[:1] == ["--rows"] else ROWS
    with tempfile.TemporaryDirectory(prefix="mlrunbook-bench-") as folder:
        log, out = Path(folder) / "log.parquet", Path(folder) / "out"
        write(log, rows)
        began = time.perf_counter()
        command = [sys.executable, "-c", "from mlrunbook.cli.main import main; main()", "backtest", str(log), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_mib = used.ru_maxrss / 1024
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        found = json.loads((out / "report.json").read_text())
    line = {
        "benchmark": "backtest", "rows": rows,
        "seconds": round(seconds, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1), "peak_mib": round(peak_mib),
        "calls": found["summary"]["calls"], "plain_alarms": found["summary"]["plain_alarms"],
    }  # fmt: skip
    print(json.dumps(line))
    return 0 if seconds <= MOST_S and peak_mib <= MOST_MIB else 1


def write(file: Path, rows: int) -> None:
    """A year of 5,000 assets in 20 segments with five features; F1 collapses for three weeks in the ninth month. Written in pieces."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET threads = 2; SET memory_limit = '1200MB'")
    db.execute(f"""
        COPY (
            WITH drawn AS (
                SELECT i, hash(i) % 1000000 / 1e6 AS u, hash(i * 7 + 1) % 1000000 / 1e6 AS v, hash(i * 13 + 5) % 1000000 / 1e6 AS w,
                    i::DOUBLE / {rows} AS part
                FROM range({rows}) AS r(i)
            ), failing AS (SELECT *, u < 0.03 AS failed, part BETWEEN 0.70 AND 0.76 AS broken FROM drawn)
            SELECT i AS prediction_id, TIMESTAMP '2025-01-01' + to_seconds(part * 31536000) AS time,
                'asset_' || (hash(i * 3) % 5000) AS asset_id, 'type_' || (hash(i * 3) % 20) AS asset_type,
                CASE WHEN failed AND (v < 0.8 AND NOT broken OR v < 0.3) THEN 0.6 + 0.4 * w WHEN NOT failed AND v < 0.01 THEN 0.5 + 0.3 * w
                    ELSE 0.45 * w END AS score,
                0.5 AS threshold, failed::INT AS outcome,
                TIMESTAMP '2025-01-01' + to_seconds(part * 31536000 + CASE WHEN failed THEN 86400 * v ELSE 86400 END) AS outcome_time,
                u * 40 + 280 AS temperature, v * 100 AS torque, w * 3000 AS speed, (u + v) * 60 AS wear, hash(i) % 7 AS shift
            FROM failing
        ) TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 200000)""")
    db.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
