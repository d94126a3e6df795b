"""The monitor flow's steps: what fires opens or joins one incident, what ended is noted, and nobody is told twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.detection.alerts import PROVEN_AS, NormalisedAlert
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Incident, IncidentType, Status
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, ServingStatus
from mlrunbook.domain.policy.intake import UNPROVEN
from mlrunbook.response.detection import monitor
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, rule_states, timeline
from tests.fakes import MODEL, Clock, FileWorld

NO_STORE = Missing("no feature store is configured")


def look(world: World, *, healthy: bool = True) -> list[str]:
    """What one run of the flow does."""
    status = monitor.read_status(world, MODEL)
    if isinstance(status, ServingStatus) and not healthy:
        status = replace(status, server_healthy=False)
    metrics = monitor.read_metrics(world, MODEL, status)
    log = monitor.read_log(world, MODEL, metrics)
    return monitor.evaluate(world, monitor.seen(world, MODEL, status, metrics, NO_STORE, log))


def opened(world: World) -> list[Incident]:
    with world.transaction() as conn:
        return incidents.find(conn, model=MODEL)


def notes(world: World, incident: Incident) -> list[str]:
    with world.transaction() as conn:
        return [e.text for e in timeline.read(conn, incident.id)]


def test_a_metric_drop_opens_one_incident_and_later_looks_are_counted(world: World, clock: Clock) -> None:
    sentences = look(world)
    clock.advance(minutes=1)
    look(world)
    (incident,) = opened(world)
    assert any("critical ModelF1Drop firing" in s and "F1 fell" in s for s in sentences)
    assert (incident.type, incident.reported_by) == (IncidentType.PERFORMANCE_DEGRADATION, "monitor")
    with world.transaction() as conn:
        told = {a["body"]["labels"]["alertname"]: a["count"] for a in alerts.of_incident(conn, incident.id)}
    assert told == {"ModelF1Drop": 2, "ModelPrecisionDrop": 2, "ModelRecallDrop": 2}


def test_a_model_that_does_well_raises_nothing(world: World, file_world: FileWorld) -> None:
    file_world.set(serving="v1.5.0")
    assert not [s for s in look(world) if "firing" in s or "pending" in s]
    assert opened(world) == []


def test_what_ended_is_noted_on_its_incident_only_once_it_stays_well(world: World, file_world: FileWorld, clock: Clock) -> None:
    look(world)
    file_world.set(serving="v1.5.0")
    clock.advance(minutes=1)
    assert not [s for s in look(world) if "ended" in s]
    clock.advance(minutes=1)
    assert "ModelF1Drop ended" in look(world)
    (incident,) = opened(world)
    assert any(text.startswith("Alert resolved: predictive_maintenance F1 fell") for text in notes(world, incident))
    assert not [s for s in look(world) if "ended" in s]


def test_an_alert_that_starts_anew_after_its_incident_is_told_anew(world: World, file_world: FileWorld, clock: Clock) -> None:
    look(world)
    file_world.set(serving="v1.5.0")
    for _ in range(2):
        clock.advance(minutes=1)
        look(world)
    file_world.set(serving="v2.0.0")
    clock.advance(minutes=1)
    look(world)
    (incident,) = opened(world)
    with world.transaction() as conn:
        starts = {a["starts_at"] for a in alerts.of_incident(conn, incident.id) if a["body"]["labels"]["alertname"] == "ModelF1Drop"}
    assert len(starts) == 2


@pytest.mark.parametrize(("minutes", "left_to_them"), [(14, True), (16, False)])
def test_what_another_source_tells_is_left_to_it_until_it_falls_silent(
    world: World, clock: Clock, minutes: int, left_to_them: bool
) -> None:
    body = {"labels": {"alertname": "ModelF1Drop", "severity": "critical"}, "annotations": {}}
    theirs = NormalisedAlert("f1", True, "ModelF1Drop", MODEL, None, "critical", None, "F1 fell", clock(), body)
    with world.transaction() as conn:
        take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [theirs]), now=clock())
    clock.advance(minutes=minutes)
    look(world)
    (incident,) = opened(world)
    with world.transaction() as conn:
        sources = [a["source"] for a in alerts.of_incident(conn, incident.id) if a["body"]["labels"]["alertname"] == "ModelF1Drop"]
    assert sources == (["alertmanager"] if left_to_them else ["alertmanager", "monitor"])


def told(world: World, clock: Clock, proven_as: str) -> None:
    """Another source tells, as unimportant as can be, of every drop that the monitor would tell of; always of the same start."""
    at, names = clock().replace(hour=0, minute=0), ("ModelF1Drop", "ModelPrecisionDrop", "ModelRecallDrop")
    bodies = [{"labels": {"alertname": name, "severity": "info"}, "annotations": {}, PROVEN_AS: proven_as} for name in names]
    theirs = [NormalisedAlert(n, True, n, MODEL, None, "info", None, "x", at, b) for n, b in zip(names, bodies, strict=True)]
    with world.transaction() as conn:
        take_in_alerts(conn, world.policy, AlertBatch("alertmanager", theirs, sender="somebody"), now=clock())


def test_nobody_unproven_keeps_the_monitor_quiet(world: World, clock: Clock) -> None:
    told(world, clock, UNPROVEN)
    look(world)
    (incident,) = opened(world)
    with world.transaction() as conn:
        assert "monitor" in {a["source"] for a in alerts.of_incident(conn, incident.id)}


@pytest.mark.parametrize("ending", [Status.CLOSED, Status.FALSE_ALARM])
@pytest.mark.parametrize("proven_as", [UNPROVEN, "alertmanager"])
def test_what_is_repeated_of_an_incident_that_is_over_hides_no_new_failure(
    world: World, file_world: FileWorld, clock: Clock, proven_as: str, ending: Status
) -> None:
    file_world.set(serving="v1.5.0")
    told(world, clock, proven_as)
    (incident,) = opened(world)
    with world.transaction() as conn:
        for status in (Status.RESOLVED, ending) if ending is Status.CLOSED else (ending,):
            incidents.set_status(conn, incident.id, status, why="x", actor="x", now=clock())
    clock.advance(minutes=5)
    file_world.set(serving="v2.0.0")
    told(world, clock, proven_as)
    look(world)
    with world.transaction() as conn:
        assert incidents.find(conn, model=MODEL, only_open=True), "the new failure has its incident"


def test_a_server_is_down_at_the_second_look_and_one_stopped_on_purpose_never(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(serving="v1.5.0")
    assert any("ModelServerDown pending" in s for s in look(world, healthy=False))
    assert opened(world) == []
    clock.advance(minutes=1)
    assert any("ModelServerDown firing" in s for s in look(world, healthy=False))
    assert [i.type for i in opened(world)] == [IncidentType.INFRASTRUCTURE]

    file_world.set(replicas=0)
    for _ in range(3):
        clock.advance(minutes=1)
        sentences = look(world, healthy=False)
    assert not [s for s in sentences if "ModelServerDown" in s]


@pytest.mark.parametrize(
    ("store", "word", "failing", "known"),
    [
        (FeatureServerAnswer(healthy=True, read_ok=True), "ok", False, True),
        (FeatureServerAnswer(healthy=True, read_ok=False), "ok", True, True),  # /health stays green while reads fail
        (NO_STORE, "the lock was not released", True, True),
        (NO_STORE, "ok", False, True),
        (NO_STORE, None, False, False),
    ],
)
def test_the_feature_store_is_asked_itself_and_through_the_model_server(
    world: World, store: FeatureServerAnswer | Missing, word: str | None, failing: bool, known: bool
) -> None:
    status = monitor.read_status(world, MODEL)
    assert isinstance(status, ServingStatus)
    server = monitor.seen(world, MODEL, replace(status, features=word), NO_STORE, store, NO_STORE).server
    assert server is not None
    assert (server.features_down_for is not None, server.features_known) == (failing, known)


def test_a_platform_that_does_not_answer_is_an_incident_and_ends_no_alert(world: World, file_world: FileWorld, clock: Clock) -> None:
    look(world)
    file_world.down = True
    for _ in range(2):
        clock.advance(minutes=1)
        sentences = look(world)
    assert any("ModelPlatformDown firing" in s for s in sentences)
    assert any("ModelF1Drop firing" in s for s in sentences)
    assert {i.type for i in opened(world)} == {IncidentType.PERFORMANCE_DEGRADATION, IncidentType.INFRASTRUCTURE}


def test_an_unknown_model_is_an_error_not_an_alert(world: World) -> None:
    with pytest.raises(NotFound):
        monitor.read_status(world, "pump_failure")


def test_a_change_in_the_last_hour_ends_the_window_before_it(world: World, file_world: FileWorld, clock: Clock) -> None:
    at = clock() - timedelta(minutes=20)
    file_world.set(deployed_at=at.isoformat())
    metrics = monitor.read_metrics(world, MODEL, monitor.read_status(world, MODEL))
    assert not isinstance(metrics, Missing)
    assert metrics.current.since == at


class Dying(World):
    """The process is killed at the end of its first transaction, before the commit."""

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as conn:
            yield conn
            raise KeyboardInterrupt


def test_a_run_killed_before_it_told_is_made_good_by_the_next(world: World) -> None:
    dying = Dying(**{f.name: getattr(world, f.name) for f in fields(world)})
    with pytest.raises(KeyboardInterrupt):
        look(dying)
    with world.transaction() as conn:
        assert rule_states.read(conn, MODEL) == {}
    look(world)
    assert len(opened(world)) == 1
