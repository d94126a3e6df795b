"""An alert that outcomes have not proven yet: people hear of it, nothing is changed, and the outcomes that come decide."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.evaluation.outcome_window import Span
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.response.communication import missed_pages
from mlrunbook.response.measurement.outcome_history import with_history
from mlrunbook.response.world import World
from mlrunbook.store import baseline_pins, incidents
from tests.fakes import MODEL, T0, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.detection.counting import FEW, Counting, alert
from tests.response.people import deliver, incident_of, plan, recorded, report


def triage_of(world: World, incident_id: str) -> dict[str, Any]:
    return dict(recorded(world, incident_id, "triage")["assessment"])


def test_a_critical_alert_that_is_unproven_pages_now_says_so_and_changes_nothing(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.shows = FEW
    incident_id = alert(counting, "critical")
    assert carry(counting, incident_id, "run-1") == "not proven yet"
    deliver(counting)
    assert incident_of(counting, incident_id).severity is Severity.HIGH
    assert notifier.pages()
    found = triage_of(counting, incident_id)
    assert (found["unproven"], found["insufficient"], bool(found["undecided_until"])) == (True, True, True)
    assert all("it is not proven yet, undecided until about" in m.body for m in notifier.pages())
    assert any("undecided until about" in m.body for m in notifier.sent)
    assert platform.applied == {}
    assert all(plan(counting, incident_id, kind) is None for kind in PlanKind)


def test_a_warning_that_is_unproven_is_a_ticket_and_a_post_and_nobody_is_paged(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.shows = FEW
    incident_id = alert(counting, "warning")
    assert carry(counting, incident_id, "run-1") == "not proven yet"
    for _ in range(4):
        clock.advance(minutes=5)
        deliver(counting)
        assert missed_pages.audit(counting) == []
    assert incident_of(counting, incident_id).severity is Severity.MEDIUM
    assert notifier.pages() == []
    assert {"tickets", "incidents"} <= {m.channel for m in notifier.sent}
    assert platform.applied == {}
    with counting.transaction() as conn:
        assert incidents.unproven_by_kind(conn) == {(MODEL, "medium"): 1}


def test_it_takes_one_look_to_see_that_seconds_bring_no_outcome(counting: World, platform: Counting) -> None:
    slept: list[float] = []
    platform.shows = FEW
    carry(replace(counting, sleep=slept.append), alert(counting, "warning"), "run-1")
    assert slept == []


def test_outcomes_that_decide_before_the_page_goes_out_anyway_are_waited_for(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.falls_at, platform.shows, slept = T0 - timedelta(minutes=20), FEW, list[float]()

    def sleep(seconds: float) -> None:  # in which an hour's outcomes come
        slept.append(seconds)
        clock.advance(minutes=20)

    soon = counting.policy.triage.model_copy(update={"page_anyway_after_s": 24 * 3600.0, "seconds_between_looks": 1200.0})
    patient = replace(counting, policy=counting.policy.model_copy(update={"triage": soon}), sleep=sleep)
    incident_id = alert(patient, "critical")
    assert carry(patient, incident_id, "run-1") != "not proven yet"
    found = triage_of(counting, incident_id)
    assert (found["real"], found["unproven"], found["insufficient"]) == (True, False, False)
    assert 0 < len(slept) < 72


def later(world: World, clock: Clock, incident_id: str, hours: int) -> list[str]:
    """How runs ended that the dispatcher starts in this time."""
    ended = []
    for hour in range(hours):
        clock.advance(hours=1)
        deliver(world)
        ended.append(carry(world, incident_id, f"run-{hour + 2}"))
    return ended


def test_what_outcomes_prove_later_is_paged_then_and_the_response_begins(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.falls_at, platform.shows = T0 - timedelta(minutes=20), FEW
    incident_id = alert(counting, "warning")
    assert carry(counting, incident_id, "run-1") == "not proven yet"
    deliver(counting)
    assert notifier.pages() == []
    platform.shows = None
    later(counting, clock, incident_id, 12)
    deliver(counting)
    found = triage_of(counting, incident_id)
    assert (found["real"], found["unproven"], found["insufficient"]) == (True, False, False)
    assert incident_of(counting, incident_id).severity is Severity.HIGH
    assert notifier.pages()
    with counting.transaction() as conn:
        assert incidents.unproven_by_kind(conn) == {}


def test_what_outcomes_rule_out_later_ends_as_a_false_alarm(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.shows = FEW
    incident_id = alert(counting, "warning")
    assert carry(counting, incident_id, "run-1") == "not proven yet"
    platform.shows = None
    later(counting, clock, incident_id, 60)
    assert incident_of(counting, incident_id).status is Status.FALSE_ALARM
    assert notifier.pages() == []


def test_a_missed_critical_failure_waits_for_no_outcome(counting: World, platform: Counting) -> None:
    platform.shows = FEW
    incident_id = alert(counting, "critical", MISSED_FAILURE_ALERT)
    carry(counting, incident_id, "run-1")
    deliver(counting)
    found = triage_of(counting, incident_id)
    assert (found["real"], found["safety_risk"], found["unproven"]) == (True, True, False)
    assert incident_of(counting, incident_id).severity is Severity.CRITICAL
    assert plan(counting, incident_id, PlanKind.MITIGATION) is not None, "policy does not trust this sender, so on-call decides at once"


def test_a_persons_report_is_taken_at_its_word_while_outcomes_say_nothing_yet(counting: World, platform: Counting) -> None:
    platform.shows = FEW
    incident_id = report(counting, Severity.HIGH, IncidentType.PREDICTION_ERROR, by_alert=False, description="it misses pumps")
    assert carry(counting, incident_id, "run-1") != "not proven yet"
    assert (triage_of(counting, incident_id)["real"], triage_of(counting, incident_id)["unproven"]) == (True, False)


def test_a_change_within_the_hour_is_judged_by_what_came_since(counting: World, platform: Counting) -> None:
    platform.changed = (T0 - timedelta(days=20), T0 - timedelta(minutes=20))
    platform.shows = Confusion(tp=60, fp=40, fn=140, tn=4_700)
    incident_id = alert(counting, "critical")
    assert carry(counting, incident_id, "run-1") != "not proven yet"
    found = triage_of(counting, incident_id)
    assert (found["real"], found["unproven"], incident_of(counting, incident_id).severity) == (True, False, Severity.HIGH)


# --- the baseline


def pinned(world: World) -> Span | None:
    with world.transaction() as conn:
        return baseline_pins.get(conn, MODEL)


def look(world: World) -> ModelMetrics:
    seen = world.platform.metrics(MODEL, since=world.now() - timedelta(hours=1))
    return with_history(world, seen, None)


def test_the_first_look_pins_the_week_before_it_and_no_later_one_moves_it(counting: World, clock: Clock) -> None:
    look(counting)
    first = pinned(counting)
    assert first is not None
    assert first.until - first.since == timedelta(days=7)
    for _ in range(6):
        clock.advance(days=10)
        assert (found := look(counting).history) is not None
        assert found.since.since == first.until
    assert pinned(counting) == first


def test_a_version_that_is_proven_healthy_for_a_week_takes_the_place_of_the_one_before(
    counting: World, platform: Counting, clock: Clock
) -> None:
    look(counting)
    released = clock() + timedelta(days=3)
    platform.changed = (released,)
    clock.advance(days=6)
    look(counting)
    assert (early := pinned(counting)) is not None
    assert early.until < released, "three days are too few"
    clock.advance(days=9)
    look(counting)
    assert (anew := pinned(counting)) is not None
    assert anew.since == released


def test_a_version_that_fell_is_never_the_baseline(counting: World, platform: Counting, clock: Clock) -> None:
    look(counting)
    first = pinned(counting)
    platform.falls_at = clock() + timedelta(days=3)
    platform.changed = (platform.falls_at,)
    clock.advance(days=20)
    look(counting)
    assert pinned(counting) == first


def test_a_model_that_has_served_for_two_days_is_not_pinned_yet(counting: World, platform: Counting) -> None:
    platform.begins = T0 - timedelta(days=1)
    look(counting)
    assert pinned(counting) is None


def test_a_platform_that_counts_no_blocks_is_judged_by_the_window_alone(world: World, file_world: FileWorld) -> None:
    assert look(world).history is None
