"""Each sender's messages, from its payload to incidents, acknowledgements and changes. Alertmanager's own are in test_alertmanager.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mlrunbook.domain.incident import Status
from mlrunbook.domain.policy.intake import GenericMapping, IntakePolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.judging import judge_all
from mlrunbook.gateway.webhooks.parsing import Received, time
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, quarantine, recent_changes, timeline
from tests.gateway.conftest import Clock, Keys, world_on

PAYLOADS = Path(__file__).parents[1] / "payloads"
MAPPED = IntakePolicy(models={"service:pump_failure_*": "mapped", "title:* on the pumps": "mapped"})


def payload(name: str, model: str) -> Any:
    """The sample, about this test's model; ids are the test's own too, so that no test meets another's delivery."""
    text = (PAYLOADS / f"{name}.json").read_text().replace("fraud-scorer", model)
    for own in ("PGR0VU2", "01FDS2K0A1", "052652ac", "12875893211884431432", "C234-1234", "c6eadffa33fcdf37"):
        text = text.replace(own, f"{own}-{model}")
    return json.loads(text)


ON_CALL_TOOLS = ("pagerduty", "opsgenie")
SECRET = "of our on-call tool"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ON_CALL_TOOLS:
        monkeypatch.setenv(f"MLRUNBOOK_WEBHOOK_SECRET_{form.upper()}", SECRET)


def send(client: TestClient, form: str, body: Any, **headers: str) -> dict[str, Any]:
    """What an on-call tool sends is proven by the secret of its format, anything else by the client's token."""
    kind = "application/cloudevents+json" if form == "cloudevents" else "application/json"
    content = json.dumps(body)
    proof = samples.proof(form, SECRET, content.encode(), datetime.now(UTC)) if form in ON_CALL_TOOLS else {}
    answer = client.post(f"/webhooks/{form}", content=content, headers={"Content-Type": kind} | proof | headers)
    assert answer.status_code == 202, answer.text
    received: dict[str, Any] = answer.json()
    return received


def only(received: dict[str, Any]) -> str:
    assert len(received["incidents"]) == 1, received
    return str(received["incidents"][0])


def shown(client: TestClient, incident_id: str) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/api/v1/incidents/{incident_id}").json()
    return body


def texts(world: World, incident_id: str) -> list[str]:
    with world.transaction() as conn:
        return [e.text for e in timeline.read(conn, incident_id)]


def finish(world: World, incident_id: str) -> None:
    with world.transaction() as conn:
        for step in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, step, why="over", actor="mlrunbook", now=world.now())


@pytest.fixture
def pagerduty(engine: Engine, clock: Clock, keys: Keys, model: str) -> Iterator[TestClient]:
    """A gateway whose policy says what PagerDuty's services are about."""
    policy = Policy(intake=IntakePolicy(models={f"service:{model}": model}))
    headers = keys.of("pagerduty")
    with TestClient(create_app(world_on(engine, clock, policy)), headers=headers, raise_server_exceptions=False) as client:
        yield client


# Grafana


def test_a_grafana_alert_opens_an_incident_and_its_end_is_noted(client: TestClient, world: World, model: str) -> None:
    incident = shown(client, only(send(client, "grafana", payload("grafana_alerting_firing", model))))
    assert (incident["model"], incident["modelVersion"], incident["reportedBy"]) == (model, "42", "grafana")
    assert (incident["severity"], incident["startedAt"]) == ("high", "2026-09-14T08:51:03.157076Z")
    over = payload("grafana_alerting_resolved", model)
    over["alerts"][0]["startsAt"] = payload("grafana_alerting_firing", model)["alerts"][0]["startsAt"]
    assert only(send(client, "grafana", over)) == incident["id"]
    assert any(t.startswith("Alert resolved") for t in texts(world, incident["id"]))
    assert shown(client, incident["id"])["status"] == "detected", "what ends an incident is measured"


# Datadog


def test_a_datadog_cycle_is_one_alert_from_trigger_to_recovery(client: TestClient, world: World, clock: Clock, model: str) -> None:
    first = only(send(client, "datadog", payload("datadog_webhook_triggered", model)))
    incident = shown(client, first)
    assert (incident["model"], incident["severity"], incident["startedAt"]) == (model, "high", "2026-09-14T08:24:38Z")
    clock.pass_(minutes=5)
    later = payload("datadog_webhook_no_data", model) | {"date": "1789374578000"}
    blind = only(send(client, "datadog", later))
    assert shown(client, blind)["type"] == "infrastructure", "a monitor without data says nothing about the model"
    assert only(send(client, "datadog", payload("datadog_webhook_triggered", model))) == first
    assert shown(client, first)["alertCount"] == 2
    over = send(client, "datadog", payload("datadog_webhook_recovered", model) | {"date": "1789374878000"})
    assert first in over["incidents"]
    assert len([t for t in texts(world, first) if t.startswith("Alert resolved")]) == 1


