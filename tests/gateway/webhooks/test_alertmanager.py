"""Alertmanager's messages, from JSON to incidents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.incident import Status
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks.alertmanager import read
from mlrunbook.gateway.webhooks.judging import judge_all
from mlrunbook.gateway.webhooks.parsing import Received, Unusable
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, timeline
from tests.gateway.conftest import Clock, Keys

STARTED = "2026-03-02T08:15:00.250Z"
NEVER = "0001-01-01T00:00:00Z"


def alert(model: str, name: str = "ModelF1Drop", *, level: str = "critical", starts: str = STARTED, **changes: Any) -> dict[str, Any]:
    labels = {"alertname": name, "severity": level, "model": model, "model_version": "v2.0.0", "site": "north"}
    return {
        "status": "firing",
        "labels": labels | changes.pop("labels", {}),
        "annotations": {"summary": f"{model}: F1 is down by a quarter"},
        "startsAt": starts,
        "endsAt": NEVER,
        "generatorURL": "http://prometheus.example.com/graph",
        "fingerprint": f"{abs(hash((model, name, level))):016x}"[:16],
    } | changes


def message(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As versions before 0.33 send it: without notification_reason."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="ModelF1Drop"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "mlrunbook",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example.com",
        "alerts": list(members),
    } | changes


def send(client: TestClient, *members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = client.post("/webhooks/alertmanager", json=message(*members, **changes))
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def only(received: dict[str, Any]) -> str:
    assert len(received["incidents"]) == 1
    return str(received["incidents"][0])


def shown(client: TestClient, incident_id: str) -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/api/v1/incidents/{incident_id}").json()
    return body


def texts(world: World, incident_id: str) -> list[str]:
    with world.transaction() as conn:
        return [e.text for e in timeline.read(conn, incident_id)]


def finish(world: World, incident_id: str, status: Status = Status.CLOSED) -> None:
    with world.transaction() as conn:
        steps = [status] if status is Status.FALSE_ALARM else [Status.RESOLVED, Status.CLOSED]
        for step in steps:
            incidents.set_status(conn, incident_id, step, why="over", actor="mlrunbook", now=world.now())


def quarantined(world: World) -> list[tuple[bytes, str]]:
    with world.transaction() as conn:
        return [(bytes(r.body), r.error) for r in conn.execute(text("SELECT body, error FROM quarantine ORDER BY id"))]


# Firing


def test_a_firing_alert_opens_an_incident(client: TestClient, world: World, model: str) -> None:
    received = send(client, alert(model), notification_reason="first notification")
    assert (received["accepted"], received["quarantined"]) == (1, 0)
    incident = shown(client, only(received))
    assert incident["type"] == "performance_degradation"
    assert incident["description"] == f"{model}: F1 is down by a quarter"
    assert (incident["modelVersion"], incident["reportedBy"], incident["alertCount"]) == ("v2.0.0", "alertmanager", 1)
    assert (incident["severity"], incident["startedAt"]) == ("high", "2026-03-02T08:15:00.250000Z")


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("critical", "high"),
        ("CRITICAL", "high"),
        ("warning", "medium"),
        ("info", "low"),
        ("none", "low"),
        ("", "medium"),
        ("P1", "high"),
        ("lila", "medium"),
    ],
)
def test_the_level_is_a_first_guess_and_an_unknown_one_still_pages(client: TestClient, model: str, level: str, severity: str) -> None:
    assert shown(client, only(send(client, alert(model, level=level))))["severity"] == severity


@pytest.mark.parametrize(
    ("name", "label", "type_"),
    [
        ("ModelServerDown", "security", "security"),
        ("ModelServerDown", "nonsense", "infrastructure"),
        ("AllAssetsHighRisk", "", "prediction_error"),
        ("OurOwnAlert", "bias_fairness", "bias_fairness"),
        ("OurOwnAlert", "nonsense", "performance_degradation"),
    ],
)
def test_the_type_comes_from_the_label_else_from_policy(client: TestClient, model: str, name: str, label: str, type_: str) -> None:
    received = send(client, alert(model, name, labels={"incident_type": label}))
    assert shown(client, only(received))["type"] == type_


def test_a_group_is_one_incident_for_each_model_and_failure_family(client: TestClient, model: str) -> None:
    other = f"{model}-b"
    received = send(
        client,
        alert(model, "ModelRecallDrop", level="warning", starts="2026-03-02T08:00:00Z"),
        alert(model, "AllAssetsHighRisk", annotations={"description": "everything is flagged"}),
        alert(model, "ModelServerDown"),
        alert(other),
    )
    assert received["accepted"] == 4
    found = {(i["model"], i["family"]): i for i in (shown(client, i) for i in received["incidents"])}
    assert set(found) == {(model, "performance"), (model, "infrastructure"), (other, "performance")}
    worst = found[model, "performance"]
    assert (worst["severity"], worst["type"], worst["alertCount"]) == ("high", "prediction_error", 2)
    assert worst["description"] == "everything is flagged (and 1 more alert)"
    assert worst["startedAt"] == "2026-03-02T08:00:00Z"


@pytest.mark.parametrize("label", ["model_name", "modelId"])
def test_the_model_may_be_named_by_another_label(client: TestClient, model: str, label: str) -> None:
    received = send(client, alert("", labels={label: model}))
    assert shown(client, only(received))["model"] == model


@pytest.mark.parametrize("starts", [NEVER, "1999-12-31T23:59:59Z", "2999-01-01T00:00:00Z"])
def test_an_absurd_start_is_not_believed_but_the_alert_is(client: TestClient, model: str, starts: str) -> None:
    assert shown(client, only(send(client, alert(model, starts=starts))))["startedAt"] is None


def test_an_alert_joins_what_a_person_has_reported(client: TestClient, model: str) -> None:
    body = {"severity": "high", "type": "prediction_error", "description": "odd predictions"}
    reported = client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"]
    assert only(send(client, alert(model))) == reported


# Repeats


def test_a_repeat_is_counted_on_the_same_incident_and_adds_nothing_to_its_timeline(client: TestClient, world: World, model: str) -> None:
    first = only(send(client, alert(model)))
    before = texts(world, first)
    assert only(send(client, alert(model), notification_reason="repeat interval elapsed")) == first
    assert shown(client, first)["alertCount"] == 2
    assert texts(world, first) == before


@pytest.mark.parametrize("over", [Status.CLOSED, Status.FALSE_ALARM])
def test_a_repeat_after_the_incident_is_over_is_counted_and_opens_nothing(
    client: TestClient, world: World, model: str, over: Status
) -> None:
    first = only(send(client, alert(model)))
    finish(world, first, over)
    assert only(send(client, alert(model))) == first
    assert shown(client, first)["alertCount"] == 2


def test_an_alert_that_still_fires_long_after_a_false_alarm_opens_a_new_incident(
    client: TestClient, world: World, clock: Clock, model: str
) -> None:
    """Triage was wrong, or the trouble became real: the same alert keeps its `startsAt` for as long as it fires."""
    doubt = world.policy.triage.doubt_false_alarm_after_min
    first = only(send(client, alert(model)))
    finish(world, first, Status.FALSE_ALARM)
    clock.pass_(minutes=doubt)
    assert only(send(client, alert(model))) == first, "not doubted yet"
    clock.pass_(minutes=1)
    second = only(send(client, alert(model)))
    assert second != first
    assert shown(client, second)["status"] == "detected"
    assert only(send(client, alert(model))) == second, "one new incident, not one for each repeat"
    finish(world, second)
    clock.pass_(minutes=2 * doubt)
    assert only(send(client, alert(model))) == second, "only a false alarm is doubted"


def test_the_alert_starting_anew_opens_a_new_incident(client: TestClient, world: World, model: str, clock: Clock) -> None:
    first = only(send(client, alert(model)))
    finish(world, first)
    clock.pass_(minutes=world.policy.recurrence.reopen_within_min + 1)
    second = only(send(client, alert(model, starts="2026-03-03T08:15:00Z")))
    assert second != first
    assert shown(client, second)["status"] == "detected"


def test_a_fingerprint_used_for_two_models_hides_neither(client: TestClient, model: str) -> None:
    other = f"{model}-b"
    first = only(send(client, alert(model, fingerprint="same")))
    second = only(send(client, alert(other, fingerprint="same")))
    assert shown(client, second)["model"] == other
    assert only(send(client, alert(other, fingerprint="same"))) == second
    assert (shown(client, first)["alertCount"], shown(client, second)["alertCount"]) == (1, 2)


async def test_twelve_at_once_make_one_incident_counted_twelve(world: World, keys: Keys, model: str) -> None:
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=keys.of("alertmanager")) as client:
        answers = await asyncio.gather(*(client.post("/webhooks/alertmanager", json=message(alert(model))) for _ in range(12)))
        assert [a.status_code for a in answers] == [202] * 12
        (incident_id,) = {i for a in answers for i in a.json()["incidents"]}
        assert (await client.get(f"/api/v1/incidents/{incident_id}")).json()["alertCount"] == 12
    with world.transaction() as conn:
        assert len(incidents.find(conn, model=model)) == 1
        assert [row["count"] for row in alerts.of_incident(conn, incident_id)] == [12]


async def test_alerts_and_people_at_once_make_one_incident(world: World, keys: Keys, model: str) -> None:
    body = {"severity": "high", "type": "prediction_error", "description": "odd predictions"}
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=keys.of("everybody")) as client:
        by_alert = [client.post("/webhooks/alertmanager", json=message(alert(model))) for _ in range(4)]
        by_hand = [client.post(f"/api/v1/model-governance/{model}/incidents", json=body) for _ in range(4)]
        answers = await asyncio.gather(*by_alert, *by_hand)
    assert all(a.is_success for a in answers)
    with world.transaction() as conn:
        assert len(incidents.find(conn, model=model)) == 1


# Resolved, truncated


def test_a_resolved_alert_is_noted_once_and_closes_nothing(client: TestClient, world: World, model: str) -> None:
    first = only(send(client, alert(model)))
    over = alert(model, status="resolved", endsAt="2026-03-02T09:00:00Z")
    assert only(send(client, over, status="resolved")) == first
    send(client, over, status="resolved")
    send(client, alert(model))  # late, from the other one of a pair
    send(client, over, status="resolved")
    assert texts(world, first).count(f"Alert resolved: {model}: F1 is down by a quarter") == 1
    incident = shown(client, first)
    assert (incident["status"], incident["alertCount"]) == ("detected", 2)


def test_a_resolved_alert_that_never_fired_here_opens_nothing_and_hides_nothing(client: TestClient, model: str) -> None:
    received = send(client, alert(model, status="resolved"))
    assert (received["accepted"], received["incidents"]) == (1, [])
    first = only(send(client, alert(model)))  # it overtook the firing one
    assert only(send(client, alert(model))) == first


def test_alerts_the_sender_cut_off_are_said_on_the_timeline(client: TestClient, world: World, model: str) -> None:
    first = only(send(client, alert(model), truncatedAlerts=37))
    send(client, alert(model), truncatedAlerts=37)
    send(client, alert(model), truncatedAlerts=1)
    cut = [t for t in texts(world, first) if "cut off" in t]
    assert cut == ["37 further alerts were cut off by the sender", "1 further alert was cut off by the sender"]


# What cannot be used


def test_an_alert_without_a_model_is_quarantined_beside_the_good_ones(client: TestClient, world: World, model: str) -> None:
    nameless = alert(model)
    del nameless["labels"]["model"]
    received = send(client, alert(model), nameless, alert("no model id!"), alert(model, startsAt="yesterday"), alert(model, status="odd"))
    assert (received["accepted"], received["quarantined"]) == (1, 4)
    kept = {kept: reason for kept, reason in quarantined(world)[-4:]}
    assert "names no model" in next(reason for part, reason in kept.items() if json.loads(part) == nameless)


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"\xff\xfe\x00", b"[]", b"null", b"{}", b'{"version": "3", "alerts": []}', b'{"version": "4"}', b"[" * 200_000],
)
def test_an_authenticated_body_that_is_no_message_is_quarantined(client: TestClient, world: World, content: bytes) -> None:
    before = len(quarantined(world))
    answer = client.post("/webhooks/alertmanager", content=content)
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 0, "quarantined": 1, "changes": 0, "incidents": [], "duplicate": False}
    assert len(quarantined(world)) == before + 1


@pytest.mark.parametrize("depth", [100, 500, 900, 960, 980, 990, 1_000, 5_000])
def test_no_depth_of_nesting_is_lost(client: TestClient, depth: int) -> None:
    content = b'{"version": "4", "alerts": [' + b"[" * depth + b"]" * depth + b"]}"
    answer = client.post("/webhooks/alertmanager", content=content)
    assert (answer.status_code, answer.json()["quarantined"]) == (202, 1)


def test_odd_text_in_an_alert_is_stored_without_what_breaks_a_store_or_a_terminal(client: TestClient, model: str) -> None:
    odd = alert(model, annotations={"summary": "a\x00b\x1b[2J\ud800c", "n": 1e999, "deep": {"x": []}}, labels={"k\x00": None, "n": 5})
    answer = client.post("/webhooks/alertmanager", content=json.dumps(message(odd)))
    assert answer.status_code == 202
    assert shown(client, only(answer.json()))["description"] == "ab[2Jc"


def test_an_empty_group_is_accepted(client: TestClient) -> None:
    assert send(client) == {"accepted": 0, "quarantined": 0, "changes": 0, "incidents": [], "duplicate": False}


def test_nothing_of_a_message_is_stored_when_part_of_it_cannot_be(client: TestClient, world: World, model: str) -> None:
    name = f"no_{model}"
    with world.transaction() as conn:
        conn.execute(text(f"ALTER TABLE alerts ADD CONSTRAINT {name} CHECK (fingerprint <> '{name}')"))
    try:
        body = message(alert(model), alert(f"{model}-b", fingerprint=name))
        assert client.post("/webhooks/alertmanager", json=body).status_code == 500
    finally:
        with world.transaction() as conn:
            conn.execute(text(f"ALTER TABLE alerts DROP CONSTRAINT {name}"))
    with world.transaction() as conn:
        assert incidents.find(conn, model=model) == []


# The normaliser alone


def normalise(payload: Any) -> tuple[Sequence[NormalisedAlert], Sequence[Unusable], int]:
    at = datetime(2026, 3, 2, 9, tzinfo=UTC)
    (reading,) = judge_all(read(Received(payload, {}, at, IntakePolicy())), Policy(), {}, received_at=at)
    return reading.alerts, reading.unusable, reading.truncated


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
ALERT = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["firing", "resolved", "pending"]) | JSON,
        "labels": st.dictionaries(
            st.sampled_from(["alertname", "severity", "model", "model_name", "modelId", "model_version", "incident_type"]),
            st.sampled_from(["pump", "critical", ""]) | JSON,
        )
        | JSON,
        "annotations": st.dictionaries(st.sampled_from(["summary", "description"]), JSON) | JSON,
        "startsAt": st.datetimes(min_value=datetime(1, 1, 1), timezones=st.sampled_from([UTC, None])).map(lambda d: d.isoformat())  # noqa: DTZ001
        | st.sampled_from([NEVER, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
        | JSON,
        "fingerprint": JSON,
        "generatorURL": JSON,
    },
)
MESSAGE = st.fixed_dictionaries({"version": st.just("4"), "alerts": st.lists(ALERT | JSON, max_size=5)}, optional={"truncatedAlerts": JSON})


@settings(max_examples=150, deadline=None)
@given(JSON | MESSAGE)
def test_the_normaliser_never_raises_on_any_json(payload: Any) -> None:
    usable, unusable, truncated = normalise(payload)
    assert truncated >= 0
    for one in unusable:
        assert one.reason
    json.dumps([one.body for one in usable], allow_nan=False).encode()


@settings(max_examples=150, deadline=None)
@given(MESSAGE)
def test_each_alert_ends_in_exactly_one_of_the_two_lists(payload: dict[str, Any]) -> None:
    usable, unusable, _ = normalise(payload)
    assert len(usable) + len(unusable) == len(payload["alerts"])
    assert all(any(u.part is part for part in payload["alerts"]) for u in unusable)


@settings(max_examples=100, deadline=None)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001
    st.sampled_from(["firing", "resolved"]),
)
def test_an_alert_with_a_model_a_start_and_a_status_is_always_usable(model: str, start: datetime, status: str) -> None:
    part = {"labels": {"model": model}, "startsAt": start.isoformat() + "Z", "status": status}
    (found,), unusable, _ = normalise({"version": "4", "alerts": [part]})
    assert isinstance(found, NormalisedAlert)
    assert not unusable
    assert (found.model, found.starts_at, found.firing) == (model, start.replace(tzinfo=UTC), status == "firing")
    assert found.starts_at.utcoffset() == timedelta(0)
    assert found.fingerprint
