"""The gateway looks at MLflow by itself, and at once where a webhook says that something moved. Each move is told once; hints are not
believed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.domain.errors import Transient
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.connections import Connection, Kind, PlatformParts, RegistryPart
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.gateway.registry_watch import EVERY_S, RegistryWatch
from mlrunbook.gateway.webhooks import samples
from mlrunbook.ports import Message
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.world import World
from mlrunbook.store import outbox, timeline
from mlrunbook.store import recent_changes as told_changes
from tests.fake_mlflow import FakeMlflow
from tests.fakes import MODEL, Clock, LedgerNotifier, empty_store
from tests.response.composed import BAD, GOOD, composed, policy_with, released_badly
from tests.response.people import report
from tests.waiting import until

SECRET = "of the registry"


@dataclass
class Watched:
    """`passed` seconds on the watch's own clock."""

    world: World
    mlflow: FakeMlflow
    clock: Clock
    client: TestClient
    incident_id: str
    passed: float = 0.0

    def __post_init__(self) -> None:
        self.watch = RegistryWatch(self.world, monotonic=lambda: self.passed)
        self.watch.look()

    def a_minute_later(self) -> int:
        self.passed += EVERY_S
        self.clock.advance(seconds=EVERY_S)
        return self.watch.look()

    def told(self, alias: str = "champion", version: str = BAD, *, delivery: str = "one", secret: str | None = SECRET) -> int:
        event = {"entity": "model_version_alias", "action": "created", "timestamp": self.clock().isoformat()}
        body = json.dumps(event | {"data": {"name": MODEL, "alias": alias, "version": version}}).encode()
        headers = {"Content-Type": "application/json", "X-MLflow-Delivery-Id": f"{delivery} about {self.incident_id}"}
        headers |= samples.proof("mlflow", secret, body, self.clock()) if secret else {}
        return self.client.post("/webhooks/mlflow", content=body, headers=headers).status_code

    def changes(self) -> list[Change]:
        found = recent_changes.of_model(self.world, MODEL, since=self.clock() - timedelta(hours=1))
        return [c for c in found if c.kind in ("deployment", "rollback", "config")]

    def on_the_timeline(self) -> list[str]:
        with self.world.transaction() as conn:
            return [entry.text for entry in timeline.read(conn, self.incident_id) if entry.kind == "change"]