def test_the_next_datadog_cycle_after_the_incident_opens_another(client: TestClient, world: World, clock: Clock, model: str) -> None:
    first = only(send(client, "datadog", payload("datadog_webhook_triggered", model)))
    send(client, "datadog", payload("datadog_webhook_recovered", model))
    finish(world, first)
    clock.pass_(minutes=world.policy.recurrence.reopen_within_min + 1)
    again = payload("datadog_webhook_triggered", model) | {"alert_cycle_key": f"next-{model}"}
    assert only(send(client, "datadog", again)) != first


def test_the_shipped_datadog_template_is_noticed_when_its_variables_were_not_filled(client: TestClient) -> None:
    assert send(client, "datadog", json.loads((PAYLOADS / "datadog_webhook_template.json").read_text()))["quarantined"] == 1


# PagerDuty


def test_a_pagerduty_incident_is_taken_over_with_its_acknowledgement(pagerduty: TestClient, world: World, model: str) -> None:
    first = only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_triggered", model)))
    assert (shown(pagerduty, first)["model"], shown(pagerduty, first)["severity"]) == (model, "high")
    assert only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_acknowledged", model))) == first
    assert shown(pagerduty, first)["acknowledgedBy"] == "On-call engineer in PagerDuty"
    assert only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_annotated", model))) == first
    assert only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_resolved", model))) == first
    told = texts(world, first)
    assert "Acknowledged by On-call engineer in PagerDuty" in told
    assert "On-call engineer noted in PagerDuty: rolled back to v41" in told
    assert shown(pagerduty, first)["status"] == "detected"
    with world.transaction() as conn:
        waiting = [r for r in outbox.of_incident(conn, first, "page") if r["cancelled_at"] is None]
    assert {r["payload"]["role"] for r in waiting}.isdisjoint({"oncall_ml_engineer"}), "who has it is not paged again"
    assert waiting, "the escalation to the others goes on"


def test_an_acknowledgement_that_overtakes_its_trigger_is_not_lost(pagerduty: TestClient, model: str) -> None:
    first = only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_acknowledged", model)))
    assert shown(pagerduty, first)["acknowledgedBy"] == "On-call engineer in PagerDuty"
    assert only(send(pagerduty, "pagerduty", payload("pagerduty_v3_incident_triggered", model))) == first


def test_a_delivery_that_comes_again_changes_nothing(pagerduty: TestClient, model: str) -> None:
    message = payload("pagerduty_v3_incident_triggered", model)
    first = send(pagerduty, "pagerduty", message)
    again = send(pagerduty, "pagerduty", message, **{"X-Webhook-Id": "another"})
    assert (again["duplicate"], again["incidents"]) == (True, first["incidents"])
    assert shown(pagerduty, only(first))["alertCount"] == 1


def test_a_page_of_our_own_that_comes_back_opens_nothing_and_acknowledges_its_incident(
    pagerduty: TestClient, world: World, model: str
) -> None:
    body = {"severity": "high", "type": "prediction_error", "description": "odd predictions"}
    ours = pagerduty.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"]
    for step in ("triggered", "acknowledged", "resolved"):
        message = payload(f"pagerduty_v3_incident_{step}", model)
        message["event"]["data"]["incident_key"] = f"mlrunbook:{ours}"
        assert send(pagerduty, "pagerduty", message)["accepted"] == 0
    assert shown(pagerduty, ours)["acknowledgedBy"] == "On-call engineer in PagerDuty"
    assert "On-call engineer resolved the page in PagerDuty" in texts(world, ours)
    with world.transaction() as conn:
        assert [i.id for i in incidents.find(conn, model=model)] == [ours]


@pytest.mark.parametrize("event", ["escalated", "priority_updated"])
def test_other_pagerduty_events_are_taken_and_break_nothing(pagerduty: TestClient, model: str, event: str) -> None:
    assert send(pagerduty, "pagerduty", payload(f"pagerduty_v3_incident_{event}", model))["quarantined"] == 0


def test_a_service_the_policy_does_not_know_is_quarantined_and_read_when_it_is_sent_again(
    client: TestClient, pagerduty: TestClient, model: str
) -> None:
    message = payload("pagerduty_v3_incident_triggered", model)
    assert send(client, "pagerduty", message)["quarantined"] == 1
    assert send(pagerduty, "pagerduty", message)["accepted"] == 1


