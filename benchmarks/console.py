"""How quickly the page of an incident with 10,000 events is there, and what open pages cost while nothing happens.

The gateway is a process of its own on a real PostgreSQL; pages are opened in Chromium. First byte: the whole page is rendered before it is
sent. First paint: from the click, with nothing in the browser's cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from mlrunbook.base import db, tokens
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.gateway.console.live import MOST, MOST_OF_ONE
from mlrunbook.local.addresses import HOST
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.store import incidents, timeline

EVENTS = 10_000
LOOKS = 15
STREAMS, PEOPLE = 200, 200 // MOST_OF_ONE
IDLE_S = 20.0
CHROMIUM = Path("/usr/bin/chromium")
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    assert STREAMS <= MOST
    with tempfile.TemporaryDirectory(prefix="mlrb-bench-", dir="/tmp") as folder, EmbeddedPostgres(Path(folder) / "store") as postgres:
        url = postgres.url("mlrunbook")
        engine = db.engine(url)
        db.upgrade(engine)
        long_one, people = _long_incident(engine), _people(engine)
        try:
            with _gateway(url, Path(folder)) as (process, address):
                found = _first_byte(address, people[0], long_one) | _first_paint(address, people[0], long_one)
                found |= asyncio.run(_streams(engine, process, address, people, long_one))
        finally:
            engine.dispose()
    _report(found)


def _long_incident(engine: Engine) -> str:
    now = datetime.now(UTC)
    kind = IncidentType.PERFORMANCE_DEGRADATION
    report = Report("pump_failure", kind, "performance", Severity.HIGH, "F1 fell 40 %", "alertmanager")
    with db.transaction(engine) as conn:
        made, _ = incidents.open_or_join(conn, report, now=now)
        for n in range(EVENTS):
            timeline.append(conn, made.id, "note", f"event {n}: the metrics were looked at again, F1 0.55", actor="mlrunbook", at=now)
    return made.id


def _people(engine: Engine) -> list[str]:
    with db.transaction(engine) as conn:
        return [tokens.create(conn, name=f"person {n} of the benchmark", scopes=tuple(tokens.Scope)) for n in range(PEOPLE)]


@contextmanager
def _gateway(database_url: str, data: Path) -> Iterator[tuple[psutil.Process, str]]:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    env = own | {"MLRUNBOOK_DATABASE_URL": database_url, "MLRUNBOOK_DATA_DIR": str(data), "MLRUNBOOK_HOME": str(data)}
    argv = [sys.executable, "-m", "mlrunbook.gateway", "--port", str(port), "--no-dispatcher"]
    with (data / "gateway.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    address = f"http://{HOST}:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield psutil.Process(process.pid), address
    finally:
        process.terminate()
        process.wait(30)


def _signed_in(address: str, token: str) -> httpx.Client:
    client = httpx.Client(base_url=address, timeout=60.0, trust_env=False)
    client.post("/login/token", data={"token": token})
    return client


def _first_byte(address: str, token: str, incident_id: str) -> dict[str, float]:
    with closing(_signed_in(address, token)) as browser:

        def took_ms(path: str) -> float:
            begun = time.perf_counter()
            browser.get(path).raise_for_status()
            return (time.perf_counter() - begun) * 1000

        page, part = f"/incidents/{incident_id}", f"/incidents/{incident_id}/live"
        took_ms(page)
        return {
            "page_ms": median(took_ms(page) for _ in range(LOOKS)),
            "refreshed_part_ms": median(took_ms(part) for _ in range(LOOKS)),
            "page_kb": len(browser.get(page).content) / 1000,
        }


def _first_paint(address: str, token: str, incident_id: str) -> dict[str, float]:
    """Empty without Chromium."""
    if not CHROMIUM.exists():
        return {}
    from playwright.sync_api import sync_playwright

    with closing(_signed_in(address, token)) as signed_in, sync_playwright() as playwright:
        cookies: Any = [{"name": name, "value": value, "url": address} for name, value in signed_in.cookies.items()]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        painted = []
        for _ in range(LOOKS):
            context = chromium.new_context(viewport={"width": 390, "height": 844})
            context.add_cookies(cookies)
            page = context.new_page()
            page.goto(f"{address}/incidents/{incident_id}")
            while page.evaluate(PAINT) is None:  # Playwright's own waiting evaluates a string, which the page's policy refuses
                page.wait_for_timeout(20)
            painted.append(float(page.evaluate(PAINT)))
            context.close()
        chromium.close()
    return {"first_paint_ms": median(painted), "slowest_paint_ms": max(painted)}


async def _streams(engine: Engine, process: psutil.Process, address: str, people: list[str], incident_id: str) -> dict[str, float]:
    before_mb = process.memory_info().rss / 1e6
    browsers = [_signed_in(address, token) for token in people]
    head = f"HX-Request: true\r\nHost: {HOST}\r\n"
    came: asyncio.Queue[float] = asyncio.Queue()
    port = int(address.rpartition(":")[2])

    async def stream(cookie: str) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"GET /incidents/{incident_id}/events?after={EVENTS + 1} HTTP/1.1\r\n{head}Cookie: {cookie}\r\n\r\n".encode())
        async for line in reader:
            if line.startswith(b"id: "):
                await came.put(time.perf_counter())

    cookies = ["; ".join(f"{name}={value}" for name, value in one.cookies.items()) for one in browsers]
    open_ = [asyncio.create_task(stream(cookies[n % PEOPLE])) for n in range(STREAMS)]
    await asyncio.sleep(5.0)
    spent, begun = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    share = (sum(process.cpu_times()[:2]) - spent) / (time.perf_counter() - begun)
    with db.transaction(engine) as conn:
        timeline.append(conn, incident_id, "note", "news", actor="mlrunbook", at=datetime.now(UTC))
    said = time.perf_counter()
    waited = sorted([await asyncio.wait_for(came.get(), 30) - said for _ in range(STREAMS)])
    after_mb = process.memory_info().rss / 1e6
    for task in open_:
        task.cancel()
    for one in browsers:
        one.close()
    return {
        "core_share_of_idle_streams_percent": 100 * share,
        "kb_a_stream": 1000 * (after_mb - before_mb) / STREAMS,
        "news_first_ms": 1000 * waited[0],
        "news_last_ms": 1000 * waited[-1],
    }


WORDS = {
    "page_ms": "the page, first to last byte, ms",
    "refreshed_part_ms": "the part that is refreshed after news, ms",
    "page_kb": "its size, kB",
    "first_paint_ms": "first paint in Chromium, ms",
    "slowest_paint_ms": "the slowest of them, ms",
    "core_share_of_idle_streams_percent": f"{STREAMS} open pages, nothing happens: % of a core",
    "kb_a_stream": "memory of one of them, kB",
    "news_first_ms": "news reach the first of them after, ms",
    "news_last_ms": "and the last, ms",
}


def _report(found: dict[str, float]) -> None:
    table = Table(title=f"The page of an incident with {EVENTS:,} events")
    table.add_column("Measured")
    table.add_column("Value", justify="right")
    for name, value in found.items():
        table.add_row(WORDS[name], f"{value:,.1f}")
    Console().print(table)
    print(json.dumps({"benchmark": "console", **{name: round(value, 2) for name, value in found.items()}}))


if __name__ == "__main__":
    main()
