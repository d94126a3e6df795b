"""Names that nobody knows, at the gateway's doors: reports, webhooks, the quarantine, and a platform that hangs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.response.known_models import KnownModels
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, timeline
from mlrunbook.store.tables import quarantine
from tests.fakes import empty_store
from tests.gateway.conftest import Absent, Clock, Keys, world_on
from tests.gateway.webhooks.test_alertmanager import alert, message

REPORT = {"severity": "high", "type": "prediction_error", "description": "it flags every pump"}


class Registry(Absent):
    """A platform of which only the registry answers."""

    def __init__(self) -> None:
        self.registered = ["pump_wear"]
        self.gate = threading.Event()
        self.gate.set()

    def models(self) -> list[str]:
        self.gate.wait(120)
        return self.registered


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.gate.set()


@pytest.fixture
def world(engine: Engine, clock: Clock, registry: Registry) -> World:
    empty_store(engine)
    with engine.begin() as conn:
        conn.execute(quarantine.delete())
    return replace(world_on(engine, clock), platform=cast(Any, registry))


@pytest.fixture
def client(world: World, keys: Keys) -> Iterator[TestClient]:
    headers = keys.of("the lead", role="ml_team_lead")
    with TestClient(create_app(world), headers=headers, raise_server_exceptions=False) as client:
        yield client


def report(client: TestClient, model: str, query: str = "", **more: Any) -> Any:
    return client.post(f"/api/v1/model-governance/{model}/incidents{query}", json=REPORT | more)


def send(client: TestClient, *members: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/webhooks/alertmanager", content=json.dumps(message(*members)))
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_report_on_it_is_404_with_what_was_probably_meant(client: TestClient, world: World) -> None:
    answer = report(client, "pump_waer")
    assert answer.status_code == 404
    assert "did you mean pump_wear?" in answer.json()["detail"]
    with world.transaction() as conn:
        assert incidents.find(conn) == []


@pytest.mark.parametrize(("query", "body"), [("?unknownModel=true", {}), ("", {"unknownModel": True})])
def test_who_insists_reports_all_the_same_and_everybody_sees_why_nothing_happens(
    client: TestClient, world: World, query: str, body: dict[str, Any]
) -> None:
    made = report(client, "pump_waer", query, **body)
    assert made.status_code == 201
    shown = client.get(made.headers["Location"]).json()
    assert "did you mean pump_wear?" in shown["unknownModel"]
    assert made.json()["unknownModel"] == shown["unknownModel"]
    with world.transaction() as conn:
        assert [r["kind"] for r in outbox.of_incident(conn, shown["id"])] == ["page"]


def test_nothing_can_be_ordered_or_said_to_be_fixed_on_it_and_a_person_closes_it_with_a_reason(client: TestClient) -> None:
    path = report(client, "ghost", "?unknownModel=true").headers["Location"]
    stop = {"order": "stop_serving", "reason": "it is wrong"}
    for door, body in (("containment", stop), ("resolve", {"what": "restarted"})):
        assert client.post(f"{path}/{door}", json=body).status_code == 409
    assert client.post(f"{path}/severity", json={"severity": "critical", "reason": "worse"}).status_code == 200
    assert client.post(f"{path}/close", json={}).status_code == 422
    closed = client.post(f"{path}/close", json={"reason": "there is no such model"})
    assert closed.json()["status"] == "closed"


def test_of_a_known_model_nothing_is_said(client: TestClient) -> None:
    assert report(client, "pump_wear").json()["unknownModel"] is None


def test_alerts_on_many_names_open_few_incidents_and_the_rest_are_replayed_when_their_model_is_known(
    client: TestClient, world: World, registry: Registry
) -> None:
    receipt = send(client, *(alert(f"ghost_{n}") for n in range(8)), alert("pump_wear"))
    assert (receipt["accepted"], receipt["quarantined"], len(receipt["incidents"])) == (6, 3, 6)
    assert send(client, *(alert(f"ghost_{n}") for n in range(8)))["quarantined"] == 0, "repeats are not kept again"
    waiting = client.get("/api/v1/quarantine").json()["quarantined"]
    assert len(waiting) == 3
    number = waiting[0]["number"]
    kept = json.loads(client.get(f"/api/v1/quarantine/{number}").json()["body"])
    refused = client.post(f"/api/v1/quarantine/{number}/replay")
    assert refused.status_code == 409
    assert "incidents an hour" in refused.json()["detail"]
    registry.registered.append(kept["labels"]["model"])
    replayed = client.post(f"/api/v1/quarantine/{number}/replay").json()
    assert replayed["accepted"] == 1
    assert client.get(f"/api/v1/incidents/{replayed['incidents'][0]}").json()["unknownModel"] is None


def test_a_mapping_says_what_is_meant_by_a_wrong_label_and_a_replay_goes_there(world: World, keys: Keys, client: TestClient) -> None:
    send(client, *(alert(f"ghost_{n}") for n in range(6)))
    [kept] = client.get("/api/v1/quarantine").json()["quarantined"]
    mapped = replace(world, policy=Policy(intake=IntakePolicy(models={"model:ghost_*": "pump_wear"})))
    with TestClient(create_app(mapped), headers=keys.of("the lead")) as again:
        replayed = again.post(f"/api/v1/quarantine/{kept['number']}/replay").json()
        assert again.get(f"/api/v1/incidents/{replayed['incidents'][0]}").json()["model"] == "pump_wear"


def test_a_platform_that_hangs_loses_no_alert_and_holds_the_webhook_up_for_a_moment_at_most(
    engine: Engine, clock: Clock, keys: Keys, registry: Registry
) -> None:
    empty_store(engine)
    registry.gate.clear()
    made = replace(world_on(engine, clock), platform=cast(Any, registry))
    world = replace(made, known_models=KnownModels(cast(Any, registry), clock, wait_s=0.3))
    with TestClient(create_app(world), headers=keys.of("the lead")) as client:
        begun = time.monotonic()
        receipts = [send(client, alert(f"ghost_{n}")) for n in range(10)]
        assert time.monotonic() - begun < 10
        assert [r["accepted"] for r in receipts] == [1] * 10
        assert report(client, "ghost_x").status_code == 201


def test_no_transaction_is_open_while_the_registry_is_asked(world: World, client: TestClient, registry: Registry, engine: Engine) -> None:
    registry.gate.clear()
    sending = threading.Thread(target=send, args=(client, alert("ghost")))
    sending.start()
    try:
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    finally:
        registry.gate.set()
        sending.join()


def test_policy_may_name_a_model_that_no_registry_knows(world: World, keys: Keys) -> None:
    named = replace(world, policy=Policy(models={"ghost_*": ModelRules(owner="Hall B")}))
    with TestClient(create_app(named), headers=keys.of("the lead")) as client:
        assert report(client, "ghost_7").status_code == 201


@pytest.mark.parametrize("unknown", ["ours_2", "ours_churm", "ours_wear", "ours_pump_waer"])
@pytest.mark.parametrize("query", ["", "?unknownModel=true"])
def test_a_token_limited_to_models_hears_of_no_other(
    client: TestClient, world: World, engine: Engine, registry: Registry, unknown: str, query: str
) -> None:
    registry.registered = ["ours_churn", "pump_wear", "theirs_wear", "2_ours"]
    with transaction(engine) as conn:
        held = tokens.create(conn, name="the plant", scopes=tuple(Scope), limits=tokens.Limits(models=("ours_*",)))
    limited = {"Authorization": f"Bearer {held}"}
    answer = client.post(f"/api/v1/model-governance/{unknown}/incidents{query}", json=REPORT, headers=limited)
    assert answer.status_code == (201 if query else 404)
    for other in ("pump_wear", "theirs_wear", "2_ours"):
        assert other not in answer.text
    assert "ours_churn" in answer.text, "what it may see is named"
    sent = client.post("/webhooks/alertmanager", content=json.dumps(message(alert(unknown))), headers=limited)
    assert sent.status_code == 202
    with world.transaction() as conn:
        said = " ".join(one.text for made in incidents.find(conn, model=unknown) for one in timeline.read(conn, made.id))
    assert said
    assert "pump_wear" not in said