def test_a_pagerduty_change_event_is_a_recent_change(client: TestClient, world: World, model: str) -> None:
    assert send(client, "pagerduty", payload("pagerduty_change_event_v2", model))["changes"] == 1
    with world.transaction() as conn:
        (change,) = recent_changes.of_model(conn, model, since=datetime(2026, 9, 14, tzinfo=UTC))
    assert (change.kind, change.ref, change.author) == ("deployment", "42", "mlflow-registry")
    assert change.at == datetime(2026, 9, 14, 7, 55, tzinfo=UTC)


# Opsgenie


def test_an_opsgenie_alert_is_taken_over_with_its_acknowledgement_and_its_end(client: TestClient, world: World, model: str) -> None:
    first = only(send(client, "opsgenie", payload("opsgenie_webhook_create", model)))
    assert (shown(client, first)["model"], shown(client, first)["severity"]) == (model, "high")
    assert only(send(client, "opsgenie", payload("opsgenie_webhook_acknowledge", model))) == first
    assert shown(client, first)["acknowledgedBy"] == "oncall@example.com in Opsgenie"
    for _ in range(2):
        assert only(send(client, "opsgenie", payload("opsgenie_webhook_close", model))) == first
    assert len([t for t in texts(world, first) if t.startswith("Alert resolved")]) == 1


# CloudEvents


def test_a_structured_event_opens_an_incident_and_a_repeat_does_nothing(client: TestClient, model: str) -> None:
    event = payload("cloudevents_1_0_structured", model)
    first = only(send(client, "cloudevents", event))
    incident = shown(client, first)
    assert (incident["model"], incident["modelVersion"], incident["severity"]) == (model, "42", "high")
    assert incident["description"].endswith("psi amount_log 0.41 against 0.2")
    assert send(client, "cloudevents", event)["duplicate"]
    assert shown(client, first)["alertCount"] == 1
    over = event | {"type": event["type"] + ".resolved", "id": f"over-{model}", "time": "2026-09-14T09:00:00Z"}
    assert only(send(client, "cloudevents", over)) == first


def test_a_batch_is_as_many_events_as_it_holds_and_each_is_known_by_its_own_number(client: TestClient, model: str) -> None:
    batch = payload("cloudevents_1_0_batch", model)
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = client.post("/webhooks/cloudevents", content=json.dumps([*batch, {"specversion": "0.3"}]), headers=headers).json()
    assert (answer["accepted"], answer["quarantined"], len(answer["incidents"])) == (2, 1, 1)
    assert send(client, "cloudevents", batch[1])["duplicate"]
    assert client.post("/webhooks/cloudevents", content="[]", headers=headers).json()["accepted"] == 0


def test_a_binary_event_is_the_same_event_with_its_attributes_in_headers(client: TestClient, model: str) -> None:
    head, _, body = (PAYLOADS / "cloudevents_1_0_binary.http").read_text().replace("fraud-scorer", model).partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if not line.startswith(("Host", "Authorization")))
    headers = fields | {"ce-id": f"binary-{model}"}
    first = client.post("/webhooks/cloudevents", content=body.strip(), headers=headers)
    assert first.status_code == 202
    assert shown(client, only(first.json()))["model"] == model
    structured = payload("cloudevents_1_0_structured", model) | {"id": f"binary-{model}"}
    assert send(client, "cloudevents", structured)["duplicate"], "source and id are the event's, in whatever mode it comes"


def test_an_event_about_a_change_is_a_recent_change(client: TestClient, world: World, model: str) -> None:
    data = {"model": model, "kind": "data_pipeline", "ref": "etl-7", "author": "the pipeline"}
    event = payload("cloudevents_1_0_structured", model) | {"type": "com.example.etl.released", "data": data, "id": f"change-{model}"}
    assert send(client, "cloudevents", event)["changes"] == 1
    with world.transaction() as conn:
        (change,) = recent_changes.of_model(conn, model, since=datetime(2026, 9, 14, tzinfo=UTC))
    assert (change.kind, change.ref, change.author) == ("data_pipeline", "etl-7", "the pipeline")


