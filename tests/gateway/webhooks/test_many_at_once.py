"""Much in one message, and many such messages: all of it is stored, in bounded time, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, text

from mlrunbook.domain.policy.intake import GenericMapping, IntakePolicy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import cloudevents, ingest
from mlrunbook.gateway.webhooks.judging import judge_all
from mlrunbook.gateway.webhooks.parsing import MAX_LABELS, MAX_PARTS, Reading, Received
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, quarantine, timeline
from tests.gateway.conftest import Keys

STARTED = "2026-03-02T08:45:00Z"
Part = Callable[[int, str], dict[str, Any]]


def alert(number: int, model: str, status: str = "firing") -> dict[str, Any]:
    return {"status": status, "labels": {"model": model, "pump": str(number)}, "startsAt": STARTED}


def event(number: int, model: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{model}-{number}",
        "source": "/pumps",
        "type": "Drop",
        "subject": str(number),
        "data": {"model": model},
    }


def own(number: int, model: str) -> dict[str, Any]:
    return {"model": model, "kind": "Drop", "dedup_key": f"{model}-{number}", "status": "firing"}


# How each format with parts writes a message of them, one part, and how many are read.
MANY: dict[str, tuple[Callable[[list[Any]], Any], Part, int]] = {
    "alertmanager": (lambda parts: {"version": "4", "alerts": parts}, alert, MAX_PARTS),
    "grafana": (lambda parts: {"version": "1", "alerts": parts}, alert, MAX_PARTS),
    "cloudevents": (lambda parts: parts, event, cloudevents.MAX_EVENTS),
    "generic": (lambda parts: {"all": parts}, own, MAX_PARTS),
}


def post(client: TestClient, form: str, body: Any) -> tuple[dict[str, Any], float]:
    content = "application/cloudevents-batch+json" if form == "cloudevents" else "application/json"
    begun = time.monotonic()
    answer = client.post(f"/webhooks/{form}", content=json.dumps(body), headers={"Content-Type": content})
    assert answer.status_code == 202, answer.text
    received: dict[str, Any] = answer.json()
    return received, time.monotonic() - begun


def storm(model: str, count: int, status: str = "firing") -> dict[str, Any]:
    return {"version": "4", "alerts": [alert(n, model, status) for n in range(count)]}


def waiting(world: World) -> int:
    with world.transaction() as conn:
        return quarantine.waiting(conn)


def test_ten_thousand_alerts_in_one_message_are_one_incident_within_seconds(client: TestClient, world: World, model: str) -> None:
    received, took_s = post(client, "alertmanager", storm(model, 10_000))
    assert (received["accepted"], len(received["incidents"])) == (10_000, 1)
    again, again_s = post(client, "alertmanager", storm(model, 10_000))
    assert (again["accepted"], again["incidents"]) == (10_000, received["incidents"])
    assert max(took_s, again_s) < 30, "5 s on a machine of its own"
    with world.transaction() as conn:
        (incident,) = incidents.find(conn, model=model)
        assert incident.alert_count == 20_000
        kept = alerts.of_incident(conn, incident.id)
    assert len(kept) == 10_000
    assert {row["count"] for row in kept} == {2}


def test_what_ends_at_once_is_said_once_and_four_times_as_much_takes_no_more_than_in_proportion(
    client: TestClient, world: World, model: str
) -> None:
    (incident_id,) = post(client, "alertmanager", storm(model, 2_500))[0]["incidents"]
    few = min(post(client, "alertmanager", storm(model, 500, "resolved"))[1] for _ in range(2))
    many = min(post(client, "alertmanager", storm(model, 2_500, "resolved"))[1] for _ in range(2))
    assert many < 5 * few * 4, "linear, with room for a busy machine"
    with world.transaction() as conn:
        said = [e.text for e in timeline.of_kind(conn, incident_id, "alert")]
        assert {row["status"] for row in alerts.of_incident(conn, incident_id)} == {"resolved"}
    assert sum(int(words.split()[0]) for words in said) == 2_500, "each end is counted once"
    assert len(said) <= 4


@pytest.mark.parametrize("form", sorted(MANY))
def test_no_format_reads_more_parts_than_its_limit_and_the_rest_is_a_message_again(form: str) -> None:
    write, part, limit = MANY[form]
    policy = IntakePolicy(generic={"default": GenericMapping(alerts="all")})

    def read(payload: Any) -> list[Reading]:
        return FORMATS[form].read(Received(payload, {}, datetime(2026, 3, 2, 9, tzinfo=UTC), policy))

    readings = read(write([part(n, "pump") for n in range(limit + 3)]))
    assert sum(len(reading.alerts) for reading in readings) == limit
    (rest,) = [one for reading in readings for one in reading.unusable]
    assert sum(len(reading.alerts) for reading in read(FORMATS[form].whole(rest.part))) == 3


def test_what_is_over_the_limit_waits_in_the_quarantine_and_is_replayed(client: TestClient, world: World, model: str) -> None:
    before, limit = waiting(world), cloudevents.MAX_EVENTS
    received, _ = post(client, "cloudevents", [event(n, model) for n in range(limit + 2)])
    assert (received["accepted"], received["quarantined"], waiting(world)) == (limit, 1, before + 1)
    (kept,) = client.get("/api/v1/quarantine", params={"limit": 1}).json()["quarantined"]
    receipt = client.post(f"/api/v1/quarantine/{kept['number']}/replay").json()
    assert (receipt["accepted"], receipt["incidents"], waiting(world)) == (2, received["incidents"], before)


def test_of_what_waits_together_a_replay_takes_what_can_be_used_and_the_rest_waits_on(client: TestClient, world: World, model: str) -> None:
    with world.transaction() as conn:
        body = json.dumps({"version": "4", "alerts": [alert(1, model), {"labels": {}}, alert(2, model)]}).encode()
        number = quarantine.keep(conn, quarantine.Message("alertmanager", body, "too many"), now=world.now())
    before = waiting(world)
    receipt = client.post(f"/api/v1/quarantine/{number}/replay").json()
    assert (receipt["accepted"], receipt["quarantined"], len(receipt["incidents"]), waiting(world)) == (2, 1, 1, before)


@pytest.mark.parametrize("form", sorted(MANY.keys() - {"generic"}))
def test_a_flood_of_parts_that_are_nothing_is_a_few_things_to_look_at(client: TestClient, world: World, form: str) -> None:
    before = waiting(world)
    received, took_s = post(client, form, MANY[form][0]([1] * 60_000))
    assert received["accepted"] == 0
    assert before < waiting(world) <= before + 2
    assert took_s < 10


def test_a_thousand_models_in_one_message_never_hold_many_locks_at_once(client: TestClient, world: World, model: str) -> None:
    parts = [alert(n, f"{model}-{n % 60}") for n in range(120)]
    received, _ = post(client, "alertmanager", {"version": "4", "alerts": parts})
    assert (received["accepted"], len(received["incidents"])) == (120, 60)
    readings = FORMATS["alertmanager"].read(Received({"version": "4", "alerts": parts}, {}, world.now(), IntakePolicy()))
    for some in ingest.slices(judge_all(readings, world.policy, {}, received_at=world.now())):
        assert len({one.model for piece in some for one in piece.alerts}) <= ingest.SLICE_MODELS


async def test_twenty_hostile_messages_at_once_do_not_hold_up_whether_the_gateway_is_well(world: World, keys: Keys, model: str) -> None:
    hostile = [json.dumps(storm(f"{model}-{n}", 2_000)) for n in range(20)]
    transport = httpx.ASGITransport(create_app(world))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=keys.of("alertmanager"), timeout=300) as client:
        sent = [asyncio.create_task(client.post("/webhooks/alertmanager", content=body)) for body in hostile]
        waits = []
        while not all(task.done() for task in sent):
            begun = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            one = await client.post("/webhooks/alertmanager", json={"version": "4", "alerts": [alert(len(waits), f"{model}-other")]})
            waits.append(time.monotonic() - begun)
            assert one.status_code == 202
        assert {(await task).json()["accepted"] for task in sent} == {2_000}
    assert len(waits) > 3
    assert max(waits) < 6, "2 s on a machine of its own"


@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * 30_000 + b"1]", b'{"a":' + b'{"b":' * 25_000, b'{"description": "' + b"," * 25_000 + b'"}']
)
def test_a_request_of_very_many_values_is_refused_unread(client: TestClient, model: str, body: bytes) -> None:
    for path in (f"/api/v1/model-governance/{model}/incidents", "/api/v1/changes"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "send less at a time" in answer.json()["detail"]


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"mail"}))
def test_a_message_of_very_many_values_is_kept_aside_unread(client: TestClient, world: World, form: str) -> None:
    before = waiting(world)
    content = FORMATS[form].media_types[0]
    begun = time.monotonic()
    answer = client.post(f"/webhooks/{form}", content=b"[" + b"[]," * 1_000_000 + b"1]", headers={"Content-Type": content})
    assert (answer.status_code, answer.json()["quarantined"], waiting(world)) == (202, 1, before + 1)
    assert time.monotonic() - begun < 10
    (kept,) = client.get("/api/v1/quarantine", params={"limit": 1}).json()["quarantined"]
    assert "nothing of it was read" in kept["error"]


def test_of_an_alert_with_very_many_labels_the_first_are_kept(client: TestClient, world: World, model: str) -> None:
    one = alert(1, model)
    one["labels"] |= {f"label_{n}": "v" for n in range(100_000)}
    received, _ = post(client, "alertmanager", {"version": "4", "alerts": [one]})
    with world.transaction() as conn:
        (kept,) = alerts.of_incident(conn, received["incidents"][0])
    assert len(kept["body"]["labels"].keys() - {"alertname"}) <= MAX_LABELS


# What the database refuses


@pytest.fixture
def picky(world: World) -> Iterator[str]:
    """A store that refuses any alert of this fingerprint, as it refuses values that nobody has thought of."""
    with world.transaction() as conn:
        _refuse(conn, "refused", "22003")
    yield "refused"
    with world.transaction() as conn:
        conn.execute(text("DROP TRIGGER picky ON alerts"))


def _refuse(conn: Connection, fingerprint: str, state: str) -> None:
    raises = f"RAISE EXCEPTION 'out of range' USING ERRCODE = '{state}'"
    check = f"BEGIN IF NEW.fingerprint = '{fingerprint}' THEN {raises}; END IF; RETURN NEW; END"
    conn.execute(text(f"CREATE OR REPLACE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $f$ {check} $f$"))
    conn.execute(text("CREATE TRIGGER picky BEFORE INSERT ON alerts FOR EACH ROW EXECUTE FUNCTION picky()"))


@pytest.mark.parametrize("place", [0, 37, 99])
def test_what_the_database_refuses_is_put_aside_alone_and_the_rest_opens_its_incident(
    client: TestClient, world: World, model: str, picky: str, place: int
) -> None:
    before = waiting(world)
    members = [alert(n, model) for n in range(100)]
    members[place]["fingerprint"] = picky
    received, _ = post(client, "alertmanager", {"version": "4", "alerts": members})
    assert (received["accepted"], received["quarantined"], len(received["incidents"])) == (99, 1, 1)
    assert waiting(world) == before + 1
    (kept,) = client.get("/api/v1/quarantine", params={"limit": 1}).json()["quarantined"]
    assert json.loads(client.get(f"/api/v1/quarantine/{kept['number']}").json()["body"]) == members[place]


@pytest.mark.parametrize("place", [0, 1_500, 2_999])
def test_what_the_database_refuses_of_a_replay_waits_on_and_undoes_nothing_of_the_rest(
    client: TestClient, world: World, model: str, picky: str, place: int
) -> None:
    members = [alert(n, model) for n in range(3_000)]
    members[place]["fingerprint"] = picky
    with world.transaction() as conn:
        body = json.dumps({"version": "4", "alerts": members}).encode()
        number = quarantine.keep(conn, quarantine.Message("alertmanager", body, "too many"), now=world.now())
    before = waiting(world)
    receipt = client.post(f"/api/v1/quarantine/{number}/replay").json()
    assert (receipt["accepted"], receipt["quarantined"], len(receipt["incidents"])) == (2_999, 1, 1)
    assert waiting(world) == before, "one is done, one is left"
    again = client.post(f"/api/v1/quarantine/{number}/replay")
    assert (again.status_code, waiting(world)) == (409, before)


def test_a_replay_that_the_store_cuts_off_keeps_what_it_has_and_is_replayed_again(client: TestClient, world: World, model: str) -> None:
    members = [alert(n, model) for n in range(3_000)]
    members[2_500]["fingerprint"] = f"away-{model}"
    with world.transaction() as conn:
        body = json.dumps({"version": "4", "alerts": members}).encode()
        number = quarantine.keep(conn, quarantine.Message("alertmanager", body, "too many"), now=world.now())
        _refuse(conn, f"away-{model}", "57P03")  # it is starting up
    cut_off = client.post(f"/api/v1/quarantine/{number}/replay")
    assert cut_off.status_code == 503
    with world.transaction() as conn:
        conn.execute(text("DROP TRIGGER picky ON alerts"))
        (incident,) = incidents.find(conn, model=model)
        assert len(alerts.of_incident(conn, incident.id)) == 2_000
    receipt = client.post(f"/api/v1/quarantine/{number}/replay").json()
    assert (receipt["accepted"], receipt["quarantined"], receipt["incidents"]) == (3_000, 0, [incident.id])
    with world.transaction() as conn:
        assert len(alerts.of_incident(conn, incident.id)) == 3_000


def test_a_long_name_of_a_change_is_kept_and_holds_nothing_up(client: TestClient, world: World, model: str) -> None:
    long = "".join(chr(0x4E00 + n % 20_000) for n in range(3_900))
    change = event(2, model) | {"data": {"model": model, "kind": "deployment", "ref": long, "author": "ci"}}
    received, _ = post(client, "cloudevents", [event(1, model), change])
    assert (received["accepted"], received["changes"], len(received["incidents"])) == (1, 1, 1)
    answer = client.post(
        f"/api/v1/incidents/{received['incidents'][0]}/actions", json={"action": long, "owner": "ml_team_lead", "dueOn": "2026-05-01"}
    )
    assert answer.status_code == 201
