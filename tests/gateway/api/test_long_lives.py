"""Years of incidents, timelines of hundreds of thousands of entries, large messages in the quarantine: every request stays small."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlrunbook.response.world import World
from tests.gateway.conftest import Clock
from tests.gateway.webhooks.test_alertmanager import alert, only, send

ENTRIES = 300_000
FILL_TIMELINE = """
INSERT INTO timeline (incident_id, seq, at, kind, actor, text, data, prev_hash, hash)
SELECT :id, n, now(), 'alert', 'alertmanager', 'Alert resolved: F1 fell, number ' || n, '{"key": "k"}', 'x', 'y'
FROM generate_series(100, :entries + 99) AS n"""
FILL_QUARANTINE = """
INSERT INTO quarantine (source, body, error, received_at)
SELECT 'large', convert_to(repeat(md5(random()::text), 131072), 'UTF8'), 'no model', now() FROM generate_series(1, 60)"""
FILL_INCIDENTS = """
INSERT INTO incidents (id, model, type, family, severity, status, description, reported_by, detected_at, closed_at)
SELECT 'incident_old_' || n, :model, 'performance_degradation', 'performance', 'low', 'closed', 'F1 fell', 'alertmanager', now(), now()
FROM generate_series(1, 5000) AS n"""
LIMIT_MB, LIMIT_S = 100, 5  # 1 s on a machine of its own


def asked(client: TestClient, url: str, **params: Any) -> Any:
    """The answer, if it took neither long nor much memory."""
    tracemalloc.start()
    begun = time.monotonic()
    answer = client.get(url, params=params)
    took_s, (_, peak) = time.monotonic() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 200, answer.text
    assert peak < LIMIT_MB << 20
    assert took_s < LIMIT_S
    return answer.json()


@pytest.fixture
def long_one(client: TestClient, world: World, model: str) -> Iterator[str]:
    incident_id = only(send(client, alert(model)))
    with world.transaction() as conn:
        conn.execute(text(FILL_TIMELINE), {"id": incident_id, "entries": ENTRIES})
    yield incident_id
    with world.transaction() as conn:
        conn.execute(text("DELETE FROM timeline WHERE incident_id = :id AND seq >= 100"), {"id": incident_id})


def test_a_timeline_of_hundreds_of_thousands_of_entries_is_read_in_pages(client: TestClient, model: str, long_one: str) -> None:
    page = asked(client, f"/api/v1/incidents/{long_one}/timeline")
    assert len(page["entries"]) == 1000
    assert asked(client, f"/api/v1/incidents/{long_one}/timeline", after=page["after"])["entries"][0]["seq"] == page["after"] + 1
    last = asked(client, f"/api/v1/incidents/{long_one}/timeline", after=ENTRIES + 50)
    assert (last["entries"][-1]["seq"], last["after"]) == (ENTRIES + 99, None)
    asked(client, f"/api/v1/incidents/{long_one}")
    begun = time.monotonic()
    send(client, alert(model, status="resolved"), status="resolved")
    assert client.post(f"/api/v1/incidents/{long_one}/acknowledge").status_code == 200
    assert time.monotonic() - begun < LIMIT_S, "what is written does not read all of it"


def test_large_messages_in_the_quarantine_are_listed_without_them(client: TestClient, world: World) -> None:
    with world.transaction() as conn:
        conn.execute(text(FILL_QUARANTINE))
    page = asked(client, "/api/v1/quarantine", source="large", limit=40)
    assert {one["sizeBytes"] for one in page["quarantined"]} == {4 << 20}
    rest = asked(client, "/api/v1/quarantine", source="large", limit=40, before=page["before"])
    assert (len(page["quarantined"]), len(rest["quarantined"]), rest["before"]) == (40, 20, None)
    assert not {one["number"] for one in page["quarantined"]} & {one["number"] for one in rest["quarantined"]}


def test_years_of_incidents_are_listed_in_pages(client: TestClient, world: World, model: str) -> None:
    with world.transaction() as conn:
        conn.execute(text(FILL_INCIDENTS), {"model": model})
    found, before = set[str](), None
    for _ in range(10):
        params = {"limit": 1000} | ({"before": before} if before else {})
        page = asked(client, f"/api/v1/model-governance/{model}/incidents", **params)
        found |= {one["id"] for one in page["incidents"]}
        before = page["before"]
        if before is None:
            break
    assert len(found) == 5_000


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "0001-01-20T00:00:00+23:59", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"])
def test_a_time_at_the_ends_of_the_calendar_is_refused_by_the_name_of_its_field(
    client: TestClient, clock: Clock, model: str, at: str
) -> None:
    incident_id = only(send(client, alert(model)))
    told = client.post(f"/api/v1/incidents/{incident_id}/clocks/gdpr", json={"case": "personal_data", "awareAt": at})
    assert (told.status_code, told.json()["field"]) == (422, "awareAt")
    ended = client.post(f"/api/v1/incidents/{incident_id}/clocks/gdpr/notification", json={"reference": "x", "at": at})
    assert (ended.status_code, ended.json()["field"]) == (422, "at")
    change = {"model": model, "kind": "config", "ref": "r", "author": "a", "at": at}
    assert client.post("/api/v1/changes", json=change).status_code == 422
    assert client.get("/api/v1/changes", params={"model": model, "since": at}).status_code == 422
