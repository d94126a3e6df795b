"""The gateway as it is served: what others send at the same time, and what they use up, holds back no page of a critical incident."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import MAX_BODY_BYTES
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.world import World
from mlrunbook.store import outbox
from tests.fakes import empty_store
from tests.gateway.conftest import Clock, Keys, world_on
from tests.served import gateway_process
from tests.waiting import until

STARTED = "2026-03-02T08:45:00Z"
HELD_S = 2.0  # how long a due page may be held
NOISE_S = 4.0  # and what a busy machine adds
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def world(engine: Engine) -> World:
    empty_store(engine)
    return world_on(engine, Clock(), Policy())


def critical(world: World, model: str) -> tuple[str, float]:
    """A critical incident is taken in: which, and when its page fell due."""
    kind = IncidentType.SECURITY
    report = Report(model, kind, world.policy.family_of(kind), Severity.CRITICAL, "somebody copies the model", reported_by="lee")
    with world.transaction() as conn:
        incident, _ = take_in(conn, world.policy, report, now=datetime.now(UTC))
    return incident.id, time.time()


def paged_at(world: World, incident_id: str) -> float | None:
    """When all pages that were due at once had gone out."""
    with world.transaction() as conn:
        rows = outbox.of_incident(conn, incident_id, "page")
    pages = [row for row in rows if row["attempts"] or row["not_before"] <= row["created_at"]]  # the others escalate later
    assert pages
    at = [row["delivered_at"] for row in pages]
    return None if None in at else max(one.timestamp() for one in at)


# The largest messages the limits allow, each of its own kind of trouble


def filled(part: Callable[[int], str], head: str, tail: str) -> bytes:
    parts, size = [], len(head) + len(tail)
    while size + len(part(len(parts))) < MAX_BODY_BYTES:
        parts.append(part(len(parts)))
        size += len(parts[-1]) + 1
    return (head + ",".join(parts) + tail).encode()


def alert(number: int, model: str) -> str:
    labels = {"alertname": "F1Low", "model": model, "pump": str(number)}
    return json.dumps({"status": "firing", "labels": labels, "startsAt": STARTED, "fingerprint": f"{number:x}"})


def hostile() -> dict[str, tuple[str, bytes]]:
    alerts, end = '{"version":"4","alerts":[', "]}"
    event = '{{"specversion":"1.0","id":"{}","source":"s","type":"Drop","data":{{"model":"pump"}}}}'
    return {
        "10,000 alerts on one model": ("alertmanager", (alerts + ",".join(alert(n, "pump") for n in range(10_000)) + end).encode()),
        "an incident for each alert": (
            "alertmanager",
            (alerts + ",".join(alert(n, f"pump_{n}") for n in range(60)) + end).encode(),
        ),  # an incident each
        "one alert of many labels": (
            "grafana",
            filled(lambda n: f'"l{n}":"v"', '{"version":"1","alerts":[{"status":"firing","labels":{"model":"pump",', "}}]}"),
        ),
        "lists in lists": ("generic", filled(lambda _: "[" * 900 + "]" * 900, "[", "]")),
        "lists of lists": ("opsgenie", filled(lambda _: "[" * 20 + "]" * 20, "[", "]")),
        "many fields": ("datadog", filled(lambda n: f'"{n}":[]', "{", "}")),
        "numbers": ("mlflow", filled(lambda _: "1.5e5", "[", "]")),
        "events": ("cloudevents", filled(lambda n: event.format(n), "[", "]")),
        "escapes": ("pagerduty", filled(lambda _: '"' + "\\u00e9\\u0000" * 500 + '"', "[", "]")),
        "changes that are none": ("", filled(lambda _: "[" * 20 + "]" * 20, '{"model":', "}")),
    }


def test_twenty_hostile_messages_hold_neither_health_nor_the_page_of_a_critical_incident(
    world: World, keys: Keys, database_url: str, tmp_path: Path
) -> None:
    """Each sender tries again while it is told to, as Alertmanager does."""
    messages, token = hostile(), keys.of("a sender", Scope.ALERTS, Scope.REPORT)
    looks: list[float] = []
    over = threading.Event()

    with gateway_process(database_url, tmp_path / "data", MLRUNBOOK_PLATFORM_URL=NOWHERE) as (_, url):

        def watch() -> None:
            with httpx.Client(trust_env=False, timeout=60) as http:
                while not over.is_set():
                    began_s = time.monotonic()
                    assert http.get(f"{url}/health").status_code == 200
                    looks.append(time.monotonic() - began_s)
                    over.wait(0.05)

        def send(kind: str) -> int:
            form, body = messages[kind]
            content = "application/cloudevents-batch+json" if form == "cloudevents" else "application/json"
            where = f"{url}/webhooks/{form}" if form else f"{url}/api/v1/changes"
            while True:
                answer = httpx.post(where, content=body, headers=token | {"Content-Type": content}, timeout=600, trust_env=False)
                if answer.status_code != 503:
                    return answer.status_code
                over.wait(0.5)

        with ThreadPoolExecutor(21) as pool:
            watching = pool.submit(watch)
            sent = {kind: [pool.submit(send, kind) for _ in range(2)] for kind in messages}
            waited = []
            while not all(one.done() for some in sent.values() for one in some) or len(waited) < 3:
                incident_id, due = critical(world, f"turbine_{len(waited)}")
                until(lambda: paged_at(world, incident_id) is not None)
                waited.append((paged_at(world, incident_id) or 0) - due)
            over.set()
            watching.result()
    told = {kind: {one.result() for one in some} for kind, some in sent.items()}
    assert told == {kind: {202 if form else 413} for kind, (form, _) in messages.items()}
    assert max(waited) < HELD_S + NOISE_S, waited
    assert max(looks) < HELD_S + NOISE_S, sorted(looks)[-5:]


# Descriptors


class Prefect:
    """As much of its API as starting a run takes; every connection is a new one."""

    def __init__(self) -> None:
        self.started: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({"id": "d"})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.started.append(asked["parameters"]["incident_id"])
                self._answer({"id": "r"})

            def _answer(self, body: dict[str, str]) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    one = Prefect()
    yield one
    one.stop()


def used(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def test_with_every_descriptor_taken_a_page_is_written_as_a_file_and_a_run_starts(
    world: World, prefect: Prefect, database_url: str, tmp_path: Path
) -> None:
    data, over = tmp_path / "data", threading.Event()
    env = {"PREFECT_API_URL": prefect.url, "MLRUNBOOK_PLATFORM_URL": NOWHERE}
    with gateway_process(database_url, data, **env) as (pid, url), ExitStack() as idle:
        where = urlsplit(url)
        most = max(used(pid)) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))

        def take() -> None:
            while not over.wait(0.02):  # each one that is sent away for its silence is followed by another
                with suppress(OSError):
                    if len(used(pid)) >= most:
                        continue
                    idle.enter_context(socket.create_connection((where.hostname, where.port), timeout=1)).sendall(b"GET /he")

        taking = threading.Thread(target=take)
        taking.start()
        try:
            until(lambda: len(used(pid)) >= most)
            incident_id, _ = critical(world, "turbine")
            until(lambda: paged_at(world, incident_id) is not None and incident_id in prefect.started)
        finally:
            over.set()
            taking.join(120)
    files = [path.read_text() for path in (data / "messages" / incident_id).glob("*.md")]
    assert any(text.startswith("Page to: ") for text in files)
