"""Names of people come from outside: what could deceive is refused with the field; a person is one by any token."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Status
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.gateway.api.test_incidents import opened, say
from tests.gateway.conftest import Clock, Keys
from tests.gateway.webhooks.test_proofs import SECRET, acknowledgement, signed

UNSEEN = ("Ann\u200b", "Ann\u202e", "\u3164", "Ann\ufe0f", "A\u034fnn", "Ann\U000e0041", "An\u00adn")
DECEPTIVE = (*UNSEEN, "\u0410nn", "-", "the 1ead", "The lеаd")
REPORT = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}


def _report(client: TestClient, model: str, name: str) -> Any:
    return client.post(f"/api/v1/model-governance/{model}/incidents", json={**REPORT, "reportedBy": name})


def _hand_over(client: TestClient, model: str, name: str) -> Any:
    return client.post(f"/api/v1/incidents/{opened(client, model)}/handover", json={"role": "incident_commander", "to": name})


def _own(client: TestClient, model: str, name: str) -> Any:
    item = {"action": "look at it", "owner": name, "dueOn": "2099-01-01"}
    return client.post(f"/api/v1/incidents/{opened(client, model)}/actions", json=item)


@pytest.mark.parametrize(("door", "field"), [(_report, "reportedBy"), (_hand_over, "to"), (_own, "owner")])
@pytest.mark.parametrize("name", DECEPTIVE)
def test_a_deceptive_name_is_refused_with_its_field(
    client: TestClient, model: str, name: str, door: Callable[[TestClient, str, str], Any], field: str
) -> None:
    answer = door(client, model, name)
    assert answer.status_code == 422, answer.text
    assert field in answer.text
    assert door(client, f"{model}_2", "José O’Neill-Åberg").status_code < 300


@pytest.mark.parametrize("name", [*DECEPTIVE, "THE IEAD"])
def test_no_token_is_made_for_a_name_that_could_be_taken_for_another(client: TestClient, keys: Keys, name: str) -> None:
    with pytest.raises(Invalid, match=r"^name: "):
        keys.token(name, Scope.APPROVE)


@pytest.mark.parametrize(("name", "booked"), [*((name, "somebody") for name in UNSEEN), ("", "somebody"), ("Kim Lee", "Kim Lee")])
def test_whoever_acknowledges_elsewhere_is_heard_whatever_their_name_is(
    client: TestClient, clock: Clock, model: str, monkeypatch: pytest.MonkeyPatch, name: str, booked: str
) -> None:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_PAGERDUTY", SECRET)
    incident_id = opened(client, model)
    body = acknowledgement("pagerduty", incident_id, by=name)
    told = client.post("/webhooks/pagerduty", content=json.dumps(body), headers=signed("pagerduty", body, clock))
    assert told.status_code == 202, told.text
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["acknowledgedBy"] == f"{booked} in PagerDuty"


def test_nobody_approves_their_own_review_with_a_second_token(client: TestClient, world: World, keys: Keys, model: str) -> None:
    def of(name: str, role: str) -> dict[str, str]:
        with world.transaction() as conn:
            return {"Authorization": f"Bearer {tokens.create(conn, name=name, scopes=tuple(Scope), role=role, person='kim')}"}

    incident_id = opened(client, model)
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.RESOLVED, why="F1 is back", actor="test", now=world.now())
    assert say(client, incident_id, "close").status_code == 200
    path = f"/api/v1/incidents/{incident_id}/review/signatures"
    assert client.post(path, json={"part": "reviewed"}, headers=of("Kim Lee", "ml_team_lead")).status_code == 201
    refused = client.post(path, json={"part": "approved"}, headers=of("K. Lee", "engineering_manager"))
    assert refused.status_code == 409
    assert client.post(path, json={"part": "approved"}, headers=keys.of("the other", role="engineering_manager")).status_code == 201
