"""Changes told by other systems, and the quarantine: nothing that a trusted sender sent is lost, and what is mended is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.policy.intake import IntakePolicy, StateWords
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import incidents, timeline
from tests.gateway.conftest import Clock, Keys, world_on

WITHOUT_A_MODEL: dict[str, Callable[[Any], Any]] = {
    "alertmanager": lambda m: _drop(m, "alerts", 0, "labels", "model"),
    "grafana": lambda m: _drop(m, "alerts", 0, "labels", "model"),
    "datadog": lambda m: m | {"tags": "job:pumps"},
    "pagerduty": lambda m: _drop(m, "event", "data", "custom_fields"),
    "opsgenie": lambda m: _drop(m, "alert", "tags", 0),
    "cloudevents": lambda m: _drop(m, "data", "model"),
    "generic": lambda m: _drop(m, "model"),
}


def _drop(message: Any, *at: Any) -> Any:
    message = json.loads(json.dumps(message))
    inner = message
    for step in at[:-1]:
        inner = inner[step]
    del inner[at[-1]]
    return message


def change(model: str, clock: Clock, **changed: Any) -> dict[str, Any]:
    at = (clock() - timedelta(minutes=9)).isoformat()
    return {"model": model, "kind": "data_pipeline", "ref": "etl-7", "author": "the pipeline", "at": at} | changed


# Changes


def test_a_change_is_kept_once_and_noted_on_what_is_open(client: TestClient, world: World, clock: Clock, model: str) -> None:
    body = {"severity": "high", "type": "prediction_error", "description": "odd predictions"}
    opened = client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"]
    first, again = (client.post("/api/v1/changes", json=change(model, clock, detail={"commit": "9f1c2ab"})) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    (listed,) = client.get("/api/v1/changes", params={"model": model}).json()["changes"]
    assert listed == first.json() == again.json()
    assert (listed["kind"], listed["ref"], listed["detail"]) == ("data_pipeline", "etl-7", {"commit": "9f1c2ab"})
    with world.transaction() as conn:
        assert len([e for e in timeline.read(conn, opened) if e.kind == "change"]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "surprise"),
        ("ref", ""),
        ("author", None),
        ("at", "yesterday"),
        ("at", "2026-03-02T09:00:00"),
        ("at", "2999-01-01T00:00:00Z"),
        ("model", "no model id!"),
        ("detail", {"a": 1}),
        ("surprise", "x"),
    ],
)
def test_a_wrong_change_is_refused_by_the_name_of_its_field(client: TestClient, clock: Clock, model: str, field: str, value: Any) -> None:
    answer = client.post("/api/v1/changes", json=change(model, clock) | {field: value})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"].split(".")[0] == field
    assert client.get("/api/v1/changes", params={"model": model}).json()["changes"] == []


def test_each_door_wants_its_scope(anonymous: TestClient, keys: Keys, clock: Clock, model: str) -> None:
    doors = [
        ("POST", "/api/v1/changes", Scope.REPORT),
        ("GET", f"/api/v1/changes?model={model}", Scope.READ),
        ("GET", "/api/v1/quarantine", Scope.READ),
        ("GET", "/api/v1/quarantine/1", Scope.READ),
        ("POST", "/api/v1/quarantine/1/replay", Scope.OPERATE),
    ]
    for method, path, scope in doors:
        assert anonymous.request(method, path).status_code == 401, path
        others = [one for one in Scope if one not in (scope, Scope.INTAKE)]
        assert anonymous.request(method, path, headers=keys.of("another", *others)).status_code == 403, path


# The quarantine


@pytest.mark.parametrize("form", sorted(WITHOUT_A_MODEL))
def test_what_no_model_could_be_found_for_is_read_again_once_the_policy_names_it(
    client: TestClient, engine: Engine, clock: Clock, keys: Keys, model: str, form: str
) -> None:
    message = samples.sample(form, model, now=clock(), firing=True, name=f"Low on {model}")
    headers = {"Content-Type": samples.content_type(form)}
    got = client.post(f"/webhooks/{form}", json=WITHOUT_A_MODEL[form](message), headers=headers).json()
    assert (got["accepted"], got["quarantined"]) == (0, 1)
    listed = client.get("/api/v1/quarantine", params={"source": form}).json()
    number, before = listed["quarantined"][0]["number"], listed["waiting"]
    assert client.get("/health").json()["quarantined"] == before
    still = client.post(f"/api/v1/quarantine/{number}/replay")
    assert (still.status_code, "still cannot be used" in still.json()["detail"]) == (409, True)
    assert "the alert names no model" in client.get(f"/api/v1/quarantine/{number}").json()["error"]

    policy = Policy(intake=IntakePolicy(models={f"*:*{model}*": model}))
    world = world_on(engine, clock, policy)
    clock.pass_(minutes=20)
    with TestClient(create_app(world), headers=keys.of("an operator"), raise_server_exceptions=False) as mended:
        receipt = mended.post(f"/api/v1/quarantine/{number}/replay").json()
        assert (receipt["accepted"], receipt["quarantined"], len(receipt["incidents"])) == (1, 0, 1)
        assert mended.post(f"/api/v1/quarantine/{number}/replay").status_code == 409, "once"
    with world.transaction() as conn:
        (incident,) = incidents.find(conn, model=model)
    assert incident.id == receipt["incidents"][0]
    kept = client.get(f"/api/v1/quarantine/{number}").json()
    assert (kept["incidents"], bool(kept["replayedAt"])) == ([incident.id], True)
    assert client.get("/api/v1/quarantine").json()["waiting"] == before - 1


def test_a_binary_event_keeps_the_headers_that_say_what_it_is_and_no_secret(client: TestClient) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "t", "Content-Type": "application/json"}
    client.post("/webhooks/cloudevents", content=b'{"value": 1}', headers=headers)
    newest = client.get("/api/v1/quarantine", params={"source": "cloudevents"}).json()["quarantined"][0]["number"]
    kept = client.get(f"/api/v1/quarantine/{newest}").json()
    assert {"ce-type": "t", "ce-source": "/x"}.items() <= kept["headers"].items()
    assert "authorization" not in kept["headers"]
    assert json.loads(kept["body"])["data"] == {"value": 1}


def test_what_is_not_there_cannot_be_shown_or_replayed(client: TestClient) -> None:
    assert client.get("/api/v1/quarantine/999999999").status_code == 404
    assert client.post("/api/v1/quarantine/999999999/replay").status_code == 404


def quarantined(client: TestClient, body: Any, form: str = "generic") -> int:
    assert client.post(f"/webhooks/{form}", json=body).json()["quarantined"] == 1
    return int(client.get("/api/v1/quarantine").json()["quarantined"][0]["number"])


def test_a_replay_reads_by_the_policy_as_it_is_now_in_everything(engine: Engine, clock: Clock, keys: Keys, model: str) -> None:
    policies = [Policy()]
    app = create_app(world_on(engine, clock), policy_now=lambda: policies[-1])
    with TestClient(app, headers=keys.of("an operator")) as client:
        number = quarantined(client, {"team": model, "kind": f"odd {model}", "severity": "ruinous", "status": "howling"})
        assert client.post(f"/api/v1/quarantine/{number}/replay").status_code == 409
        levels = dict(IntakePolicy().levels) | {"info": ("ruinous",)}
        states = replace(StateWords(), resolved=("quiet",), firing=("howling",))
        policies.append(
            Policy(
                intake=IntakePolicy(models={"team:pump*": model}, levels=levels, states=states),
                alert_types={**Policy().alert_types, "odd*": IncidentType.SECURITY},
            )
        )
        [incident_id] = client.post(f"/api/v1/quarantine/{number}/replay").json()["incidents"]
        shown = client.get(f"/api/v1/incidents/{incident_id}").json()
    assert (shown["model"], shown["type"], shown["severity"]) == (model, "security", "low")


def test_who_needs_a_message_no_more_says_why_and_it_is_kept_and_never_read_again(
    client: TestClient, anonymous: TestClient, keys: Keys, clock: Clock, model: str
) -> None:
    body = {"kind": f"nothing of {model}"}
    number, door = quarantined(client, body), "/api/v1/quarantine"
    waiting = client.get(door).json()["waiting"]
    for reason in ({}, {"reason": ""}, {"reason": "  "}, {"reason": "\u0000\u0007"}, {"reason": 7}):
        assert client.post(f"{door}/{number}/discard", json=reason).status_code == 422
    reader = keys.of("a reader", Scope.READ, Scope.ALERTS)
    assert anonymous.post(f"{door}/{number}/discard", json={"reason": "x"}, headers=reader).status_code == 403
    gone = client.post(f"{door}/{number}/discard", json={"reason": "a test of the sender"}).json()
    assert (gone["discarded"]["reason"], gone["replayedAt"]) == ("a test of the sender", None)
    assert "the lead" in gone["discarded"]["by"]
    assert datetime.fromisoformat(gone["discarded"]["at"]) == clock()
    listed = client.get(door).json()
    assert (listed["waiting"], number in [one["number"] for one in listed["quarantined"]]) == (waiting - 1, False)
    assert gone["discarded"] in [one["discarded"] for one in client.get(door, params={"all": True}).json()["quarantined"]]
    kept = client.get(f"{door}/{number}").json()
    assert (kept["discarded"], json.loads(kept["body"])) == (gone["discarded"], body)
    for way, sent in (("replay", None), ("discard", {"reason": "again"})):
        refused = client.post(f"{door}/{number}/{way}", json=sent)
        assert refused.status_code == 409
        assert "the lead" in refused.json()["detail"]
        assert "a test of the sender" in refused.json()["detail"]
    assert quarantined(client, body) != number, "the same message that comes again waits again"
    assert client.post(f"{door}/999999999/discard", json={"reason": "x"}).status_code == 404


# The samples of `mlrunbook webhook test`


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_sample_that_is_signed_is_taken_and_opens_nothing(
    anonymous: TestClient, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, model: str, form: str
) -> None:
    monkeypatch.setenv(f"MLRUNBOOK_WEBHOOK_SECRET_{form.upper()}", "a secret")
    body = json.dumps(samples.sample(form, model, now=clock())).encode()
    headers = {"Content-Type": samples.content_type(form)} | samples.proof(form, "a secret", body, clock())
    answer = anonymous.post(f"/webhooks/{form}", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["accepted"] + answer.json()["changes"], answer.json()["quarantined"]) == (1, 0)
    with world.transaction() as conn:
        assert incidents.find(conn, model=model) == []
