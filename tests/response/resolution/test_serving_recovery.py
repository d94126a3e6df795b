"""The infrastructure action: a server that a new process mends is restarted once, after approval; the rest goes to a human."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mlrunbook.domain.actions import Path, Restart, RollBack
from mlrunbook.domain.errors import Unknown
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.response.world import World
from mlrunbook.store import leases
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, say, told

RESTARTED = {"restart": 1}


def sound(file_world: FileWorld, **changes: object) -> None:
    """An old release that answers well, and what ails its server."""
    long_ago = (file_world._now() - timedelta(days=60)).isoformat()
    file_world.set(serving="v1.5.0", previous="v1.4.0", deployed_at=long_ago, bad_versions={}, **changes)


def hung(file_world: FileWorld) -> None:
    sound(file_world, hung=True)


def failed_release(file_world: FileWorld) -> None:
    """v2.0.0 was released and cannot be loaded; v1.5.0 goes on."""
    file_world.set(bad_versions={}, unloadable="v2.0.0")


def alerted(world: World, severity: Severity = Severity.MEDIUM) -> str:
    return report(world, severity, IncidentType.INFRASTRUCTURE, description="an alert of the server")


def closed_after_approval(world: World, clock: Clock, incident_id: str) -> None:
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert incident_of(world, incident_id).status is Status.CLOSED


class TestRestart:
    def test_a_server_that_hangs_is_restarted_once_after_approval_and_nothing_else_is_touched(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        hung(file_world)
        incident_id = alerted(world, Severity.CRITICAL)
        assert carry(world, incident_id, "run-1") == "pending"
        incident = incident_of(world, incident_id)
        assert (incident.severity, incident.type) == (Severity.CRITICAL, IncidentType.INFRASTRUCTURE)
        assert file_world.applied == {}, "containment would not make a server answer that does not"
        asked = plan(world, incident_id)
        assert asked is not None
        assert (asked.path, [type(a) for a in asked.actions]) == (Path.RESTART, [Restart])
        closed_after_approval(world, clock, incident_id)
        assert file_world.applied == RESTARTED
        assert "the model server answers" in recorded(world, incident_id, "recovery")["sentence"]

    def test_a_slow_server_is_restarted_and_recovered_only_once_fresh_requests_are_fast(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        sound(file_world, latency_ms=4000.0)
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        assert incident_of(world, incident_id).severity is Severity.MEDIUM
        assert recorded(world, incident_id, "diagnosis")["cause"] == "serving_infrastructure"
        closed_after_approval(world, clock, incident_id)
        assert file_world.applied == RESTARTED

    def test_a_restart_that_does_not_help_goes_to_a_human_and_is_not_proposed_again(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        sound(file_world, latency_ms=4000.0, incurable=True)
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        approve(world, incident_id)
        assert carry(world, incident_id, "run-1") == "too early to say", "a server that starts is given two minutes"
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "not recovered"
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
        with world.transaction() as conn:
            leases.wake(conn, incident_id, why="a human asks for another look", key="human-1", now=world.now())
        clock.advance(minutes=1)
        assert carry(world, incident_id, "run-2") == "waiting for a human"
        deliver(world)
        assert any("a restart did not help" in m.body for m in notifier.pages())
        assert file_world.applied == RESTARTED

    def test_a_restart_that_hangs_too_goes_to_a_human(self, world: World, file_world: FileWorld) -> None:
        sound(file_world, hung=True, incurable=True)
        incident_id = alerted(world, Severity.CRITICAL)
        assert carry(world, incident_id, "run-1") == "pending"
        approve(world, incident_id)
        with pytest.raises(Unknown, match="look at the system, then approve a new plan"):
            carry(world, incident_id, "run-1")
        assert file_world.applied == RESTARTED
        assert any(line.startswith("Unknown: restart the predictive_maintenance server") for line in told(world, incident_id))

    def test_a_rejected_restart_is_not_made(self, world: World, file_world: FileWorld) -> None:
        hung(file_world)
        incident_id = alerted(world, Severity.CRITICAL)
        carry(world, incident_id, "run-1")
        say(world, incident_id, "rejected")
        assert carry(world, incident_id, "run-1") == "rejected"
        assert file_world.applied == {}

    def test_requests_that_failed_in_the_minute_of_the_change_do_not_keep_it_from_having_recovered(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        """The platform counts them by the minute, so they show in every window that begins within it."""
        hung(file_world)
        incident_id = alerted(world, Severity.CRITICAL)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(seconds=20)
        file_world.set(errors={"storage": 600}, errors_until=(clock.at.replace(second=0) + timedelta(minutes=1)).isoformat())
        assert carry(world, incident_id, "run-1") == "too early to say"
        clock.advance(seconds=70)
        assert carry(world, incident_id, "run-1") == "closed"


def test_an_error_that_was_logged_before_the_failure_began_is_not_held_against_the_server(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    """The release was two hours ago, so the failure is looked for in the last hour."""
    incident_id = report(world)
    clock.advance(seconds=20)
    began = clock.at - timedelta(hours=1)
    file_world.set(log=[((began - timedelta(minutes=5)).isoformat(), "ERROR an old one")])
    carry(world, incident_id, "run-1")
    [found] = [x for x in recorded(world, incident_id, "findings:infrastructure")["findings"] if x["key"].endswith("server_logs")]
    assert (found["state"], found["sentence"]) == ("ok", f"the model server has logged nothing since {began:%Y-%m-%d %H:%M:%S} UTC")


class TestNoRestart:
    def test_requests_that_callers_break_go_to_a_human_who_is_told_to_find_the_caller(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        sound(file_world, errors={"invalid_features": 600})
        incident_id = alerted(world)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert recorded(world, incident_id, "diagnosis")["cause"] == "serving_infrastructure"
        deliver(world)
        assert any("find the caller" in m.body for m in notifier.pages())
        resolve(world, incident_id, "the gateway's release is taken back")
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "not recovered", "somebody's word does not make requests succeed"
        file_world.set(errors={})
        resolve(world, incident_id, "now it really is")
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-3") == "closed"
        assert file_world.applied == {}

    def test_a_release_that_cannot_be_loaded_goes_back_to_the_version_that_really_serves(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        failed_release(file_world)
        incident_id = alerted(world)
        assert carry(world, incident_id, "run-1") == "pending"
        incident = incident_of(world, incident_id)
        assert (incident.severity, incident.type) == (Severity.MEDIUM, IncidentType.INFRASTRUCTURE)
        assert recorded(world, incident_id, "diagnosis")["cause"] == "bad_deployment"
        asked = plan(world, incident_id)
        assert asked is not None
        assert [a.target_version for a in asked.actions if isinstance(a, RollBack)] == ["v1.5.0"]
        closed_after_approval(world, clock, incident_id)
        assert file_world.applied == {"rollback": 1}
        assert file_world.state["serving"] == "v1.5.0"
