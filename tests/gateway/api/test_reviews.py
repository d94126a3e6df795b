"""Step 6 over HTTP: reviewed by one, approved by another, and action items until they are done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import Status
from mlrunbook.domain.records import Record
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, records, timeline
from tests.gateway.api.test_incidents import opened, say
from tests.gateway.conftest import Clock, Keys

TICKETS, CHANNEL = "tickets", "incidents"


@pytest.fixture
def reviewable(client: TestClient, world: World, model: str) -> str:
    """A closed high incident with its drafted review."""
    incident_id = opened(client, model)
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.RESOLVED, why="F1 is back", actor="test", now=world.now())
    assert say(client, incident_id, "close").status_code == 200
    return incident_id


@pytest.fixture
def manager(keys: Keys) -> dict[str, str]:
    return keys.of("the manager", role="engineering_manager")


def sign(client: TestClient, incident_id: str, part: str, headers: Mapping[str, str] | None = None) -> Any:
    return client.post(f"/api/v1/incidents/{incident_id}/review/signatures", json={"part": part}, headers=headers)


def review(client: TestClient, incident_id: str) -> str:
    answer = client.get(f"/api/v1/incidents/{incident_id}/review")
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def items_of(client: TestClient, incident_id: str) -> list[dict[str, Any]]:
    listed = client.get("/api/v1/actions", params={"all": True, "limit": 1000}).json()["items"]
    return [i for i in listed if i["incidentId"] == incident_id]


def told(world: World, incident_id: str) -> list[str]:
    with world.transaction() as conn:
        return [
            m["payload"]["channel"] for m in outbox.of_incident(conn, incident_id, "message") if "Action item" in m["payload"]["subject"]
        ]


def test_the_lead_reviews_and_the_manager_approves(client: TestClient, world: World, reviewable: str, manager: dict[str, str]) -> None:
    assert sign(client, reviewable, "reviewed").status_code == 201
    assert sign(client, reviewable, "approved", manager).status_code == 201
    text = review(client, reviewable)
    assert "- **Reviewed By:** the lead (ML Team Lead), " in text
    assert "- **Approved By:** the manager (Engineering Manager), " in text
    with world.transaction() as conn:
        assert records.get(conn, reviewable, Record.APPROVED)
        said = [e.text for e in timeline.read(conn, reviewable) if e.kind == "review"]
    assert said[-2:] == ["Review reviewed by the lead (ML Team Lead)", "Review approved by the manager (Engineering Manager)"]


def test_signing_twice_changes_nothing(client: TestClient, world: World, reviewable: str) -> None:
    sign(client, reviewable, "reviewed")
    before = review(client, reviewable)
    assert sign(client, reviewable, "reviewed").status_code == 201
    assert review(client, reviewable) == before


def test_nobody_approves_before_it_is_reviewed_nor_their_own_review(client: TestClient, reviewable: str, manager: dict[str, str]) -> None:
    early = sign(client, reviewable, "approved", manager)
    assert (early.status_code, "nobody has reviewed it" in early.json()["detail"]) == (409, True)
    assert sign(client, reviewable, "reviewed", manager).status_code == 201
    own = sign(client, reviewable, "approved", manager)
    assert (own.status_code, "somebody else must approve" in own.json()["detail"]) == (409, True)


def test_a_signature_needs_the_role_and_the_scope(client: TestClient, keys: Keys, reviewable: str) -> None:
    assert sign(client, reviewable, "reviewed", keys.of("on call", role="oncall_ml_engineer")).status_code == 409
    assert sign(client, reviewable, "reviewed", keys.of("reader", Scope.READ, role="ml_team_lead")).status_code == 403


def test_people_mend_the_draft_and_it_must_be_signed_again(client: TestClient, reviewable: str) -> None:
    sign(client, reviewable, "reviewed")
    path = f"/api/v1/incidents/{reviewable}/review"
    mended = review(client, reviewable).replace("To be answered in the review meeting", "Nobody compared the label maps")
    assert client.post(path, json={"markdown": mended}).status_code == 200
    text = review(client, reviewable)
    assert "Nobody compared the label maps" in text
    assert "- **Reviewed By:** [ML Team Lead]" in text
    refused = client.post(path, json={"markdown": "lost the heading"})
    assert (refused.status_code, refused.json()["field"]) == (422, "markdown")


def test_an_open_incident_has_no_review_to_sign(client: TestClient, model: str) -> None:
    answer = sign(client, opened(client, model), "reviewed")
    assert (answer.status_code, "not drafted" in answer.json()["detail"]) == (404, True)


def test_an_item_is_done_once_and_the_review_shows_it(client: TestClient, world: World, reviewable: str) -> None:
    item = items_of(client, reviewable)[0]
    for _ in range(2):
        moved = client.post(f"/api/v1/actions/{item['id']}", json={"status": "done", "note": "alert added"})
        assert (moved.status_code, moved.json()["endedBy"]) == (200, "the lead")
    assert f"| {item['action']} | " in review(client, reviewable)
    assert "| Done |" in review(client, reviewable)
    with world.transaction() as conn:
        said = [e.text for e in timeline.read(conn, reviewable) if e.kind == "todo" and "is done" in e.text]
    assert said == [f"Action item {item['id']} is done: {item['action']} (alert added)"]


def test_the_meeting_adds_an_item_once(client: TestClient, reviewable: str) -> None:
    body = {"action": "Compare label maps in CI", "owner": "ml_team_lead", "dueOn": "2030-01-31"}
    path = f"/api/v1/incidents/{reviewable}/actions"
    made = client.post(path, json=body)
    assert (made.status_code, made.json()["dueAt"][:16]) == (201, "2030-01-31T23:59")
    assert client.post(path, json=body).status_code == 409
    assert "| Compare label maps in CI | ML Team Lead | 2030-01-31 | Not Started |" in review(client, reviewable)


def test_an_item_that_is_not_there_is_not_found(client: TestClient) -> None:
    assert client.post("/api/v1/actions/999999999", json={"status": "done"}).status_code == 404


def test_reminders_go_out_until_the_item_is_done(client: TestClient, world: World, clock: Clock, model: str) -> None:
    incident_id = opened(client, model, severity="low")
    assert say(client, incident_id, "close", {"reason": "a typo in the docs"}).status_code == 200
    for item in items_of(client, incident_id):  # only one is left to be told of
        client.post(f"/api/v1/actions/{item['id']}", json={"status": "dropped", "note": "not for a typo"})
    day = (clock.at + timedelta(days=10)).date()
    made = client.post(f"/api/v1/incidents/{incident_id}/actions", json={"action": "Mend it", "owner": "docs", "dueOn": str(day)}).json()
    timers = Dispatcher(world)
    for days, so_far in ((7, []), (2, [TICKETS]), (2, [TICKETS, TICKETS, CHANNEL]), (7, [TICKETS] * 3 + [CHANNEL] * 2)):
        clock.pass_(days=days)
        _timers_only(timers, world)
        assert sorted(told(world, incident_id)) == sorted(so_far), days
    overdue = client.get("/api/v1/actions", params={"overdue": True}).json()["items"]
    assert made["id"] in [i["id"] for i in overdue]
    client.post(f"/api/v1/actions/{made['id']}", json={"status": "done"})
    clock.pass_(days=30)
    _timers_only(timers, world)
    assert len(told(world, incident_id)) == 5


def _timers_only(dispatcher: Dispatcher, world: World) -> None:
    """Everything but the reminders is left where it is: nothing stands behind the other ports here."""
    with world.transaction() as conn:
        due = outbox.claim(conn, kinds=("action_item",), now=world.now(), limit=1000)
    for item in due:
        dispatcher._try(item)
