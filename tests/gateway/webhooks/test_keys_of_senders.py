"""What a sender calls its own (delivery numbers, fingerprints) counts among its own alone; what is known stays known over the upgrade."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.incident import Status
from mlrunbook.domain.policy.intake import SENDERS
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents
from tests.gateway.conftest import Clock, Keys

STARTED = "2026-03-02T08:45:00Z"
CLOUD = "application/cloudevents+json"


def send(client: TestClient, form: str, body: Any, who: dict[str, str]) -> dict[str, Any]:
    headers = who | {"Content-Type": CLOUD if form == "cloudevents" else "application/json"}
    answer = client.post(f"/webhooks/{form}", content=json.dumps(body), headers=headers)
    assert answer.status_code == 202, answer.text
    received: dict[str, Any] = answer.json()
    return received


def event(model: str, source: str, number: str, type_: str = "Drop") -> dict[str, Any]:
    return {"specversion": "1.0", "id": number, "source": source, "type": type_, "time": STARTED, "data": {"model": model}}


def incident_of_pagerduty(model: str, number: str, kind: str, name: str) -> dict[str, Any]:
    data = {"id": name, "created_at": STARTED, "title": "F1 fell", "custom_fields": [{"name": "model", "value": model}]}
    return {"event": {"id": number, "event_type": kind, "data": data}}


def alert(model: str, status: str = "firing", fingerprint: str = "f") -> dict[str, Any]:
    member = {"status": status, "labels": {"model": model}, "startsAt": STARTED, "fingerprint": f"{fingerprint}-{model}"}
    return {"version": "4", "alerts": [member]}


# (what an intruder sends first, what the true sender sends)
SAME_NUMBER: dict[str, Callable[[str], tuple[str, Any, Any]]] = {
    "the same number": lambda m: ("cloudevents", event(m, f"/{m}", "42", "x.resolved"), event(m, f"/{m}", "42")),
    "numbers that read the same": lambda m: ("cloudevents", event(m, f"/{m} b", "c", "x.resolved"), event(m, f"/{m}", "b c")),
    "numbers that begin the same": lambda m: (
        "cloudevents",
        event(m, f"/{m}" + "s" * 400, "1", "x.resolved"),
        event(m, f"/{m}" + "s" * 400, "2"),
    ),
    "the same alert, ended": lambda m: ("cloudevents", event(m, f"/{m}", "42", "Drop.resolved"), event(m, f"/{m}", "42")),
    "the same number of PagerDuty": lambda m: (
        "pagerduty",
        incident_of_pagerduty(m, f"e{m}", "incident.resolved", "P0"),
        incident_of_pagerduty(m, f"e{m}", "incident.triggered", "P1"),
    ),
    "the same fingerprint": lambda m: ("alertmanager", alert(m, "resolved"), alert(m)),
}


@pytest.mark.parametrize("how", sorted(SAME_NUMBER))
def test_no_sender_can_use_up_the_key_of_another(client: TestClient, world: World, keys: Keys, model: str, how: str) -> None:
    form, first, true = SAME_NUMBER[how](model)
    send(client, form, first, keys.of("an intruder"))
    received = send(client, form, true, keys.of("the fleet"))
    assert (received["duplicate"], len(received["incidents"])) == (False, 1)
    assert send(client, form, true, keys.of("the fleet"))["incidents"] == received["incidents"], "the same again is known"
    with world.transaction() as conn:
        assert len(incidents.find(conn, model=model)) == 1


def test_a_false_alarm_of_one_sender_says_nothing_about_the_same_fingerprint_of_another(
    client: TestClient, world: World, keys: Keys, model: str
) -> None:
    (first,) = send(client, "alertmanager", alert(model), keys.of("an intruder"))["incidents"]
    with world.transaction() as conn:
        incidents.set_status(conn, first, Status.FALSE_ALARM, why="nothing", actor="the lead", now=world.now())
    (second,) = send(client, "alertmanager", alert(model), keys.of("the fleet"))["incidents"]
    assert second != first


# Over the upgrade


@pytest.fixture
def as_before(world: World, model: str) -> Callable[[], None]:
    """What was stored becomes as it was stored before senders were told apart."""

    def age() -> None:
        with world.transaction() as conn:
            for row in conn.execute(text("SELECT id, source, fingerprint FROM alerts WHERE body::text LIKE :m"), {"m": f"%{model}%"}).all():
                old = {"id": row.id, "key": alerts.key_of(row.source, row.fingerprint)}
                conn.execute(text("UPDATE alerts SET sender = '', key = :key WHERE id = :id"), old)

    return age


def test_an_alert_that_was_firing_before_the_upgrade_is_the_same_alert_after_it(
    client: TestClient, world: World, keys: Keys, model: str, as_before: Callable[[], None]
) -> None:
    who = keys.of("the fleet")
    (first,) = send(client, "alertmanager", alert(model), who)["incidents"]
    as_before()
    assert send(client, "alertmanager", alert(model), who)["incidents"] == [first]
    with world.transaction() as conn:
        for step in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, first, step, why="over", actor="mlrunbook", now=world.now())
    assert send(client, "alertmanager", alert(model), who)["incidents"] == [first], "a repeat opens nothing again"
    assert send(client, "alertmanager", alert(model, "resolved"), who)["incidents"] == [first]
    with world.transaction() as conn:
        (row,) = alerts.of_incident(conn, first)
        assert (row["count"], row["status"]) == (4, "resolved")
        assert len(incidents.find(conn, model=model)) == 1


def test_one_without_a_start_goes_on_too_and_begins_anew_after_its_end(
    client: TestClient, world: World, clock: Clock, keys: Keys, model: str, as_before: Callable[[], None]
) -> None:
    who = keys.of("the fleet")

    def told(status: str) -> list[str]:
        body = {"model": model, "kind": "Drop", "status": status}
        found: list[str] = send(client, "generic", body, who)["incidents"]
        return found

    (first,) = told("firing")
    as_before()
    with world.transaction() as conn:
        for step in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, first, step, why="over", actor="mlrunbook", now=world.now())
    clock.pass_(hours=2)
    assert told("firing") == [first]
    assert told("resolved") == [first]
    clock.pass_(days=30)
    assert told("firing") != [first]


@pytest.mark.parametrize("is_the_same", [True, False])
def test_a_number_that_was_kept_before_the_upgrade_repeats_its_own_delivery_alone(
    client: TestClient, world: World, keys: Keys, model: str, as_before: Callable[[], None], is_the_same: bool
) -> None:
    who, source = keys.of("the fleet"), f"/{model}"
    send(client, "cloudevents", event(model, source, "42", "Drop" if is_the_same else "x.resolved"), keys.of("whoever"))
    with world.transaction() as conn:
        number = conn.execute(text("SELECT id FROM deliveries ORDER BY received_at DESC, xmin::text::bigint DESC LIMIT 1")).scalar_one()
        conn.execute(text("UPDATE deliveries SET id = :plain WHERE id = :id"), {"plain": f"{source} 42", "id": number})
    as_before()
    received = send(client, "cloudevents", event(model, source, "42"), who)
    assert received["duplicate"] is is_the_same
    assert len(received["incidents"]) == 1
    with world.transaction() as conn:
        assert len(incidents.find(conn, model=model)) == 1


NAMES = st.one_of(st.sampled_from([*SENDERS, *(f"token:{one}" for one in SENDERS), *(f"{one}/x" for one in SENDERS)]), st.text(min_size=1))


@given(st.lists(st.tuples(NAMES, st.booleans()), unique=True))
def test_a_token_and_a_secret_never_share_a_key_whatever_the_token_is_called(senders: list[tuple[str, bool]]) -> None:
    alert = frozenset({Scope.ALERTS})
    whole = [Identity("", name, None, alert, secret="a header#1" if by_secret else "") for name, by_secret in senders]
    of_formats = [one for one in whole if not one.secret or one.name.partition("/")[0] in SENDERS]
    assert len({one.key for one in of_formats}) == len(of_formats)


@pytest.mark.parametrize("form", ["pagerduty", "grafana"])
def test_a_token_named_like_a_format_shares_nothing_with_who_knows_the_secret_of_that_format(
    anonymous: TestClient, keys: Keys, model: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MLRUNBOOK_WEBHOOK_SECRET_{form.upper()}", "known to the format")
    body = incident_of_pagerduty(model, f"e{model}", "incident.triggered", "P1") if form == "pagerduty" else alert(model)
    first = incident_of_pagerduty(model, f"e{model}", "incident.resolved", "P1") if form == "pagerduty" else alert(model, "resolved")
    first, body = ({**one, "version": "1"} if form == "grafana" else one for one in (first, body))
    send(anonymous, form, first, keys.of(form, Scope.ALERTS))
    raw = json.dumps(body).encode()
    headers = samples.proof(form, "known to the format", raw, datetime.now(UTC)) | {"Content-Type": "application/json"}
    answer = anonymous.post(f"/webhooks/{form}", content=raw, headers=headers)
    assert (answer.status_code, answer.json()["duplicate"], len(answer.json()["incidents"])) == (202, False, 1)
