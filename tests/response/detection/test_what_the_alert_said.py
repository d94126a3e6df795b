"""Triage goes by the type, the level and the name that intake read, whichever sender said them and wherever they stood."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.gateway.webhooks import registry
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.response.world import World
from tests.fakes import MODEL, T0, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of

AT = T0.isoformat()
_numbers = count(1)  # a delivery whose number came before changes nothing


def take(world: World, form: str, message: dict[str, Any]) -> str:
    body = json.dumps(message).encode()
    (incident_id,) = ingest(
        world, registry.of(form), received(body, {}, world), body, sender=Identity("", "a sender", None, frozenset())
    ).incidents
    return str(incident_id)


def labelled(**labels: str) -> dict[str, Any]:
    said = {"alertname": "AnythingOfOurs", "model": MODEL, "severity": "warning"} | labels
    return {"version": "4", "alerts": [{"status": "firing", "labels": said, "annotations": {}, "startsAt": AT, "fingerprint": "a"}]}


@pytest.fixture(autouse=True)
def sound(file_world: FileWorld) -> None:
    """Nothing that is measured is wrong."""
    file_world.set(bad_versions={})


@pytest.mark.parametrize("kind", ["infrastructure", "bias_fairness", "security", "compliance"])
def test_an_alert_with_a_type_that_no_metric_refutes_is_real_and_pages(
    world: World, clock: Clock, notifier: LedgerNotifier, kind: str
) -> None:
    incident_id = take(world, "alertmanager", labelled(incident_type=kind))
    carry(world, incident_id, "run-1")
    clock.advance(minutes=2)
    deliver(world)
    found = incident_of(world, incident_id)
    assert (found.type, found.status is Status.FALSE_ALARM) == (kind, False)
    assert notifier.pages()


def datadog(**said: str) -> dict[str, Any]:
    shown = {"alert_title": "[Triggered] FeatureDrift", "date": str(int(T0.timestamp() * 1000)), "alert_type": "warning"} | said
    return {
        "alert_id": "1",
        "alert_cycle_key": "c1",
        "alert_transition": "Triggered",
        "event_msg": "drift",
        "tags": f"model:{MODEL}",
    } | shown


def pagerduty(**said: Any) -> dict[str, Any]:
    about = {
        "id": "P1",
        "created_at": AT,
        "title": f"FeatureDrift on {MODEL}",
        "urgency": "low",
        "custom_fields": [{"name": "model", "value": MODEL}],
    }
    return {"event": {"id": f"event-{next(_numbers)}", "event_type": "incident.triggered", "data": about | said}}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("datadog", datadog(alert_priority="P1")),
        ("datadog", datadog(alert_type="error")),
        ("alertmanager", labelled(alertname="FeatureDrift", severity="page")),
        ("alertmanager", labelled(alertname="FeatureDrift", severity="", priority="P1")),
        ("pagerduty", pagerduty(priority={"summary": "SEV-1"})),
        ("pagerduty", pagerduty(urgency="high")),
    ],
)
def test_what_is_urgent_and_cannot_be_measured_stays_high(world: World, form: str, message: dict[str, Any]) -> None:
    incident_id = take(world, form, message)
    carry(world, incident_id, "run-1")
    found = incident_of(world, incident_id)
    assert (found.severity, found.status is Status.FALSE_ALARM) == (Severity.HIGH, False)
