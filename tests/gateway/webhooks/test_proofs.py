"""Whose word counts: an acknowledgement by the format's secret alone, and what was quarantined as it was proven when it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.world import World
from mlrunbook.store import outbox, quarantine, timeline
from tests.gateway.conftest import Clock, Keys, world_on

SECRET = "of our on-call tool"
TOOLS = ("opsgenie", "pagerduty")


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in TOOLS:
        monkeypatch.setenv(f"MLRUNBOOK_WEBHOOK_SECRET_{form.upper()}", SECRET)


@pytest.fixture
def ours(client: TestClient, model: str) -> str:
    body = {"severity": "critical", "type": "prediction_error", "description": "odd predictions"}
    return str(client.post(f"/api/v1/model-governance/{model}/incidents?unknownModel=true", json=body).json()["id"])


def acknowledgement(form: str, incident_id: str, by: str = "VP Engineering") -> dict[str, Any]:
    key = f"mlrunbook:{incident_id}"
    if form == "opsgenie":
        return {"action": "Acknowledge", "alert": {"alertId": f"a-{incident_id}", "alias": key, "username": by}}
    event = {"id": f"e-{incident_id}", "event_type": "incident.acknowledged", "agent": {"summary": by}}
    return {"event": event | {"data": {"id": f"P-{incident_id}", "incident_key": key}}}


def signed(form: str, body: Any, clock: Clock, secret: str = SECRET) -> dict[str, str]:
    return {"Content-Type": "application/json"} | samples.proof(form, secret, json.dumps(body).encode(), clock())


def answered(world: World, incident_id: str) -> tuple[str | None, bool]:
    """Who has it, and whether a page of on-call waits no more."""
    with world.transaction() as conn:
        (by,) = conn.execute(text("SELECT acknowledged_by FROM incidents WHERE id = :i"), {"i": incident_id}).one()
        pages = outbox.of_incident(conn, incident_id, "page")
    return by, any(page["cancelled_at"] for page in pages)


@pytest.mark.parametrize("form", TOOLS)
@pytest.mark.parametrize("scopes", [(Scope.ALERTS,), (Scope.INTAKE,), tuple(Scope)])
def test_whoever_holds_a_token_answers_no_page_in_the_name_of_another(
    anonymous: TestClient, keys: Keys, world: World, ours: str, form: str, scopes: tuple[Scope, ...]
) -> None:
    body = acknowledgement(form, ours)
    for headers in ({}, {"X-PagerDuty-Signature": "v1=00"}):
        told = anonymous.post(f"/webhooks/{form}", json=body, headers=keys.of("any caller", *scopes) | headers)
        assert told.status_code == 202
    assert answered(world, ours) == (None, False)
    with world.transaction() as conn:
        said = [entry.text for entry in timeline.read(conn, ours) if "VP Engineering" in entry.text]
    assert len(said) == 1, "and people read that somebody tried"


@pytest.mark.parametrize("form", TOOLS)
@pytest.mark.parametrize("beside", [(), (Scope.ALERTS,)])
def test_what_the_secret_proves_is_booked_under_the_name_it_gives(
    anonymous: TestClient, keys: Keys, world: World, clock: Clock, ours: str, form: str, beside: tuple[Scope, ...]
) -> None:
    body = acknowledgement(form, ours, by="Ann Lee")
    headers = signed(form, body, clock) | (keys.of("a proxy", *beside) if beside else {})
    assert anonymous.post(f"/webhooks/{form}", content=json.dumps(body), headers=headers).status_code == 202
    assert answered(world, ours) == ("Ann Lee" + {"opsgenie": " in Opsgenie", "pagerduty": " in PagerDuty"}[form], True)


def opened_again(engine: Engine, incident_id: str) -> None:
    """As far as paging is concerned: nobody has it."""
    with engine.begin() as conn:
        conn.execute(text("UPDATE incidents SET acknowledged_at = NULL, acknowledged_by = NULL WHERE id = :i"), {"i": incident_id})


def test_a_copy_of_what_the_secret_proves_counts_no_second_time_whoever_sends_it(
    anonymous: TestClient, keys: Keys, world: World, clock: Clock, engine: Engine, ours: str
) -> None:
    body = acknowledgement("pagerduty", ours)
    headers = signed("pagerduty", body, clock)
    anonymous.post("/webhooks/pagerduty", content=json.dumps(body), headers=headers)
    opened_again(engine, ours)
    for beside in ({}, keys.of("an intruder", Scope.ALERTS), keys.of("another", Scope.ALERTS)):
        told = anonymous.post("/webhooks/pagerduty", content=json.dumps(body), headers=headers | beside)
        assert told.json()["duplicate"]
    clock.pass_(days=15)  # by now nobody knows the number any more
    assert anonymous.post("/webhooks/pagerduty", content=json.dumps(body), headers=headers).status_code == 202
    assert answered(world, ours)[0] is None


# The quarantine


def unmapped(form: str, model: str) -> dict[str, Any]:
    """An acknowledgement of somebody's own incident there, on a service that the policy does not know."""
    if form == "opsgenie":
        return {"action": "Acknowledge", "alert": {"alertId": f"a-{model}", "message": f"Low on {model}", "username": "Ann"}}
    event = {"id": f"e-{model}", "event_type": "incident.acknowledged", "agent": {"summary": "Ann"}}
    return {"event": event | {"data": {"id": f"P-{model}", "title": f"Low on {model}", "service": {"summary": "s"}}}}


