"""What Prometheus reads of the gateway."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from mlrunbook.base.edge import REFUSED
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import Status
from mlrunbook.gateway.metrics import FAMILIES
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, quarantine
from tests.gateway.conftest import Clock, Keys


def scraped(client: TestClient) -> dict[tuple[str, ...], float]:
    """(name, *label values) -> value."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found = (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for s in found}


def test_it_takes_a_token_that_may_read(client: TestClient, keys: Keys) -> None:
    assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401
    assert client.get("/metrics", headers=keys.of("an alert sender", Scope.ALERTS)).status_code == 403


def test_the_page_names_every_figure_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "monitoring.md").read_text()
    assert set(re.findall(r"`(mlrunbook_\w+)`", page)) == {*FAMILIES, REFUSED}


def test_open_incidents_are_counted_by_model_type_and_severity(client: TestClient, world: World, model: str) -> None:
    body = {"severity": "high", "type": "performance_degradation", "description": "F1 fell"}
    incident_id = client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"]
    series = ("mlrunbook_incidents_open", model, "high", "performance_degradation")
    assert scraped(client)[series] == 1
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.FALSE_ALARM, why="a test", actor="a test", now=world.now())
    assert series not in scraped(client)


def test_what_is_due_and_does_not_go_out_is_seen(client: TestClient, world: World, clock: Clock) -> None:
    kind = f"page-of-{clock.at.timestamp()}"
    due, failing = ("mlrunbook_outbox_due", kind), ("mlrunbook_outbox_failing", kind)
    with world.transaction() as conn:
        outbox.put(conn, kind, kind, {}, now=clock(), at=clock() + timedelta(minutes=1))
    assert due not in scraped(client), "it is not due yet"
    clock.pass_(minutes=2)
    assert (scraped(client)[due], scraped(client)[failing]) == (1, 0)
    with world.transaction() as conn:
        [item] = outbox.claim(conn, now=clock(), kinds=(kind,))
        outbox.failed(conn, item, "nobody answers", now=clock())
    assert (scraped(client)[due], scraped(client)[failing]) == (1, 1), "the next try is later, and it has not gone out"
    with world.transaction() as conn:
        outbox.delivered(conn, item, now=clock())
    assert due not in scraped(client)


def test_the_page_that_has_waited_longest_is_told_in_seconds(client: TestClient, world: World, clock: Clock) -> None:
    series = ("mlrunbook_page_waiting_seconds",)
    assert scraped(client)[series] == 0
    with world.transaction() as conn:
        outbox.put(conn, "page", "page-that-waits", {}, now=clock())
    clock.pass_(minutes=3)
    assert scraped(client)[series] == 180
    with world.transaction() as conn:
        for item in outbox.claim(conn, now=clock(), kinds=("page",)):
            outbox.delivered(conn, item, now=clock())
    assert scraped(client)[series] == 0


def test_what_is_quarantined_is_counted_by_source(client: TestClient, world: World) -> None:
    series = ("mlrunbook_quarantine_waiting", "datadog")
    before = scraped(client).get(series, 0)
    with world.transaction() as conn:
        quarantine.keep(conn, quarantine.Message("datadog", b"{}", "no model"), now=world.now())
    assert scraped(client)[series] == before + 1
