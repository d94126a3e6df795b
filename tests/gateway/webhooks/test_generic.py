"""Senders' own JSON, each read by the mapping that its address names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import registry, samples
from mlrunbook.gateway.webhooks.ingest import replay
from mlrunbook.response.world import World
from mlrunbook.store import incidents, quarantine
from tests.gateway.conftest import Clock, Keys, world_on
from tests.gateway.webhooks.test_as_the_sender_meant import Desk, Registry

MAPPINGS = {
    "east": {"model": "about", "name": "what", "fingerprint": "id", "status": "now"},
    "west": {"model": "about", "name": "what", "fingerprint": "id", "status": "now", "firing": ["bad"], "resolved": ["good"]},
    "lists": {"alerts": "groups[].items[]", "model": "about", "name": "what", "fingerprint": "id"},
    "inner": {"json_in": ["Message", "Message.detail"], "model": "Message.detail.model", "name": "Message.title"},
}


@pytest.fixture
def desk(engine: Engine, model: str) -> Desk:
    clock = Clock()
    world = replace(world_on(engine, clock), platform=Registry(model))  # type: ignore[arg-type]
    return Desk(world, clock, model).under(generic=MAPPINGS)


def kept_last(desk: Desk) -> quarantine.Listed:
    with desk.world.transaction() as conn:
        return quarantine.find(conn, limit=1)[0]


def replayed(desk: Desk) -> Any:
    return replay(desk.world, registry.of(kept_last(desk).source), kept_last(desk).id)


class TestMappingsByName:
    def test_each_reads_in_its_own_words(self, desk: Desk) -> None:
        desk.take("generic/west", {"about": desk.model, "what": "F1 low", "id": "1", "now": "BAD"})
        assert (desk.only.alert_count, desk.ends) == (1, 0)
        desk.take("generic/west", {"about": desk.model, "what": "F1 low", "id": "1", "now": "good"})
        assert (desk.only.alert_count, desk.ends) == (1, 1)

    def test_the_end_of_another_mapping_with_the_same_number_ends_nothing(self, desk: Desk) -> None:
        desk.take("generic/east", {"about": desk.model, "what": "F1 low", "id": "1", "now": "firing"})
        desk.take("generic/west", {"about": desk.model, "what": "F1 low", "id": "1", "now": "good"})
        assert desk.ends == 0
        desk.take("generic/east", {"about": desk.model, "what": "F1 low", "id": "1", "now": "resolved"})
        assert desk.ends == 1

    def test_the_same_delivery_through_two_mappings_is_two(self, desk: Desk) -> None:
        envelope = {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:0:ml", "MessageId": "1", "about": desk.model, "what": "A"}
        desk.take("generic/east", envelope | {"id": "1"})
        desk.take("generic/east", envelope | {"id": "2"})  # SNS delivers again: nothing of it is new
        assert desk.only.alert_count == 1
        desk.take("generic/west", envelope | {"id": "3"})
        assert desk.only.alert_count == 2

    def test_the_plain_address_is_the_mapping_default(self, desk: Desk) -> None:
        assert registry.of("generic/default").source == registry.of("generic").source == "generic"
        desk.take("generic/default", {"model": desk.model, "kind": "F1 low", "dedup_key": "1"})
        desk.take("generic", {"model": desk.model, "kind": "F1 low", "dedup_key": "1", "status": "resolved"})
        assert desk.ends == 1


class TestWhatCannotBeRead:
    def test_one_part_waits_alone(self, desk: Desk) -> None:
        before = desk.waiting
        items = [{"about": desk.model, "what": "A", "id": "1"}, 7, {"about": desk.model, "what": "B", "id": "2"}]
        desk.take("generic/lists", {"groups": [{"items": items}]})
        assert (desk.only.alert_count, desk.waiting) == (2, before + 1)

    @pytest.mark.parametrize("field", ["model", "name", "status", "fingerprint"])
    def test_an_expression_that_does_not_apply_puts_the_part_aside_and_is_named(self, desk: Desk, field: str) -> None:
        mapped = desk.under(generic={"watch": {"alerts": "all", field: "join('-', parts)"}})
        mapped.take("generic/watch", {"all": [{"model": desk.model, "kind": "A", "parts": 5}]})
        assert f"`{field}`" in kept_last(desk).error
        assert json.loads(kept_last_body(desk))["mlrunbook:alerts"] == [{"model": desk.model, "kind": "A", "parts": 5}]

    @pytest.mark.parametrize("field", ["level", "summary", "model_version", "started_at", "incident_type", "labels"])
    def test_an_alert_does_without_what_only_describes_it(self, desk: Desk, field: str) -> None:
        before = desk.waiting
        desk.under(generic={"watch": {field: "join('-', parts)"}}).take("generic/watch", {"model": desk.model, "kind": "A", "parts": 5})
        assert (desk.only.alert_count, desk.waiting) == (1, before)

    def test_what_takes_too_long_waits_and_what_came_before_is_read(self, desk: Desk) -> None:
        slow = "notes[*].[" + ", ".join(["@"] * 100) + "][] | [0]"
        mapped = desk.under(generic={"watch": {"alerts": "all", "fingerprint": f"id || {slow}", "summary": slow}})
        good = {"model": desk.model, "kind": "A", "id": "1", "notes": []}
        bad = {"model": desk.model, "kind": "A", "notes": [["x"] * 100] * 100}
        before = desk.waiting
        mapped.take("generic/watch", {"all": [good, bad, good | {"id": "2"}]})
        assert (desk.only.alert_count, desk.waiting) == (2, before + 1)

    def test_alerts_that_is_no_list(self, desk: Desk) -> None:
        before = desk.waiting
        desk.under(generic={"watch": {"alerts": "model"}}).take("generic/watch", {"model": desk.model})
        assert (desk.incidents, desk.waiting) == ([], before + 1)
        assert "`alerts`" in kept_last(desk).error

    def test_a_part_is_replayed_by_its_mapping_as_policy_has_it_then(self, desk: Desk) -> None:
        desk.take("generic/lists", {"groups": [{"items": [{"subject": desk.model, "what": "A", "id": "1"}]}]})
        assert (desk.incidents, kept_last(desk).source) == ([], "generic/lists")
        corrected = desk.under(generic={"lists": MAPPINGS["lists"] | {"model": "subject"}})
        assert replayed(corrected).incidents == [corrected.only.id]

    def test_a_message_whose_text_was_not_read_as_json_is_replayed_once_policy_says_so(self, desk: Desk) -> None:
        inner = {"title": "F1 low", "detail": json.dumps({"model": desk.model})}
        fields = MAPPINGS["inner"] | {"json_in": []}
        desk.under(generic={"inner": fields}).take("generic/inner", {"Message": json.dumps(inner)})
        assert desk.incidents == []
        assert replayed(desk).incidents == [desk.only.id]

    def test_of_a_mapping_that_policy_no_longer_has_the_replay_says_so(self, desk: Desk) -> None:
        desk.take("generic/east", {"about": "nobody's", "what": "A"})
        with pytest.raises(Exception, match="no mapping named 'east'"):
            replayed(desk.under(generic={"west": MAPPINGS["west"]}))


def kept_last_body(desk: Desk) -> bytes:
    with desk.world.transaction() as conn:
        return quarantine.get(conn, quarantine.find(conn, limit=1)[0].id).body


class TestWhatIsPicked:
    @pytest.mark.parametrize("field", ["status", "fingerprint"])
    @pytest.mark.parametrize("picked", [["ok", "done"], {"now": "ok"}], ids=str)
    def test_is_one_value_where_it_decides(self, desk: Desk, field: str, picked: object) -> None:
        mapped, before = desk.under(generic={"default": {field: "picked"}}), desk.waiting
        mapped.take("generic", {"model": desk.model, "kind": "Recall", "picked": picked})
        assert (desk.incidents, desk.waiting) == ([], before + 1)

    @pytest.mark.parametrize("expression", ["tier == 'gold' && 'scorer'", "tier == 'bronze'"])
    def test_is_no_model_where_it_is_only_true_or_false(self, desk: Desk, expression: str) -> None:
        mapped, before = desk.under(generic={"default": {"model": expression}}), desk.waiting
        mapped.take("generic", {"kind": "ModelF1Drop", "tier": "bronze"})
        assert (desk.incidents, desk.waiting) == ([], before + 1)


class TestWhereItStands:
    def test_in_json_in_a_text_in_json_in_a_text(self, desk: Desk) -> None:
        inner = {"title": "F1 low", "detail": json.dumps({"model": desk.model})}
        desk.take("generic/inner", {"Message": json.dumps(inner)})
        assert desk.only

    @pytest.mark.parametrize("said", ["plain words", "{not json", "[" * 5_000, '"x"', "5", "", None, 5, [], {}])
    def test_a_text_that_is_no_json_is_left_as_it_is(self, desk: Desk, said: Any) -> None:
        before = desk.waiting
        desk.under(generic={"inner": {"json_in": ["Message"]}}).take("generic/inner", {"Message": said, "model": desk.model, "kind": "A"})
        assert (desk.only.alert_count, desk.waiting) == (1, before)

    def test_in_a_list_at_the_top_of_the_body(self, desk: Desk) -> None:
        mapped = desk.under(generic={"watch": {"alerts": "[].alert", "fingerprint": "id"}})
        mapped.take("generic/watch", [{"alert": {"model": desk.model, "kind": "A", "id": n}} for n in (1, 2)])
        assert desk.only.alert_count == 2

    def test_a_filter_that_picks_one_thing_means_that_thing(self, desk: Desk) -> None:
        mapped = desk.under(generic={"watch": {"model": "tags[?key == 'ml/model'].value"}})
        mapped.take("generic/watch", {"kind": "A", "tags": [{"key": "env", "value": "prod"}, {"key": "ml/model", "value": desk.model}]})
        assert desk.only

    def test_policy_may_name_the_model_by_what_stands_deep_in_the_message_or_by_the_alert_s_name(self, desk: Desk) -> None:
        for lines in ({"team:pumps": desk.model}, {"alertname:F1*": desk.model}):
            mapped = desk.under(models=lines, generic={"watch": {"labels": "meta.labels", "name": "meta.rule", "fingerprint": "meta.id"}})
            mapped.take("generic/watch", {"meta": {"labels": {"team": "pumps"}, "rule": "F1 low", "id": "1"}})
            assert desk.only


@pytest.fixture(scope="module")
def mapped_world(engine: Engine) -> World:
    return world_on(engine, Clock(), Policy.model_validate({"intake": {"generic": MAPPINGS}}))


@pytest.fixture(scope="module")
def http(mapped_world: World) -> Iterator[TestClient]:
    with TestClient(create_app(mapped_world)) as client:
        yield client


class TestAtTheDoor:
    def test_every_mapping_has_an_address(self, http: TestClient, keys: Keys, model: str) -> None:
        answer = http.post("/webhooks/generic/east", json={"about": model, "what": "ModelF1Drop", "id": "1"}, headers=keys.of("east"))
        assert answer.status_code == 202
        assert answer.json()["accepted"] == 1

    def test_a_name_that_policy_does_not_have_is_refused_with_those_it_has(self, http: TestClient, keys: Keys) -> None:
        assert http.post("/webhooks/generic/nowhere", json={}).status_code == 401
        answer = http.post("/webhooks/generic/nowhere", json={}, headers=keys.of("east"))
        assert answer.status_code == 404
        assert "east" in answer.text

    def test_a_mapping_may_have_a_secret_of_its_own(
        self, http: TestClient, mapped_world: World, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GENERIC", "of all")
        monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GENERIC_EAST", "of the east")
        body = json.dumps({"about": model, "what": "ModelF1Drop", "id": "1"}).encode()

        def status(mapping: str, secret: str) -> int:
            headers = samples.proof("generic", secret, body, mapped_world.now())
            return http.post(f"/webhooks/generic/{mapping}", content=body, headers=headers).status_code

        assert [status("east", "of the east"), status("east", "of all")] == [202, 401]
        assert [status("west", "of the east"), status("west", "of all")] == [401, 202]
        with mapped_world.transaction() as conn:
            assert len(incidents.find(conn, model=model)) == 1
