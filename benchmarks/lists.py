"""How fast the console lists 100,000 incidents: what the server takes for each way of looking, and when a browser first shows something.

Real HTTP, real PostgreSQL, a session; one request at a time. `make bench ARGS="lists"`; Chromium is used where it is installed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from mlrunbook.base import db, tokens
from mlrunbook.bootstrap import utc_now
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.local.addresses import HOST, Ports
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.response.world import World

INCIDENTS, MODELS, OPEN = 100_000, 400, 50
TIMES = 9
PAGES = {
    "open": "/incidents",
    "all": "/incidents?status=all",
    "all, page 1000 from the end": f"/incidents?status=all&before={INCIDENTS // 2}",
    "one model": "/incidents?status=all&model=model_17",
    "critical and security": "/incidents?status=all&severity=critical&type=security",
    "a word of every incident": "/incidents?status=all&q=fell",
    "a word of every incident, open": "/incidents?q=fell",
    "rare words": "/incidents?status=all&q=pump_77+v3",
    "words of the root cause": "/incidents?status=all&q=segment+s8",
    "an id": "/incidents?status=all&q=incident_777",
    "a word of none": "/incidents?status=all&q=zzzz",
    "what waits": "/waiting",
    "models": "/models",
}

FILL = """
INSERT INTO incidents (number, id, model, type, family, severity, status, description, impact, reported_by, detected_at, review_due_at)
OVERRIDING SYSTEM VALUE
SELECT n, 'incident_' || n, 'model_' || n % :models,
    (ARRAY['prediction_error', 'performance_degradation', 'security', 'infrastructure'])[1 + n % 4],
    'family_' || n, (ARRAY['low', 'medium', 'high', 'critical'])[1 + n / 7 % 4],
    CASE WHEN n % (:incidents / :open) = 0 THEN 'investigating' ELSE 'closed' END,
    'F1 fell ' || n % 60 || ' % on asset type pump_' || n % 1000 || ' after release v' || n % 30 || '.' || n % 7 || '.0',
    'about ' || n % 500 || ' work orders may be unnecessary', 'alertmanager', now() - (:incidents - n) * interval '5 minutes', now()
FROM generate_series(1, :incidents) n;
"""
CAUSES = """
INSERT INTO records (incident_id, step, data, recorded_at)
SELECT id, 'diagnosis', jsonb_build_object('cause', (ARRAY['bad_deployment', 'data_drift', 'threshold_change'])[1 + number % 3],
    'headline', 'The release of ' || model || ' is worse on segment s' || number % 90), now() FROM incidents;
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-", dir="/tmp") as folder, EmbeddedPostgres(Path(folder) / "store") as postgres:
        engine = db.engine(postgres.url("mlrunbook"))
        db.upgrade(engine)
        _fill(engine)
        with db.transaction(engine) as conn:
            token = tokens.create(conn, name="benchmark", scopes=list(tokens.Scope), role="ml_team_lead")
        nothing: Any = None  # the lists touch the store alone
        world = World(engine, nothing, nothing, nothing, nothing, Policy(), lease_s=30, now=utc_now)
        server = uvicorn.Server(uvicorn.Config(create_app(world), host=HOST, port=Ports.free().gateway, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            url = f"http://{HOST}:{server.config.port}"
            _report(_server_ms(url, token), _first_paint_ms(url, token))
        finally:
            server.should_exit = True
            thread.join()
            engine.dispose()


def _fill(engine: Engine) -> None:
    with db.transaction(engine) as conn:
        conn.execute(text(FILL), {"incidents": INCIDENTS, "models": MODELS, "open": OPEN})
        conn.execute(text(CAUSES))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("VACUUM ANALYZE"))


def _server_ms(url: str, token: str) -> dict[str, list[float]]:
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as http:
        while True:
            try:
                http.get("/health")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        http.post("/login/token", data={"token": token})
        return {name: [_timed(http, path) for _ in range(TIMES)] for name, path in PAGES.items()}


def _timed(http: httpx.Client, path: str) -> float:
    begun = time.perf_counter()
    http.get(path).raise_for_status()
    return 1000 * (time.perf_counter() - begun)


def _first_paint_ms(url: str, token: str) -> list[float]:
    """Of the list, in a browser that has our script and style; empty where there is none."""
    browser_path = shutil.which("chromium")
    if browser_path is None:
        return []
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 844})
        context.request.post(f"{url}/login/token", form={"token": token})
        page = context.new_page()
        for _ in range(TIMES + 1):
            page.goto(f"{url}/incidents?status=all")
            while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
                page.wait_for_timeout(20)  # Playwright's own waiting evaluates a string, which the page's policy refuses
            found.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        browser.close()
    return found[1:]


def _report(server: dict[str, list[float]], paint: list[float]) -> None:
    table = Table(f"Lists, {INCIDENTS} incidents", "first, ms", "median, ms", "worst, ms")
    rows = server | ({"first paint of the list": paint} if paint else {})
    for name, times in rows.items():
        table.add_row(name, f"{times[0]:.0f}", f"{statistics.median(times):.0f}", f"{max(times):.0f}")
    Console().print(table)
    print(
        json.dumps({"benchmark": "lists", "incidents": INCIDENTS, "median_ms": {n: round(statistics.median(t)) for n, t in rows.items()}})
    )


if __name__ == "__main__":
    main()