def newest(client: TestClient, form: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/quarantine", params={"source": form}).json()["quarantined"][0]
    return found


def replayed(engine: Engine, clock: Clock, keys: Keys, model: str, number: int) -> str:
    """The incident, once the policy knows what it is about."""
    policy = Policy(intake=IntakePolicy(models={f"*:*{model}*": model}))
    with TestClient(create_app(world_on(engine, clock, policy)), headers=keys.of("an operator")) as mended:
        told = mended.post(f"/api/v1/quarantine/{number}/replay")
    assert told.status_code == 200, told.text
    (incident_id,) = told.json()["incidents"]
    return str(incident_id)


@pytest.mark.parametrize("form", TOOLS)
def test_what_was_proven_counts_on_replay_within_the_window_and_never_after_it(
    client: TestClient, world: World, engine: Engine, clock: Clock, keys: Keys, model: str, form: str
) -> None:
    for name, minutes, by in ((f"{model}x", 4, "Ann in " + form), (f"{model}y", 6, None)):
        body = unmapped(form, name)
        client.post(f"/webhooks/{form}", content=json.dumps(body), headers=signed(form, body, clock))
        kept = newest(client, form)
        assert kept["proven"].startswith("by the secret of its format")
        clock.pass_(minutes=minutes)
        got = answered(world, replayed(engine, clock, keys, name, kept["number"]))[0]
        assert (got.lower() if got else None) == (by.lower() if by else None)


def test_a_secret_that_was_replaced_meanwhile_proves_nothing(
    client: TestClient, engine: Engine, clock: Clock, keys: Keys, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = unmapped("pagerduty", model)
    client.post("/webhooks/pagerduty", content=json.dumps(body), headers=signed("pagerduty", body, clock))
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_PAGERDUTY", "another")
    incident_id = replayed(engine, clock, keys, model, newest(client, "pagerduty")["number"])
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["acknowledgedBy"] is None


def test_what_an_earlier_release_quarantined_is_read_and_proves_nothing(
    client: TestClient, world: World, engine: Engine, clock: Clock, keys: Keys, model: str
) -> None:
    with world.transaction() as conn:
        message = quarantine.Message("opsgenie", json.dumps(unmapped("opsgenie", model)).encode(), "no model", sender="opsgenie")
        number = quarantine.keep(conn, message, now=world.now())
    assert answered(world, replayed(engine, clock, keys, model, number))[0] is None


def test_the_same_message_again_is_counted_and_is_no_second_one(client: TestClient, clock: Clock, keys: Keys, model: str) -> None:
    body = {"nonsense": model}
    first = client.post("/webhooks/grafana", json=body).json()
    number, waiting = newest(client, "grafana")["number"], client.get("/api/v1/quarantine").json()["waiting"]
    clock.pass_(hours=2)
    assert client.post("/webhooks/grafana", json=body).json() == first
    assert client.get("/api/v1/quarantine").json()["waiting"] == waiting
    assert (newest(client, "grafana")["number"], newest(client, "grafana")["times"]) == (number, 2)
    client.post("/webhooks/grafana", json=body, headers=keys.of("another sender", Scope.ALERTS))
    assert newest(client, "grafana")["number"] != number, "whoever sent it otherwise has not proven that"


def test_a_message_for_other_models_stays_refused_on_replay(
    client: TestClient, anonymous: TestClient, engine: Engine, clock: Clock, model: str, world: World
) -> None:
    with world.transaction() as conn:
        key = tokens.create(conn, name="one model", scopes=[Scope.ALERTS], limits=tokens.Limits(models=(f"{model}_mine",)))
    headers = {"Authorization": f"Bearer {key}"}

    def one(name: str) -> dict[str, Any]:
        labels = {"model": name, "alertname": "x"}
        return {"status": "firing", "labels": labels, "annotations": {}, "startsAt": "2026-03-29T00:00:00Z"}

    both = {"version": "4", "alerts": [one(f"{model}_mine"), one(f"{model}_theirs")]}
    told = anonymous.post("/webhooks/alertmanager", json=both, headers=headers)
    assert (told.status_code, told.json()["accepted"], told.json()["quarantined"]) == (202, 1, 1)
    again = client.post(f"/api/v1/quarantine/{newest(client, 'alertmanager')['number']}/replay")
    assert (again.status_code, "limited to the models" in again.json()["detail"]) == (409, True)
    alone = anonymous.post("/webhooks/alertmanager", json={"version": "4", "alerts": [one(f"{model}_theirs")]}, headers=headers)
    assert alone.status_code == 403
