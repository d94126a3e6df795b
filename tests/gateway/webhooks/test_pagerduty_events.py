"""The door of PagerDuty's Events API v2: what can page PagerDuty can reach us, and a routing key is a token and stays secret."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from mlrunbook.base import tokens, web
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Limits, Scope
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks.pagerduty_door import CHANGE, ENQUEUE, MAX_BODY_BYTES, PATH
from mlrunbook.response.world import World
from mlrunbook.store import incidents, recent_changes, timeline
from tests.gateway.conftest import Clock, world_on

ADDRESSES = (PATH, PATH + ENQUEUE)


def key_for(engine: Engine, *scopes: Scope, **limits: Any) -> str:
    with transaction(engine) as conn:
        return tokens.create(conn, name="the pager", scopes=scopes or (Scope.ALERTS,), limits=Limits(**limits))


@pytest.fixture(scope="module")
def key(engine: Engine) -> str:
    return key_for(engine, senders=("pagerduty",))


def event(key: str, model: str, action: str = "trigger", **more: Any) -> dict[str, Any]:
    payload = {"summary": "F1 fell on the pumps", "source": "watcher", "severity": "critical", "custom_details": {"model": model}}
    return {"routing_key": key, "event_action": action, "payload": payload} | more


def post(client: TestClient, body: Any, path: str = PATH) -> Any:
    return client.post(path, content=body if isinstance(body, bytes) else json.dumps(body))


def of_model(world: World, model: str) -> list[Any]:
    with world.transaction() as conn:
        return incidents.find(conn, model=model)


@pytest.mark.parametrize("path", ADDRESSES)
def test_an_event_opens_and_its_end_is_noted_and_both_are_answered_as_pagerduty_does(
    anonymous: TestClient, world: World, model: str, key: str, path: str
) -> None:
    answer = post(anonymous, event(key, model, dedup_key=f"d-{model}"), path)
    assert (answer.status_code, answer.json()) == (
        202,
        {"status": "success", "message": "Event processed", "dedup_key": f"d-{model}"},
    )
    [incident] = of_model(world, model)
    assert incident.severity == "high", "an alert's level is a first guess"
    assert post(anonymous, {"routing_key": key, "event_action": "resolve", "dedup_key": f"d-{model}"}, path).status_code == 202
    with world.transaction() as conn:
        assert any("Alert resolved" in one.text for one in timeline.read(conn, incident.id))


def test_an_event_without_a_key_of_its_own_is_given_one_that_ends_it(anonymous: TestClient, world: World, model: str, key: str) -> None:
    given_ = post(anonymous, event(key, model)).json()["dedup_key"]
    assert given_
    assert post(anonymous, event(key, model)).json()["dedup_key"] == given_, "sent again it is the same alert"
    [incident] = of_model(world, model)
    post(anonymous, {"routing_key": key, "event_action": "resolve", "dedup_key": given_})
    with world.transaction() as conn:
        assert [e.kind for e in timeline.read(conn, incident.id) if "Alert resolved" in e.text] == ["alert"]


def test_an_acknowledgement_by_a_routing_key_is_noted_and_ends_no_page(anonymous: TestClient, world: World, model: str, key: str) -> None:
    post(anonymous, event(key, model, dedup_key=f"d-{model}"))
    told = {"routing_key": key, "event_action": "acknowledge", "dedup_key": f"d-{model}", "client": "Ann"}
    assert post(anonymous, told).status_code == 202
    [incident] = of_model(world, model)
    assert incident.acknowledged_at is None
    with world.transaction() as conn:
        assert any("does not count" in one.text for one in timeline.read(conn, incident.id))


def test_a_page_of_our_own_that_is_sent_here_opens_nothing(anonymous: TestClient, world: World, model: str, key: str) -> None:
    for action in ("trigger", "acknowledge", "resolve"):
        assert post(anonymous, event(key, model, action, dedup_key="mlrunbook:incident_1")).status_code == 202
    assert of_model(world, model) == []


def test_a_change_event_is_a_change_of_the_model(anonymous: TestClient, world: World, clock: Clock, model: str, key: str) -> None:
    change = {"summary": "deployed v2", "source": "ci", "custom_details": {"model": model, "version": "v2.0.0"}}
    answer = post(anonymous, {"routing_key": key, "payload": change}, PATH + CHANGE)
    assert (answer.status_code, answer.json()) == (202, {"status": "success", "message": "Change event processed"})
    with world.transaction() as conn:
        [found] = recent_changes.of_model(conn, model, since=clock().replace(year=2020), until=None, limit=10)
    assert (found.kind, found.ref) == ("deployment", "v2.0.0")


GROUP = """Labels:
 - alertname = ModelF1Drop
 - model = {model}
 - severity = warning
 - pod = {pod}
