"""Silences and maintenance windows: stored and counted, nobody is told, and what still fires at the end opens the incident."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, outbox, tables
from tests.fakes import MODEL, T0, Clock, LedgerNotifier
from tests.response.people import deliver, report

WINDOW = {"start": T0 - timedelta(hours=1), "end": T0 + timedelta(hours=2), "reason": "new sensors", "created_by": "ml_team_lead"}


@pytest.fixture
def quiet(world: World) -> World:
    return replace(world, policy=Policy.model_validate({"silences": [WINDOW | {"alerts": ["ModelF1Drop"]}]}))


def fire(world: World, clock: Clock, name: str = "ModelF1Drop", *, firing: bool = True, starts: int = 0) -> list[str]:
    body = {"labels": {"alertname": name}, "annotations": {"summary": "F1 fell"}}
    told = NormalisedAlert(name, firing, name, MODEL, None, "warning", None, "F1 fell", T0 + timedelta(minutes=starts), body)
    with world.transaction() as conn:
        return take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [told]), now=clock())


def silenced(world: World) -> list[dict[str, Any]]:
    with world.transaction() as conn:
        return alerts.silenced(conn, limit=10)


def opened(world: World) -> list[str]:
    with world.transaction() as conn:
        return [i.id for i in incidents.find(conn)]


def test_a_silenced_alert_is_stored_and_counted_opens_nothing_and_pages_nobody(
    quiet: World, clock: Clock, notifier: LedgerNotifier
) -> None:
    for _ in range(3):
        assert fire(quiet, clock) == []
        clock.advance(minutes=10)
    deliver(quiet)
    [row] = silenced(quiet)
    assert (row["count"], row["status"]) == (3, "firing")
    assert row["body"]["silenced"] == "silenced by the ML Team Lead: new sensors"
    assert opened(quiet) == []
    assert notifier.sent == []


def test_one_that_still_fires_when_the_silence_ends_opens_the_incident(quiet: World, clock: Clock) -> None:
    fire(quiet, clock)
    clock.advance(hours=2)
    deliver(quiet)
    [incident_id] = opened(quiet)
    assert silenced(quiet) == []
    deliver(quiet)
    assert fire(quiet, clock) == [incident_id]


def test_one_that_has_ended_meanwhile_opens_nothing(quiet: World, clock: Clock) -> None:
    fire(quiet, clock)
    clock.advance(minutes=30)
    fire(quiet, clock, firing=False)
    clock.advance(hours=2)
    deliver(quiet)
    assert opened(quiet) == []
    assert silenced(quiet)[0]["status"] == "resolved"


def test_a_silence_that_was_made_longer_holds(quiet: World, clock: Clock) -> None:
    fire(quiet, clock)
    longer = [WINDOW | {"alerts": ["ModelF1Drop"], "end": T0 + timedelta(hours=4)}]
    later = replace(quiet, policy=Policy.model_validate({"silences": longer}))
    clock.advance(hours=2)
    deliver(later)
    assert opened(later) == []
    clock.advance(hours=2)
    deliver(later)
    assert len(opened(later)) == 1


def test_what_is_known_of_an_incident_goes_on_with_it(quiet: World, clock: Clock, world: World) -> None:
    loud = replace(quiet, policy=Policy())
    [incident_id] = fire(loud, clock)
    assert fire(quiet, clock) == [incident_id], "a silence set later takes nothing away"


def many(models: int, each: int) -> list[NormalisedAlert]:
    body = {"labels": {"alertname": "ModelF1Drop"}, "annotations": {}}
    return [
        NormalisedAlert(f"{m}-{n}", True, "ModelF1Drop", f"pump_{m}", "v1", "critical", None, f"F1 fell ({n})", T0, body)
        for m in range(models)
        for n in range(each)
    ]


def timers(world: World) -> int:
    with world.transaction() as conn:
        return conn.execute(select(func.count()).select_from(tables.outbox).where(tables.outbox.c.kind == outbox.SILENCE_ENDS)).scalar_one()


def test_ten_thousand_silenced_alerts_wait_by_one_timer_not_ten_thousand_and_all_are_heard_when_it_ends(world: World, clock: Clock) -> None:
    policy = Policy.model_validate({"silences": [WINDOW | {"alerts": ["ModelF1Drop"], "models": [f"pump_{m}" for m in range(4)]}]})
    quiet = replace(world, policy=policy)
    for sender in ("a", "b"):
        with quiet.transaction() as conn:
            assert take_in_alerts(conn, policy, AlertBatch("grafana", many(4, 1_250), sender=sender), now=clock()) == []
    assert timers(quiet) == 2, "at the end, and a little later"
    clock.advance(hours=2)
    deliver(quiet)
    assert {i.model for i in whole(quiet)} == {f"pump_{m}" for m in range(4)}
    assert {(i.model_version, i.severity) for i in whole(quiet)} == {("v1", Severity.HIGH)}
    with world.transaction() as conn:
        assert sum(len(alerts.of_incident(conn, i.id)) for i in incidents.find(conn)) == 10_000
        assert alerts.models_silenced(conn) == []


def test_an_alert_that_was_being_stored_when_the_silence_ended_is_heard_a_little_later(quiet: World, clock: Clock) -> None:
    late = NormalisedAlert("late", True, "ModelF1Drop", MODEL, None, "warning", None, "F1 fell", T0, {"labels": {}, "annotations": {}})
    clock.advance(minutes=30)
    told_at = clock()
    fire(quiet, clock, firing=True)
    clock.advance(minutes=90)
    deliver(quiet)
    with quiet.transaction() as conn:  # begun before the end, committed after it
        take_in_alerts(conn, quiet.policy, AlertBatch("grafana", [late]), now=told_at)
    deliver(quiet)
    clock.advance(minutes=3)
    deliver(quiet)
    assert silenced(quiet) == []
    with quiet.transaction() as conn:
        row = alerts.find(conn, alerts.Identity("grafana", "late", T0))
    assert row is not None
    assert row.incident_id is not None


def whole(world: World) -> list[Incident]:
    with world.transaction() as conn:
        return incidents.find(conn)


def test_an_alert_that_was_known_before_it_was_silenced_is_heard_when_the_silence_ends(quiet: World, clock: Clock) -> None:
    with quiet.transaction() as conn:  # one that opened nothing: its model was unknown, and too many were
        held = alerts.Identity("alertmanager", "ModelF1Drop", T0)
        alerts.record(conn, held, status="firing", body={"labels": {}, "held_back": "too many"}, now=clock())
    assert fire(quiet, clock) == []
    clock.advance(hours=2)
    deliver(quiet)
    assert len(opened(quiet)) == 1


def test_a_person_is_heard_in_every_silence(quiet: World) -> None:
    assert report(quiet, by_alert=False)


def test_maintenance_silences_all_but_safety(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    world = replace(world, policy=Policy.model_validate({"maintenance": [WINDOW | {"models": [MODEL]}]}))
    assert fire(world, clock, "ModelServerDown") == []
    assert len(fire(world, clock, MISSED_FAILURE_ALERT)) == 1
    deliver(world)
    assert notifier.pages() != []


def test_one_silenced_again_after_the_clock_was_set_back_is_heard_when_the_silence_ends_again(quiet: World, clock: Clock) -> None:
    fire(quiet, clock)
    clock.advance(hours=3)
    deliver(quiet)
    clock.jump(hours=-2)
    fire(quiet, clock, starts=90)
    assert [row["starts_at"] for row in silenced(quiet)] == [T0 + timedelta(minutes=90)]
    clock.advance(hours=2)
    deliver(quiet)
    assert silenced(quiet) == []
