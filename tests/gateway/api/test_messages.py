"""The messages of an incident: as they came, how each was read, and nothing of them obeyed or given away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.blackout import BLACKED_OUT
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import timeline
from tests.gateway.conftest import Clock, Keys

SECRET = "hunter2-hunter2"
HOSTILE = "\x1b[31mred <script>alert(1)</script> </pre></details> \" ' {{ 31337*31 }} \u202e"


def take(client: TestClient, form: str, message: Any) -> str:
    answer = client.post(f"/webhooks/{form}", content=json.dumps(message), headers={"Content-Type": samples.content_type(form)})
    (incident_id,) = answer.json()["incidents"]
    return str(incident_id)


def fired(model: str, **more: Any) -> dict[str, Any]:
    labels = {"alertname": "ModelF1Drop", "severity": "page", "model": model} | more.pop("labels", {})
    return {"version": "4", "alerts": [{"status": "firing", "startsAt": "2026-03-02T09:00:00Z", "labels": labels, **more}]}


def messages(client: TestClient, incident_id: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/api/v1/incidents/{incident_id}/messages", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def page(client: TestClient, incident_id: str) -> str:
    answer = client.get(f"/api/v1/incidents/{incident_id}/messages.html")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"mlflow"}))
def test_each_format_shows_its_message_and_what_decided_every_step(client: TestClient, clock: Clock, model: str, form: str) -> None:
    sent = samples.sample(form, model, now=clock(), firing=True, summary="F1 fell to 0.6")
    (one,) = messages(client, take(client, form, sent))["messages"]
    assert set(one["read"]) == {"model", "type", "level", "state", "identity"}
    assert all(one["read"].values())
    kept = json.loads(one["message"])
    assert kept in (sent, sent.get("alerts", [None])[0] if isinstance(sent, dict) else None)


def test_the_opening_says_how_the_alert_was_read(client: TestClient, world: World, model: str) -> None:
    incident_id = take(client, "alertmanager", fired(model))
    with world.transaction() as conn:
        opening = timeline.read(conn, incident_id)[0].text
    (one,) = messages(client, incident_id)["messages"]
    for step in ("model", "type", "level"):
        assert one["read"][step] in opening, "the very sentence that is kept with the alert"
    assert "critical" in opening
    assert "ModelF1Drop" in opening
    assert "\n" not in opening


def test_hostile_text_is_shown_as_text(client: TestClient, model: str) -> None:
    incident_id = take(client, "alertmanager", fired(model, annotations={"summary": HOSTILE, HOSTILE: "x"}, labels={HOSTILE: HOSTILE}))
    html = page(client, incident_id)
    assert "<script>" not in html
    assert "971447" not in html
    assert "&lt;script&gt;" in html
    assert not {"\x1b", "\u202e"} & set(html)
    assert "\x1b" not in messages(client, incident_id)["messages"][0]["message"]


@pytest.mark.parametrize("more", [0, 3_000, 30_000], ids=["short", "long", "cut"])
def test_no_secret_of_a_message_is_shown(client: TestClient, keys: Keys, model: str, more: int) -> None:
    token = keys.token("somebody", Scope.ALERTS)
    url = f"https://ann:{SECRET}@example.com/?access_token={SECRET}"
    labels = {"api_key": SECRET, "note": f"Bearer {SECRET}", "runbook": url}
    said = {"summary": f"post with {token}", "Authorization": f"Basic {SECRET}", "settings": json.dumps({"password": SECRET})}
    nested = {"credentials": {"a": [SECRET]}, "list": [{"cookie": SECRET}]}
    sent = fired(model, labels=labels, annotations=said | {"more": "x" * more}, generatorURL=url, nested=nested)
    incident_id = take(client, "alertmanager", sent)
    shown = json.dumps(messages(client, incident_id)) + page(client, incident_id)
    assert SECRET not in shown
    assert token not in shown
    assert BLACKED_OUT in shown


def test_the_page_has_the_whole_of_a_message_and_keeps_it_folded(client: TestClient, model: str) -> None:
    html = page(client, take(client, "alertmanager", fired(model, annotations={"summary": "F1 fell " * 200 + "at last"})))
    folded = html.partition("As it came")[2]
    assert "at last" in folded
    assert "<details open" not in html


def test_what_is_very_long_is_cut(client: TestClient, model: str) -> None:
    labels = {f"label_{n}": "x" * 3_000 for n in range(200)}
    found = messages(client, take(client, "alertmanager", fired(model, labels=labels, annotations={"summary": "y" * 100_000})))
    assert found["messages"][0]["leftOut"] > 100
    assert len(json.dumps(found)) < 60_000


def test_many_messages_come_in_pages(client: TestClient, model: str) -> None:
    storm = fired(model)
    storm["alerts"] = [storm["alerts"][0] | {"fingerprint": f"{n:016x}"} for n in range(5)]
    incident_id = take(client, "alertmanager", storm)
    first = messages(client, incident_id, limit=3)
    rest = messages(client, incident_id, limit=3, after=first["after"])
    assert [len(first["messages"]), len(rest["messages"]), rest["after"]] == [3, 2, None]
    assert f"messages.html?after={first['after']}" in client.get(f"/api/v1/incidents/{incident_id}/messages.html?limit=3").text


def test_a_reported_incident_has_none_and_a_stranger_sees_none(client: TestClient, anonymous: TestClient, keys: Keys, model: str) -> None:
    said = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}
    incident_id = client.post(f"/api/v1/model-governance/{model}/incidents", json=said).json()["id"]
    assert messages(client, incident_id) == {"messages": [], "after": None}
    assert "a person" in page(client, incident_id)
    for path in ("messages", "messages.html"):
        assert anonymous.get(f"/api/v1/incidents/{incident_id}/{path}").status_code == 401
        assert anonymous.get(f"/api/v1/incidents/{incident_id}/{path}", headers=keys.of("a sender", Scope.ALERTS)).status_code == 403
        assert client.get(f"/api/v1/incidents/incident_999999/{path}").status_code == 404