Annotations:
 - summary = F1 fell
 - model = not this one
Source: http://prometheus/graph
"""


def test_the_labels_that_alertmanager_writes_into_one_text_are_read(anonymous: TestClient, world: World, model: str, key: str) -> None:
    firing = GROUP.format(model=model, pod="a") + GROUP.format(model=model, pod="b")
    payload = {"summary": "[FIRING:2] (pumps)", "source": "Alertmanager", "severity": "error", "custom_details": {"firing": firing}}
    sent = event(key, model, payload=payload, dedup_key=f"g-{model}", client="Alertmanager", client_url="http://am")
    assert post(anonymous, sent).json()["message"] == "Event processed"
    [incident] = of_model(world, model)
    assert incident.type == "performance_degradation"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event_action": "open"}, "event_action"),
        ({"event_action": None}, "event_action"),
        ({"event_action": ["trigger"]}, "event_action"),
        ({"event_action": "resolve"}, "dedup_key"),
        ({"event_action": "acknowledge"}, "dedup_key"),
        ({"dedup_key": "x" * 256}, "dedup_key"),
        ({"dedup_key": 7}, "dedup_key"),
        ({"payload": None}, "payload"),
        ({"payload": {"source": "s", "severity": "info"}}, "payload.summary"),
        ({"payload": {"summary": "s", "severity": "info"}}, "payload.source"),
        ({"payload": {"summary": "s", "source": "s"}}, "payload.severity"),
        ({"payload": {"summary": "s", "source": "s", "severity": "bad"}}, "payload.severity"),
        ({"payload": {"summary": "s", "source": "s", "severity": ["info"]}}, "payload.severity"),
    ],
)
def test_an_event_that_pagerduty_would_refuse_is_refused_as_there(
    anonymous: TestClient, model: str, key: str, change: dict[str, Any], said: str
) -> None:
    answer = post(anonymous, event(key, model) | change)
    body = answer.json()
    assert (answer.status_code, body["status"], body["message"]) == (400, "invalid event", "Event object is invalid")
    assert any(f"'{said}'" in one for one in body["errors"])


def test_it_lets_nobody_in_without_a_token_of_the_scope_for_this_sender_and_model(
    anonymous: TestClient, world: World, engine: Engine, model: str
) -> None:
    wrong = [(401, ""), (401, None), (401, "R" * 32), (401, 7), (403, key_for(engine, Scope.READ))]
    wrong += [(403, key_for(engine, senders=("grafana",))), (403, key_for(engine, models=("other_*",)))]
    for status, key in wrong:
        answer = post(anonymous, event("", model) | {"routing_key": key})
        assert (answer.status_code, answer.json()["status"], bool(answer.json()["errors"])) == (status, "invalid event", True), key
    for body in (b"", b"[]", b"{", b"null", b"[" * 100_000, b"\xff", json.dumps([event("", model)]).encode()):
        assert post(anonymous, body).status_code == 401
    assert of_model(world, model) == []


def test_a_token_in_the_header_does_as_well(anonymous: TestClient, world: World, model: str, key: str) -> None:
    answer = anonymous.post(PATH, json=event("R" * 32, model), headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202
    assert len(of_model(world, model)) == 1


def test_what_is_marked_as_a_test_opens_nothing(anonymous: TestClient, world: World, clock: Clock, model: str, key: str) -> None:
    headers = {"X-Mlrunbook-Test": str(clock().timestamp())}
    answer = anonymous.post(PATH, json=event(key, model), headers=headers)
    assert (answer.status_code, "only a test" in answer.json()["message"]) == (202, True)
    assert of_model(world, model) == []


@pytest.mark.parametrize("in_header", [True, False])
def test_what_is_larger_than_pagerduty_takes_is_refused(anonymous: TestClient, model: str, key: str, in_header: bool) -> None:
    headers = {"Authorization": f"Bearer {key}"} if in_header else {}
    large = json.dumps(event(key, model, client="x" * MAX_BODY_BYTES)).encode()
    for content in (large, (large[i : i + 10_000] for i in range(0, len(large), 10_000))):
        answer = anonymous.post(PATH, content=content, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (413, "invalid event")


def test_failed_keys_use_up_the_address_and_are_then_told_to_wait(engine: Engine, clock: Clock, model: str) -> None:
    limits = web.Limits(failed_per_min_address=3)
    with TestClient(create_app(world_on(engine, clock), limits=limits), raise_server_exceptions=False) as client:
        codes = [post(client, event("R" * 32, model)).status_code for _ in range(6)]
        assert codes == [401, 401, 401, 503, 503, 503]
        assert post(client, event("R" * 32, model)).headers["Retry-After"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("KEY"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10) | st.just("KEY"), inner, max_size=4),
    max_leaves=12,
)


def keyed(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name.replace("KEY", key): keyed(one, key) for name, one in value.items()}
    if isinstance(value, list):
        return [keyed(one, key) for one in value]
    return value.replace("KEY", key) if isinstance(value, str) else value


EVENTS = st.fixed_dictionaries(
    {
        "links": JSON,
        "details": st.dictionaries(st.text(max_size=10), JSON, max_size=3),
        "beside": st.dictionaries(st.text(max_size=10), JSON, max_size=3),
        "action": st.sampled_from(["trigger", "resolve", "acknowledge"]),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(EVENTS, st.booleans())
def test_whatever_an_event_holds_its_routing_key_is_neither_kept_nor_logged_nor_answered(
    anonymous: TestClient, engine: Engine, key: str, caplog: pytest.LogCaptureFixture, drawn: dict[str, Any], names_a_model: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    details = {**drawn["details"], **({"model": "pump_wear"} if names_a_model else {})}
    said = {"summary": "KEY fell", "source": "KEY", "severity": "error", "custom_details": details}
    more = {"payload": said, "links": drawn["links"], "dedup_key": "d1"}
    answer = post(anonymous, keyed(drawn["beside"] | event("KEY", "", drawn["action"], **more), key))
    assert answer.status_code == 202, answer.text
    secret = key[-43:]  # what is random of it: it may hold "_" itself
    assert secret not in answer.text
    assert secret not in caplog.text
    with engine.begin() as conn:
        for table in ("alerts", "quarantine", "timeline", "incidents", "outbox", "records", "deliveries"):
            column = "convert_from(body, 'UTF8') || error || headers::text" if table == "quarantine" else f"{table}::text"
            rows = conn.execute(text(f"SELECT {column} FROM {table}"))
            assert secret not in " ".join(str(row[0]) for row in rows), table


@pytest.mark.parametrize("held", ["a real routing key of PagerDuty", "R" * 32])
def test_what_is_sent_to_the_webhook_with_a_routing_key_in_it_is_kept_without_it(client: TestClient, engine: Engine, held: str) -> None:
    odd = {"routing_key": held, "event_action": "trigger", "payload": {"summary": "x", "source": held[:0] + "s", "severity": "info"}}
    for body in (odd, odd | {"event_action": "other"}, {"routing_key": held, "payload": {"summary": "a change"}}):
        assert client.post("/webhooks/pagerduty", json=body).json()["quarantined"] == 1
    with engine.begin() as conn:
        kept = " ".join(bytes(row[0]).decode() for row in conn.execute(text("SELECT body FROM quarantine")))
    assert held not in kept