def test_anything_but_an_event_is_answered_415(client: TestClient) -> None:
    for content_type in ("application/json", "text/xml", ""):
        answer = client.post("/webhooks/cloudevents", content="{}", headers={"Content-Type": content_type})
        assert answer.status_code == 415
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_sender_that_asks_whether_it_may_send_is_told_how_much(anonymous: TestClient) -> None:
    asked = {"WebHook-Request-Origin": "monitoring.example.com", "WebHook-Request-Rate": "120"}
    answer = anonymous.options("/webhooks/cloudevents", headers=asked)
    assert answer.status_code == 200
    said = {name: answer.headers[name] for name in ("Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate")}
    assert said == {"Allow": "POST", "WebHook-Allowed-Origin": "monitoring.example.com", "WebHook-Allowed-Rate": "100"}
    assert anonymous.options("/webhooks/cloudevents", headers=asked | {"WebHook-Request-Rate": "7"}).headers["webhook-allowed-rate"] == "7"
    assert anonymous.options("/webhooks/cloudevents").status_code == 400


def test_a_sender_of_events_that_floods_is_told_to_wait(engine: Engine, clock: Clock, keys: Keys, model: str) -> None:
    world = world_on(engine, clock, Policy(intake=IntakePolicy(cloudevents_per_min=2)))
    with TestClient(create_app(world), headers=keys.of("a flood"), raise_server_exceptions=False) as client:
        headers = {"Content-Type": "application/cloudevents+json"}
        event = payload("cloudevents_1_0_structured", model)
        codes = [client.post("/webhooks/cloudevents", json=event | {"id": str(n)}, headers=headers) for n in range(3)]
        assert [c.status_code for c in codes] == [202, 202, 429]
        assert 0 < int(codes[-1].headers["Retry-After"]) <= 60
        other = keys.of("another sender")
        assert client.post("/webhooks/cloudevents", json=event, headers=headers | other).status_code == 202


def test_a_token_in_the_query_is_taken_of_events_alone(anonymous: TestClient, keys: Keys, model: str) -> None:
    token, headers = keys.token("events"), {"Content-Type": "application/cloudevents+json"}
    event = payload("cloudevents_1_0_structured", model)
    assert anonymous.post(f"/webhooks/cloudevents?access_token={token}", json=event, headers=headers).status_code == 202
    assert anonymous.post(f"/webhooks/grafana?access_token={token}", json={}).status_code == 401


# MLflow


def test_a_version_that_got_the_production_alias_is_a_recent_deployment(client: TestClient, world: World, model: str) -> None:
    body = {"severity": "high", "type": "prediction_error", "description": "odd predictions"}
    opened = client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"]
    message = payload("mlflow_model_version_alias_created", model)
    for number in ("one", "one", "two"):
        send(client, "mlflow", message, **{"X-MLflow-Delivery-Id": f"{number}-{model}"})
    send(client, "mlflow", message | {"data": {"name": model, "alias": "shadow", "version": "43"}})
    with world.transaction() as conn:
        found = recent_changes.of_model(conn, model, since=datetime(2026, 9, 14, tzinfo=UTC))
    assert sorted((c.kind, c.ref) for c in found) == [("config", "43"), ("deployment", "42")]
    assert len([t for t in texts(world, opened) if "deployment 42" in t]) == 1


def test_a_prompt_in_the_registry_is_no_change_of_a_model(client: TestClient) -> None:
    received = send(client, "mlflow", {"entity": "prompt", "action": "created", "data": {"name": "a prompt"}})
    assert (received["changes"], received["quarantined"]) == (0, 0)


# A team's own JSON


def test_a_message_of_a_team_s_own_is_read_as_the_policy_says(client: TestClient, world: World, clock: Clock, model: str) -> None:
    message = payload("generic_alert", model)
    first = only(send(client, "generic", message))
    incident = shown(client, first)
    assert (incident["model"], incident["severity"], incident["description"]) == (model, "high", f"accuracy_drop on {model}")
    del message["started_at"]
    clock.pass_(minutes=1)
    assert only(send(client, "generic", message)) == first, "a repeat needs no start"
    assert only(send(client, "generic", message | {"status": "resolved"})) == first
    finish(world, first)
    clock.pass_(minutes=world.policy.recurrence.reopen_within_min + 1)
    assert only(send(client, "generic", message)) != first, "what was resolved and fires again is new"


def test_paths_may_lead_anywhere_into_the_message() -> None:
    fields = GenericMapping(alerts="body.items", model="tags[0].model", name="rule.name", status="state", fingerprint="rule.id")
    item = {"tags": [{"model": "pump"}], "rule": {"name": "AUC low", "id": 7}, "state": "CLOSED"}
    (reading,) = FORMATS["generic"].read(
        Received({"body": {"items": [item, "no alert"]}}, {}, datetime(2026, 3, 2, tzinfo=UTC), IntakePolicy(generic={"default": fields}))
    )
    (alert,) = reading.alerts
    assert (alert.said["model"], alert.title, alert.firing, alert.identity) == ("pump", "AUC low", False, "7")
    assert [one.part["mlrunbook:alerts"] for one in reading.unusable] == [["no alert"]]


