"""Outcomes come later than predictions: nothing is called recovered without them, and what they say after the closing counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.communication.notifications import stop
from mlrunbook.response.lifecycle import post_close_check
from mlrunbook.response.lifecycle import runs as lifecycle
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, outbox, records, timeline
from tests.domain.builders import triaged
from tests.fakes import HEALTHY, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, told

BAD_AGAIN = {"v2.0.0": "degraded", "v1.5.0": "worse"}


@pytest.fixture
def over(world: World, file_world: FileWorld, clock: Clock) -> str:
    """The same end, written down: for what follows from the record alone."""
    incident_id = report(world)
    file_world.set(serving="v1.5.0")
    run = lifecycle.take(world, incident_id, "run-1")
    assert run is not None
    with run.write() as conn:
        run.keep(conn, triaged(HEALTHY))
        records.put(conn, incident_id, "applied", {"at": clock.at, "path": "rollback"}, now=clock.at)
        records.put(conn, incident_id, "recovery", {"f1_baseline": HEALTHY.f1}, now=clock.at)
        for status in (Status.INVESTIGATING, Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, status, why="it was fixed", actor="a test", now=clock.at)
        stop(conn, incident_id, now=clock.at)
        post_close_check.schedule(conn, world.policy, incident_id, now=clock.at)
    lifecycle.done(run)
    deliver(world)
    return incident_id


@pytest.fixture
def a_day_later(world: World, clock: Clock) -> Callable[[], None]:
    def pass_() -> None:
        clock.advance(minutes=world.policy.recovery_watch.confirm_after_min + 1)
        deliver(world)

    return pass_


# Not without outcomes


def test_an_incident_whose_outcomes_have_not_come_stays_in_monitoring_until_they_have_and_the_lead_hears_of_it_once(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.set(labelled=False, predictions=5000, label_delay_s=7200.0)
    clock.advance(minutes=2)
    for look in range(1, 4):
        assert carry(world, incident_id, f"run-{look}") == "too early to say"
        assert incident_of(world, incident_id).status is Status.MONITORING
        deliver(world)
        clock.advance(hours=2)
    late = [m for m in notifier.pages() if "outcomes are late" in m.body]
    assert [m.body.split(":")[0] for m in late] == ["ML Team Lead"]
    assert "10 of 5,000 predictions have a known outcome; outcomes take 2 h (median of those that have come)" in late[0].body
    file_world.set(labelled=True, predictions=None)
    assert carry(world, incident_id, "run-4") == "closed"


def test_a_fix_by_hand_is_monitored_too_until_outcomes_say_that_it_worked(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    file_world.set(serving="v1.5.0", labelled=False, predictions=5000)
    resolve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "too early to say"
    assert incident_of(world, incident_id).status is Status.MONITORING
    file_world.set(labelled=True, predictions=None)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"


def test_a_model_that_predicts_nothing_after_the_fix_goes_to_a_human(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.set(labelled=False, predictions=3)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "too early to say"
    clock.advance(minutes=world.policy.recovery_watch.give_up_after_min + 1)
    assert carry(world, incident_id, "run-2") == "not recovered"
    assert incident_of(world, incident_id).status is Status.INVESTIGATING
    deliver(world)
    assert any("the fix did not work" in m.body for m in notifier.pages())


def test_triage_and_the_notices_say_how_much_of_the_window_is_known(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.set(predictions=9000, label_delay_s=1500.0)  # 3,000 of them with an outcome
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    lag = "3,000 of 9,000 predictions have a known outcome; outcomes take 25 min (median of those that have come)"
    assert lag in recorded(world, incident_id, "triage")["summary"]
    initial = [m for m in notifier.sent if m.subject.startswith("[INCIDENT]")]
    assert initial
    assert all(f"against 0.82 at baseline ({lag})" in m.body for m in initial)


# After the closing


def test_outcomes_that_come_later_and_agree_are_recorded_and_nobody_is_told(
    world: World, over: str, a_day_later: Callable[[], None], notifier: LedgerNotifier
) -> None:
    before = len(notifier.sent)
    a_day_later()
    assert [line for line in told(world, over, "recovery") if line.startswith("The recovery held: F1")]
    assert incident_of(world, over).status is Status.CLOSED
    assert len(notifier.sent) == before
    a_day_later()
    assert len([line for line in told(world, over, "recovery") if "recovery held" in line]) == 1


def test_outcomes_that_disagree_reopen_the_incident_and_people_are_told_and_paged_anew(
    world: World,
    file_world: FileWorld,
    over: str,
    a_day_later: Callable[[], None],
    notifier: LedgerNotifier,
    orchestrator: LedgerOrchestrator,
) -> None:
    before, runs = len(notifier.sent), len(orchestrator.started)
    file_world.set(bad_versions=BAD_AGAIN)
    a_day_later()
    incident = incident_of(world, over)
    assert (incident.status, incident.resolved_at, incident.closed_at) == (Status.INVESTIGATING, None, None)
    assert [line for line in told(world, over, "status") if "closed -> investigating: outcomes that came later disagree" in line]
    new = notifier.sent[before:]
    assert [m.body.split(":")[0] for m in new if m.page] == ["On-Call ML Engineer"], "medium: the ladder begins anew"
    assert {m.channel for m in new if m.subject.startswith("[REOPENED]")} == {"incidents", "email"}
    assert len(orchestrator.started) == runs + 1
    a_day_later()
    with world.transaction() as conn:
        assert timeline.broken_at(conn, over) is None
        assert len(outbox.of_incident(conn, over, post_close_check.TIMER)) == 1, "once; the next closing sets the next timer"


def test_a_reopened_incident_goes_through_the_runbook_again_and_closes_when_its_fix_holds(
    world: World, file_world: FileWorld, clock: Clock, closed: str, a_day_later: Callable[[], None], notifier: LedgerNotifier
) -> None:
    first = plan(world, closed)
    file_world.set(bad_versions=BAD_AGAIN)
    a_day_later()
    assert carry(world, closed, "run-2") in ("pending", "waiting for a human")
    triaged = recorded(world, closed, "triage")
    assert triaged["summary"].startswith("reopened: outcomes that came later disagree")
    assert (triaged["real"], triaged["severity"]) == (True, "medium"), "v1.5.0 is 15 % worse than before the incident"
    again = plan(world, closed)
    assert first is None or again is None or again.digest != first.digest, "the old yes covers no new attempt"
    file_world.set(bad_versions={"v2.0.0": "degraded"})
    resolve(world, closed, "replaced the sensors")
    clock.advance(minutes=2)
    assert carry(world, closed, "run-2") == "closed"
    deliver(world)
    assert len([m for m in notifier.sent if m.subject.startswith("[RESOLVED]") and m.channel == "email"]) == 2
    a_day_later()
    assert len([line for line in told(world, closed, "recovery") if "recovery held" in line]) == 1


def test_a_reopened_high_incident_is_contained_again(
    world: World, file_world: FileWorld, closed: str, a_day_later: Callable[[], None]
) -> None:
    assert file_world.state["config"]["human_approval"] is False, "taken back at the closing"
    file_world.set(bad_versions={"v2.0.0": "degraded", "v1.5.0": "degraded"})
    a_day_later()
    carry(world, closed, "run-2")
    assert incident_of(world, closed).severity is Severity.HIGH
    assert file_world.state["config"]["human_approval"] is True
    contained = plan(world, closed, PlanKind.CONTAINMENT)
    assert contained is not None
    assert contained.reasons[-1].startswith("reopened at")


def test_outcomes_that_do_not_say_are_waited_for_as_long_as_the_policy_says(
    world: World, file_world: FileWorld, over: str, a_day_later: Callable[[], None]
) -> None:
    file_world.set(labelled=False, predictions=5000)
    for _ in range(9):
        a_day_later()
    said = [line for line in told(world, over, "recovery") if "confirmed" in line]
    assert len(said) == 6, "a week of days and a minute each"
    assert all("neither confirmed nor refuted yet" in line for line in said[:-1])
    assert "was never confirmed by later outcomes" in said[-1]
    assert incident_of(world, over).status is Status.CLOSED


def test_a_platform_that_is_away_postpones_the_look_and_loses_nothing(
    world: World, file_world: FileWorld, clock: Clock, over: str, a_day_later: Callable[[], None]
) -> None:
    file_world.set(bad_versions=BAD_AGAIN)
    file_world.down = True
    a_day_later()
    assert incident_of(world, over).status is Status.CLOSED
    file_world.down = False
    clock.advance(minutes=5)
    deliver(world)
    assert incident_of(world, over).status is Status.INVESTIGATING


def test_two_dispatchers_that_hold_the_same_timer_reopen_once(world: World, file_world: FileWorld, clock: Clock, over: str) -> None:
    file_world.set(bad_versions=BAD_AGAIN)
    clock.advance(days=1, minutes=1)
    with world.transaction() as conn:
        [item] = outbox.claim(conn, now=world.now(), kinds=(post_close_check.TIMER,))
        generation = leases.get(conn, over).generation
    post_close_check.confirm(world, item)
    carry(world, over, "run-2")  # it may even have been closed again meanwhile
    post_close_check.confirm(world, item)
    assert len([line for line in told(world, over, "recovery") if "later disagree" in line]) == 1
    with world.transaction() as conn:
        assert leases.get(conn, over).generation == generation + 1


def test_a_dispatcher_that_dies_before_it_has_written_leaves_the_timer_to_the_next(
    world: World, file_world: FileWorld, clock: Clock, over: str, tmp_path: Path
) -> None:
    class Dies(FileWorld):
        def metrics(self, model: str, **window: Any) -> ModelMetrics:
            raise KeyboardInterrupt

    file_world.set(bad_versions=BAD_AGAIN)
    clock.advance(days=1, minutes=1)
    dying = Dispatcher(replace(world, platform=Dies(file_world.path, clock)))
    with pytest.raises(KeyboardInterrupt):
        dying.turn()
    dying.stop()
    assert incident_of(world, over).status is Status.CLOSED
    clock.advance(seconds=outbox.CLAIM_S + 1)
    deliver(world)
    assert incident_of(world, over).status is Status.INVESTIGATING


def test_what_another_release_does_after_the_closing_is_not_held_against_the_fix(
    world: World, file_world: FileWorld, clock: Clock, over: str
) -> None:
    released = clock.at.replace(microsecond=0)

    class Released(FileWorld):
        """Hours after the closing a bad v2.1.0 is deployed: a window that ends before it is sound."""

        def metrics(self, model: str, *, until: datetime | None = None, **window: Any) -> ModelMetrics:
            seen = super().metrics(model, **window)
            return replace(seen, current=replace(seen.current, tally=HEALTHY)) if until and until <= released else seen

    clock.advance(hours=4)
    released = clock.at
    file_world.set(serving="v2.1.0", deployed_at=released.isoformat(), bad_versions={"v2.1.0": "degraded"})
    clock.advance(days=1)
    deliver(replace(world, platform=Released(file_world.path, clock)))
    assert incident_of(world, over).status is Status.CLOSED
    assert [line for line in told(world, over, "recovery") if line.startswith("The recovery held")]


def test_where_another_incident_is_open_for_the_same_failure_that_one_goes_on(
    world: World, file_world: FileWorld, clock: Clock, over: str, a_day_later: Callable[[], None]
) -> None:
    file_world.set(bad_versions=BAD_AGAIN)
    clock.advance(hours=12)
    other = report(world, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, by_alert=False)
    assert other != over
    a_day_later()
    assert incident_of(world, over).status is Status.CLOSED
    assert any(f"{other} is open for the same failure" in line for line in told(world, over, "reported"))
    assert any(f"{over} was closed too early" in line for line in told(world, other, "reported"))
    with world.transaction() as conn:
        assert [i.id for i in incidents.find(conn, only_open=True)] == [other]