@pytest.fixture
def watched(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_MLFLOW", SECRET)
    empty_store(engine)
    clock = Clock()
    world = composed(engine, tmp_path, clock, policy_with())
    mlflow = FakeMlflow(tmp_path / "mlflow.json")
    released_badly(world, mlflow, clock)
    incident_id = report(world)
    with TestClient(create_app(world), raise_server_exceptions=False) as client:
        yield Watched(world, mlflow, clock, client, incident_id)


def test_what_no_webhook_told_of_is_found_within_a_minute_and_told_once(watched: Watched) -> None:
    watched.mlflow.set_alias(MODEL, "champion", GOOD)
    assert watched.watch.look() == 0, "it was looked at a moment ago"
    assert watched.a_minute_later() == 1
    watched.a_minute_later()
    assert [(c.kind, c.ref) for c in watched.changes()] == [("rollback", GOOD)]
    assert len(watched.on_the_timeline()) == 1


def test_a_webhook_is_looked_into_at_once_and_is_no_second_change(watched: Watched) -> None:
    watched.clock.advance(seconds=10)
    moved_at = watched.clock()
    watched.mlflow.set_alias(MODEL, "champion", GOOD)
    assert watched.told(version=GOOD) == 202
    watched.clock.advance(seconds=5)
    assert watched.watch.look() == 1
    assert watched.watch.look() == 0
    watched.a_minute_later()
    assert [(c.kind, c.ref, c.at) for c in watched.changes()] == [("rollback", GOOD, moved_at)]
    assert len(watched.on_the_timeline()) == 1


@pytest.mark.parametrize("version", [BAD, GOOD], ids=["the-same-value-again", "out-of-order"])
def test_a_webhook_that_the_registry_does_not_bear_out_is_no_change(watched: Watched, version: str) -> None:
    assert watched.told(version=version) == 202
    watched.watch.look()
    watched.a_minute_later()
    assert watched.changes() == []
    assert watched.on_the_timeline() == []


def test_the_same_delivery_again_is_looked_into_once(watched: Watched) -> None:
    watched.clock.advance(seconds=10)
    watched.mlflow.set_alias(MODEL, "champion", GOOD)
    assert [watched.told(version=GOOD, delivery="same") for _ in range(3)] == [202] * 3
    assert (watched.watch.look(), watched.watch.look()) == (1, 0)
    assert len(watched.on_the_timeline()) == 1


def test_a_webhook_that_proves_nothing_is_not_taken(watched: Watched) -> None:
    assert watched.told(secret=None) == 401
    assert watched.told(secret="a guess") == 401
    assert watched.watch.look() == 0


def test_a_registry_that_is_away_is_looked_at_again_and_keeps_nothing_back(watched: Watched) -> None:
    watched.mlflow.set_alias(MODEL, "champion", GOOD)
    world, mlflow = watched.world, watched.mlflow
    away = _Away()
    watched.watch = RegistryWatch(replace(world, platform=away), monotonic=lambda: watched.passed)
    assert watched.watch.look() == 0
    assert away.asked == [MODEL]
    watched.watch = RegistryWatch(world, monotonic=lambda: watched.passed)
    assert watched.watch.look() == 1
    assert mlflow.aliases(MODEL) == {"champion": GOOD}
    assert len(watched.on_the_timeline()) == 1


def test_a_registry_that_hangs_delays_no_page(watched: Watched) -> None:
    """It has a thread of its own."""
    hangs, let_go, notifier = threading.Event(), threading.Event(), LedgerNotifier()

    class Hanging(_Away):
        def versions(self, model: str) -> Any:
            hangs.set()
            let_go.wait(60)
            return []

    world = replace(watched.world, platform=Hanging(), notifier=notifier)
    dispatcher = Dispatcher(world, every_s=0.02)
    thread = threading.Thread(target=dispatcher.run, daemon=True)
    thread.start()
    try:
        until(hangs.is_set)
        page = Message("a page", watched.incident_id, "incidents", "now", "now", page=True)
        with world.transaction() as conn:
            payload = {"channel": page.channel, "to": "on call", "subject": page.subject, "body": page.body}
            outbox.put(conn, "message", page.key, payload, now=world.now(), incident_id=page.incident_id)
        until(lambda: any(sent.key == page.key for sent in notifier.sent))
        assert not let_go.is_set()
    finally:
        let_go.set()
        dispatcher.stop()
        thread.join(30)


class _Away:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def versions(self, model: str) -> Any:
        self.asked.append(model)
        raise Transient("nothing answers")

    changes = versions


def test_a_webhook_names_a_model_as_its_registry_does(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_MLFLOW", SECRET)
    world = composed(engine, tmp_path, Clock(), policy_with(part=RegistryPart("ml", name="Pumps EU: failures")))
    event = {"entity": "model_version", "action": "created", "timestamp": Clock()().isoformat()}
    body = json.dumps(event | {"data": {"name": "Pumps EU: failures", "version": "7"}}).encode()
    headers = {"Content-Type": "application/json", "X-MLflow-Delivery-Id": "of another name"}
    with TestClient(create_app(world)) as client:
        answer = client.post("/webhooks/mlflow", content=body, headers=headers | samples.proof("mlflow", SECRET, body, Clock()()))
    assert answer.json()["changes"] == 1
    with world.transaction() as conn:
        assert "7" in [c.ref for c in told_changes.of_model(conn, MODEL, since=Clock()() - timedelta(hours=1))]


def test_without_a_registry_in_policy_nothing_is_looked_at(watched: Watched) -> None:
    away = _Away()
    assert RegistryWatch(replace(watched.world, platform=away, policy=Policy())).look() == 0
    assert away.asked == []


def test_a_registry_that_does_not_answer_is_asked_once_a_look_and_keeps_no_other_waiting(watched: Watched) -> None:
    asked: list[str] = []

    class Silent:
        def changes(self, model: str, *, since: datetime | None = None) -> list[Change]:
            asked.append(model)
            if model.startswith("a"):
                raise Transient("no answer")
            return []

        versions = changes

    parts = {name: PlatformParts(registry=RegistryPart(name[0])) for name in ("a1", "a2", "a3", "b1", "b2")}
    policy = Policy(
        connections={name: Connection(Kind.MLFLOW) for name in ("a", "b")},
        models={name: ModelRules(platform=one) for name, one in parts.items()},
    )
    passed = [0.0]
    watch = RegistryWatch(replace(watched.world, policy=policy, platform=Silent()), monotonic=lambda: passed[0])  # type: ignore[arg-type]
    assert (watch.look(), asked) == (2, ["a1", "b1", "b2"])
    passed[0] += EVERY_S
    asked.clear()
    assert (watch.look(), asked) == (2, ["a2", "b1", "b2"])