# Which model an alert is about


@pytest.mark.parametrize("models", [{"no colon": "pump"}, {"service:x": "no model id!"}])
def test_a_mapping_that_cannot_work_is_refused(models: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="models: "):
        IntakePolicy(models=models)


# Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
SAMPLES = {
    "alertmanager": ("alertmanager_v4_firing", "alertmanager_v4_truncated", "alertmanager_v4_resolved"),
    "grafana": ("grafana_alerting_firing", "grafana_alerting_resolved"),
    "datadog": ("datadog_webhook_triggered", "datadog_webhook_recovered", "datadog_webhook_no_data"),
    "pagerduty": ("pagerduty_v3_incident_acknowledged", "pagerduty_v3_incident_annotated", "pagerduty_change_event_v2"),
    "opsgenie": ("opsgenie_webhook_create", "opsgenie_webhook_acknowledge", "opsgenie_webhook_close"),
    "cloudevents": ("cloudevents_1_0_structured", "cloudevents_1_0_batch"),
    "mlflow": ("mlflow_model_version_alias_created",),
    "generic": ("generic_alert",),
}
LOADED = [(form, json.loads((PAYLOADS / f"{name}.json").read_text())) for form, names in SAMPLES.items() for name in names]


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*at, key))


def _changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    if isinstance(value, dict):
        return {k: _changed(v, at[1:], new) if k == at[0] else v for k, v in value.items()}
    return [_changed(v, at[1:], new) if n == at[0] else v for n, v in enumerate(value)]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any]:
    """A sender's message in which one or two places hold something else."""
    form, message = draw(st.sampled_from(LOADED))
    for _ in range(draw(st.integers(1, 2))):
        message = _changed(message, draw(st.sampled_from(list(_places(message)))), draw(JSON))
    return form, message


def _read(form: str, message: Any, headers: dict[str, str] | None = None) -> None:
    received = Received(message, headers or {}, datetime(2026, 9, 14, 9, tzinfo=UTC), MAPPED)
    for reading in judge_all(FORMATS[form].read(received), Policy(intake=MAPPED), {}, received_at=received.at):
        assert all(one.reason for one in reading.unusable)
        assert reading.truncated >= 0
        json.dumps([a.body for a in reading.alerts] + [dict(c.change.detail) for c in reading.changes], allow_nan=False).encode()
        for alert in reading.alerts:
            assert alert.starts_at.utcoffset() == timedelta(0)
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", alert.model) or not (alert.firing or alert.model)
            assert alert.fingerprint
            shown_text = "".join((alert.name, alert.summary, alert.level, alert.fingerprint, alert.model_version or ""))
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown_text)


@settings(max_examples=250, deadline=None)
@given(damaged())
def test_no_damaged_message_makes_a_normaliser_raise(message: tuple[str, Any]) -> None:
    _read(*message)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), JSON)
def test_no_json_makes_a_normaliser_raise(form: str, message: Any) -> None:
    _read(form, message)
    _read(form, message, {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "t", "ce-subject": "models/pump"})


@pytest.mark.parametrize(("form", "message"), LOADED, ids=[f for f, _ in LOADED])
def test_a_sample_is_wholly_usable(form: str, message: Any) -> None:
    policy = replace(MAPPED, models={"service:fraud-scorer": "fraud-scorer"})
    at = datetime(2026, 9, 14, 9, tzinfo=UTC)
    for reading in judge_all(FORMATS[form].read(Received(message, {}, at, policy)), Policy(intake=policy), {}, received_at=at):
        assert not reading.unusable
        assert reading.alerts or reading.changes or reading.words


def test_a_flood_in_one_message_is_one_thing_to_look_at(client: TestClient, world: World) -> None:
    with world.transaction() as conn:
        before = quarantine.waiting(conn)
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    client.post("/webhooks/cloudevents", content="[" + ",".join(["1"] * 2000) + "]", headers=headers)
    with world.transaction() as conn:
        assert quarantine.waiting(conn) == before + 1


@given(st.one_of(st.floats(), st.integers(), st.text(alphabet="0123456789", min_size=1, max_size=5_000), st.text()))
@example("9" * 400)
@example(float("inf"))
@settings(max_examples=200)
def test_any_time_is_read_or_is_none(said: object) -> None:
    read = time(said)
    assert read is None or read.tzinfo is not None
