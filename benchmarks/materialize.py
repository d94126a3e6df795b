"""How long path B takes and what it needs in memory: 1 thousand, 100 thousand and 1 million entities with 6 features in 2 views.

Each size in a process of its own, so that its peak is its own; the rows are landed by another. First a materialisation into an empty
online store, then a look-back over the same rows, which reads what is online before it writes. The promise: under 1 GB at a million.
"""

from __future__ import annotations

import contextlib
import io
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
from mlrunbook.adapters.feast.store import FeastStore
from mlrunbook.domain.policy.judging import FeatureStorePolicy
from mlrunbook.local.features import lake
from mlrunbook.local.features.repository import apply, readings_folder, write_config
from mlrunbook.local.platform.columns import NUMERIC
from mlrunbook.local.postgres import EmbeddedPostgres

SIZES = (1_000, 100_000, 1_000_000)
FILE_ROWS = 100_000
LIMIT_MB = 1000.0
Result = dict[str, float]


def main() -> None:
    results: dict[int, Result] = {}
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-", dir="/tmp") as folder, EmbeddedPostgres(Path(folder) / "store") as postgres:
        for size in SIZES:
            name, repo = f"feast_{size}", Path(folder) / f"repo_{size}"
            repo.mkdir()
            postgres.create_database(name)
            write_config(repo, database_url=postgres.url(name))
            with multiprocessing.get_context("spawn").Pool(1) as other:
                other.apply(_land, (repo, size))
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                results[size] = fresh.apply(_measure, (repo, size))
    _report(results)


def _land(repo: Path, size: int) -> None:
    import numpy as np
    import pandas as pd

    store = open_store(repo)
    with contextlib.redirect_stdout(io.StringIO()):
        apply(store, repo)
    draw, at = np.random.default_rng(0), datetime.now(UTC) - timedelta(minutes=5)
    for first in range(0, size, FILE_ROWS):
        n = min(FILE_ROWS, size - first)
        numbers = {name: draw.normal(300.0, 10.0, n) for name in NUMERIC}
        names = [f"asset_{i}" for i in range(first, first + n)]
        lake.land(readings_folder(repo), pd.DataFrame({"asset_id": names, "type": draw.choice(["L", "M", "H"], n), **numbers}), at)


def _measure(repo: Path, size: int) -> Result:
    policy = FeatureStorePolicy()
    store = FeastStore(repo, policy)
    load_feast()
    store.inspect()  # what every process pays once
    idle_mb = _peak_mb()
    took = {}
    for kind, since in (("first", None), ("look_back", datetime.now(UTC) - timedelta(hours=1))):
        begun, told = time.perf_counter(), [0]
        store.materialize(policy.views, since=since, until=datetime.now(UTC), progress=lambda _, done, total, told=told: told.append(done))
        took[kind] = time.perf_counter() - begun
        assert max(told) == size, f"{max(told)} of {size} entities"
    state = store.inspect()
    assert not state.problems, state.problems
    assert not any(v.behind or v.missing for v in state.views), state.views
    return {"seconds": took["first"], "look_back_seconds": took["look_back"], "peak_mb": _peak_mb(), "idle_mb": idle_mb}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _report(results: dict[int, Result]) -> None:
    table = Table("Materialize", "first, s", "look-back, s", "entities/s", "peak MB", "of which idle")
    for size, r in results.items():
        rate = f"{size / r['seconds']:,.0f}"
        table.add_row(
            f"{size:,}", f"{r['seconds']:.1f}", f"{r['look_back_seconds']:.1f}", rate, f"{r['peak_mb']:.0f}", f"{r['idle_mb']:.0f}"
        )
    Console().print(table)
    rounded = {str(size): {k: round(v, 2) for k, v in r.items()} for size, r in results.items()}
    within = max(r["peak_mb"] for r in results.values()) < LIMIT_MB
    print(json.dumps({"benchmark": "materialize", "entities": rounded, "limit_mb": LIMIT_MB, "within": within}))


if __name__ == "__main__":
    main()
