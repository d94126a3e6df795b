"""A delivery that says it is a test stores nothing, whatever the policy makes of it; and the mark hides no other message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.policy.intake import EventTypes, GenericMapping, IntakePolicy, StateWords
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.explaining import TEST_HEADER, is_test
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from mlrunbook.store.tables import metadata
from tests.gateway.conftest import Clock, Keys, world_on

HOSTILE = {
    "the default": IntakePolicy(),
    "the status is elsewhere": IntakePolicy(generic={"default": GenericMapping(status="state.now", fingerprint="kind")}),
    "what is resolved fires": IntakePolicy(states=StateWords(firing=("resolved", "recovered", "close"), resolved=("firing",))),
    "resolved fires in our own JSON": IntakePolicy(generic={"default": GenericMapping(firing=("resolved",), resolved=("firing",))}),
    "every event is a deployment": IntakePolicy(
        cloudevents=EventTypes(alerts=(), changes={"*": "deployment"}), production_aliases=(samples.NAME,)
    ),
    "everything is about one model": IntakePolicy(models={"*:*": "pumps"}),
    "nothing is passed over": IntakePolicy(cloudevents=EventTypes(alerts=("*",), ignored=())),
}


def rows(world: World) -> dict[str, int]:
    with world.transaction() as conn:
        return {t.name: conn.execute(select(func.count()).select_from(t)).scalar_one() for t in metadata.sorted_tables}


def post(client: TestClient, form: str, body: Any, **headers: str) -> Any:
    return client.post(f"/webhooks/{form}", content=json.dumps(body), headers={"Content-Type": samples.content_type(form)} | headers)


def mark(clock: Clock, *, ago_s: float = 0) -> dict[str, str]:
    return {TEST_HEADER: f"{clock().timestamp() - ago_s:.0f}"}


@pytest.mark.parametrize("policy", HOSTILE.values(), ids=HOSTILE)
def test_a_test_of_any_format_stores_nothing_under_any_policy(engine: Engine, keys: Keys, model: str, policy: IntakePolicy) -> None:
    clock = Clock()
    world = world_on(engine, clock, Policy(intake=policy, alert_types={"*": IncidentType.SECURITY}))
    with TestClient(create_app(world), headers=keys.of("a person who tries the way")) as client:
        before = rows(world)
        for form in FORMATS:
            for firing in (False, True):
                message = samples.sample(form, model, now=clock(), firing=firing)
                answer = post(client, form, message, **mark(clock))
                assert answer.status_code == 202, answer.text
                receipt = answer.json()
                assert (receipt["accepted"], receipt["changes"], receipt["quarantined"], receipt["incidents"]) == (0, 0, 0, [])
                assert len(receipt["test"]) == 1, "it says what it would have done"
        assert rows(world) == before


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_the_same_message_without_the_mark_is_taken_in_for_real(
    client: TestClient, world: World, clock: Clock, model: str, form: str
) -> None:
    """Of a sender that numbers its messages too: the test has used up no number."""
    message = samples.sample(form, model, now=clock(), firing=True)
    assert "test" in post(client, form, message, **mark(clock)).json()
    receipt = post(client, form, message).json()
    assert "test" not in receipt
    assert not receipt["duplicate"]
    assert receipt["accepted"] + receipt["changes"] == 1


@pytest.mark.parametrize("said", ["1", "true", "", "nan", "inf", "-inf", "1e400", "0x10"])
def test_a_header_that_is_set_for_good_hides_no_alert(client: TestClient, world: World, clock: Clock, model: str, said: str) -> None:
    assert "test" not in post(client, "generic", samples.sample("generic", model, now=clock(), firing=True), **{TEST_HEADER: said}).json()
    with world.transaction() as conn:
        assert incidents.find(conn, model=model)


def test_a_mark_of_ten_minutes_ago_hides_no_alert(client: TestClient, world: World, clock: Clock, model: str) -> None:
    message = samples.sample("alertmanager", model, now=clock(), firing=True)
    assert post(client, "alertmanager", message, **mark(clock, ago_s=600)).json()["incidents"]


@given(st.text(), st.floats(min_value=1, max_value=3600))
def test_no_header_whatever_breaks_the_gateway(said: str, window_s: float) -> None:
    assert is_test({TEST_HEADER: said}, Clock()(), window_s) in (True, False)


def test_a_test_proves_its_sender_as_any_message_and_is_logged(
    anonymous: TestClient, keys: Keys, clock: Clock, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = samples.sample("grafana", model, now=clock(), firing=True)
    assert post(anonymous, "grafana", message, **mark(clock)).status_code == 401
    post(anonymous, "grafana", message, **mark(clock), **keys.of("the tester", Scope.ALERTS))
    assert any("the tester" in line.getMessage() and line.levelname == "WARNING" for line in caplog.records)


def test_what_policy_knows_is_told_to_those_alone_who_may_read(anonymous: TestClient, keys: Keys, clock: Clock, model: str) -> None:
    message = samples.sample("grafana", model, now=clock(), firing=True)
    for scopes, is_told in (((Scope.ALERTS,), False), ((Scope.ALERTS, Scope.READ), True)):
        (told,) = post(anonymous, "grafana", message, **mark(clock), **keys.of("a sender", *scopes)).json()["test"]
        assert told["outcome"] == "open"
        assert ("happens" in told) is is_told


def test_a_test_of_what_cannot_be_used_says_so_and_keeps_nothing(client: TestClient, world: World, clock: Clock) -> None:
    before = rows(world)
    (told,) = post(client, "grafana", {"version": "7"}, **mark(clock)).json()["test"]
    assert told["outcome"] == "quarantine"
    assert "version" in told["happens"]
    assert rows(world) == before
