"""How fast the gateway accepts alerts, each answered only after its transaction committed (fsync on).

Real HTTP, real PostgreSQL, the dispatcher beside it. Ratios, in one run: a repeat of a known alert against a new incident, and
four senders against one.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from rich.console import Console
from rich.table import Table

from mlrunbook.base import db, tokens
from mlrunbook.bootstrap import utc_now
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.local.addresses import HOST, Ports
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.response.world import World

POSTS = 200
SENDERS = 4


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-", dir="/tmp") as folder, EmbeddedPostgres(Path(folder) / "store") as postgres:
        engine = db.engine(postgres.url("mlrunbook"))
        db.upgrade(engine)
        with db.transaction(engine) as conn:
            token = tokens.create(conn, name="benchmark", scopes=[tokens.Scope.ALERTS])
        nothing: Any = None  # accepting an alert touches the store alone
        world = World(engine, nothing, nothing, nothing, nothing, Policy(), lease_s=30, now=utc_now)
        server = uvicorn.Server(uvicorn.Config(create_app(world), host=HOST, port=Ports.free().gateway, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            _report(_measure(f"http://{HOST}:{server.config.port}", token))
        finally:
            server.should_exit = True
            thread.join()
            engine.dispose()


def _measure(url: str, token: str) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30.0, trust_env=False) as http:
        while True:
            try:
                http.get("/health")
                break
            except httpx.ConnectError:
                time.sleep(0.05)

        def post(model: str) -> None:
            http.post("/webhooks/alertmanager", json=_alert(model)).raise_for_status()

        post("warm-up")
        return {
            "new_incidents_per_s": _rate(lambda i: post(f"new-{i}"), senders=1),
            "repeats_per_s": _rate(lambda i: post("new-0"), senders=1),
            f"new_incidents_per_s_{SENDERS}_senders": _rate(lambda i: post(f"many-{i}"), senders=SENDERS),
        }


def _rate(post: Callable[[int], None], *, senders: int) -> float:
    with ThreadPoolExecutor(senders) as pool:
        begun = time.perf_counter()
        list(pool.map(post, range(POSTS)))
        return POSTS / (time.perf_counter() - begun)


def _alert(model: str) -> dict[str, Any]:
    started = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    labels = {"alertname": "ModelF1Drop", "severity": "critical", "model": model}
    alert = {"status": "firing", "labels": labels, "annotations": {"summary": "F1 fell"}, "startsAt": started, "fingerprint": model}
    group = {"receiver": "bench", "status": "firing", "groupLabels": {}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": ""}
    return {"version": "4", "groupKey": model, "truncatedAlerts": 0, "alerts": [alert], **group}


def _report(rates: dict[str, float]) -> None:
    first = next(iter(rates.values()))
    table = Table("Intake", "per second", "ratio to one sender's new incidents")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / first:.2f}")
    Console().print(table)
    print(json.dumps({"benchmark": "intake", "posts": POSTS, **{k: round(v, 1) for k, v in rates.items()}}))


if __name__ == "__main__":
    main()
