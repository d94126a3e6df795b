"""A failure that comes back: the closed incident opens again, and one that opens again and again stops automation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlrunbook.domain.detection.alerts import PROVEN_AS, NormalisedAlert
from mlrunbook.domain.detection.flapping import Flapping
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.response.lifecycle import flapping as recurrence
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, records
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, recorded, report, told

SWITCHED = {"config:human_approval=True": 1, "config:auto_scheduling=False": 1}


def fire(world: World, name: str = "ModelF1Drop", *, firing: bool = True) -> list[str]:
    """An alert that starts now."""
    now = world.now()
    body = {"labels": {"alertname": name, "severity": "warning"}, "annotations": {"summary": f"{name} fires"}}
    told = NormalisedAlert(f"{name}@{now}", firing, name, MODEL, None, "warning", None, f"{name} fires", now, body)
    with world.transaction() as conn:
        return take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [told]), now=now)


def close(world: World, clock: Clock, incident_id: str, run: str = "run-1") -> None:
    carry(world, incident_id, run)
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, run) == "closed"
    deliver(world)


@pytest.fixture
def closed(world: World, clock: Clock) -> str:
    [incident_id] = fire(world)
    close(world, clock, incident_id)
    return incident_id


def break_again(file_world: FileWorld) -> None:
    file_world.set(bad_versions={"v2.0.0": "degraded", "v1.5.0": "degraded"})


def test_an_alert_within_the_hour_opens_the_closed_incident_again_and_it_is_worked_on_anew(
    world: World, file_world: FileWorld, closed: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    break_again(file_world)
    clock.advance(minutes=30)
    pages = len(notifier.pages())
    assert fire(world) == [closed]
    assert incident_of(world, closed).status is Status.INVESTIGATING
    deliver(world)
    assert len(notifier.pages()) == pages, "triage gets a moment to recognise a false alarm"
    carry(world, closed, "run-2")
    deliver(world)
    assert len(notifier.pages()) > pages
    assert incident_of(world, closed).resolved_at is None
    assert file_world.applied["config:human_approval=True"] == 2, "contained anew"
    assert recorded(world, closed, "reopened")["number"] == 1
    assert recorded(world, closed, "review") == {}


def test_an_alert_later_than_that_opens_a_new_incident(world: World, closed: str, clock: Clock) -> None:
    clock.advance(minutes=61)
    [other] = fire(world)
    assert other != closed
    assert incident_of(world, closed).status is Status.CLOSED


def test_an_alert_of_another_family_opens_its_own(world: World, closed: str, clock: Clock) -> None:
    clock.advance(minutes=5)
    assert fire(world, "ModelErrorRateHigh") != [closed]


def test_a_late_alert_about_what_is_over_closes_it_as_it_was_and_pages_nobody(
    world: World, closed: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    before, review = incident_of(world, closed), recorded(world, closed, "review")
    sent = len(notifier.sent)
    clock.advance(minutes=10)
    assert fire(world) == [closed]
    assert carry(world, closed, "run-2") == "false alarm"
    after = incident_of(world, closed)
    assert (after.status, after.resolved_at, after.closed_at, after.review_due_at) == (
        before.status,
        before.resolved_at,
        before.closed_at,
        before.review_due_at,
    )
    assert recorded(world, closed, "review") == review
    clock.advance(hours=5)
    deliver(world)
    assert len(notifier.sent) == sent
    with world.transaction() as conn:
        assert leases.get(conn, closed).state == "done"


def test_an_incident_that_opens_again_and_again_pages_once_and_waits_for_a_person(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.set(bad_versions={})
    ids = set()
    for _ in range(5):  # false alarms: each is an incident of its own
        [incident_id] = fire(world)
        ids.add(incident_id)
        assert carry(world, incident_id, f"run-{incident_id}") == "false alarm"
        clock.advance(minutes=5)
    deliver(world)
    flapping = [m for m in notifier.pages() if "Flapping" in m.body]
    assert len(ids) == 5
    assert len(flapping) == 2, "on-call and the lead, once each, although each alarm was false"

    break_again(file_world)
    [incident_id] = fire(world)
    assert carry(world, incident_id, "run-9") == "pending"
    assert file_world.applied == {}, "automatic containment waits"
    deliver(world)
    assert any("nothing is done by itself: it is flapping" in text for text in told(world, incident_id, "containment"))

    with world.transaction() as conn:
        recurrence.resume_automation(conn, incident_id, by="the lead", note="the sensor is mended", now=clock())
        with pytest.raises(Refused, match="has not stopped"):
            recurrence.resume_automation(conn, incident_id, by="the lead", note="", now=clock())
    clock.advance(minutes=1)
    carry(world, incident_id, "run-9")
    assert file_world.applied == SWITCHED
    assert sum("Flapping" in m.body for m in notifier.pages()) == 2


def test_when_nothing_opens_for_the_window_automation_is_back(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(bad_versions={})
    for _ in range(3):
        [incident_id] = fire(world)
        carry(world, incident_id, f"run-{incident_id}")
        clock.advance(minutes=5)
    break_again(file_world)
    [incident_id] = fire(world)
    carry(world, incident_id, "run-9")
    assert file_world.applied == {}
    clock.advance(minutes=world.policy.recurrence.flapping_within_min)
    deliver(world)
    assert told(world, incident_id, "flapping")[-1] == "Nothing has opened since: automation goes on"
    carry(world, incident_id, "run-9")
    assert file_world.applied == SWITCHED


def test_a_flapping_incident_that_has_recovered_is_not_closed_by_itself(
    world: World, file_world: FileWorld, closed: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    for _ in range(3):
        clock.advance(minutes=5)
        fire(world)
        carry(world, closed, "run-a")
    file_world.set(bad_versions={"v1.5.0": "degraded"}, serving="v1.5.0")
    clock.advance(minutes=5)
    assert fire(world) == [closed]
    ended = carry(world, closed, "run-2")
    deliver(world)
    assert sum("Flapping" in m.body for m in notifier.pages()) == 2, "on-call and the lead, once each"
    assert "mlrunbook incidents resume-automation" in next(m.body for m in notifier.pages() if "Flapping" in m.body)
    assert ended in ("pending", "waiting for a human")
    with world.transaction() as conn:
        held = recurrence.automation_held(conn, closed, now=clock())
    assert held is not None
    file_world.set(bad_versions={})
    with world.transaction() as conn:
        records.put(conn, closed, "human_resolution", {"by": "the lead", "what": "mended", "at": clock().isoformat()}, now=clock())
        leases.wake(conn, closed, why="fixed", key="fixed", now=clock())
    clock.advance(minutes=2)
    assert carry(world, closed, "run-2" if ended == "pending" else "run-3") == "held"
    assert incident_of(world, closed).status is not Status.CLOSED
    with world.transaction() as conn:
        recurrence.resume_automation(conn, closed, by="the lead", note="", now=clock())
    clock.advance(minutes=2)
    assert carry(world, closed, "run-4") == "closed"


def test_an_alert_that_ends_closes_nothing(world: World, file_world: FileWorld, clock: Clock) -> None:
    [incident_id] = fire(world)
    ended = clock()
    carry(world, incident_id, "run-1")
    body = {"labels": {"alertname": "ModelF1Drop"}, "annotations": {}}
    gone = NormalisedAlert(f"ModelF1Drop@{ended}", False, "ModelF1Drop", MODEL, None, "warning", None, "F1", ended, body)
    with world.transaction() as conn:
        assert take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [gone]), now=clock()) == [incident_id]
    deliver(world)
    assert carry(world, incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).status is Status.CONTAINED


def test_a_person_opens_a_new_incident_although_one_has_just_closed(world: World, closed: str) -> None:
    assert report(world, Severity.HIGH, by_alert=False) != closed
    with world.transaction() as conn:
        assert len(incidents.find(conn, only_open=True)) == 1


# --- whose openings count


@dataclass(frozen=True)
class Opening:
    """`by`: who opens it, as proven; `joined_by`: who reports the same while it is open. It ends as a false alarm, or closed."""

    by: str
    joined_by: tuple[str, ...]
    is_false: bool

    @property
    def counts(self) -> bool:
        return "alertmanager" in (self.by, *self.joined_by)


SENDERS_OF_ALL_KINDS = st.sampled_from(["alertmanager", "", "email"])  # trusted for containment; not proven; proven and not trusted
OPENINGS = st.builds(Opening, SENDERS_OF_ALL_KINDS, st.lists(SENDERS_OF_ALL_KINDS, max_size=2).map(tuple), st.booleans())
_models, _numbers = count(1), count(1)


def tell(world: World, model: str, by: str) -> str:
    now, name = world.now(), "ModelF1Drop"
    body = {"labels": {"alertname": name}, "annotations": {}, PROVEN_AS: by}
    told = NormalisedAlert(f"{next(_numbers)}", True, name, model, None, "warning", None, "it fires", now, body)
    with world.transaction() as conn:
        [incident_id] = take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [told]), now=now)
    return incident_id


def end(world: World, incident_id: str, *, is_false: bool) -> None:
    path = (Status.FALSE_ALARM,) if is_false else (Status.INVESTIGATING, Status.RESOLVED, Status.CLOSED)
    with world.transaction() as conn:
        if not is_false or incidents.get(conn, incident_id).status is Status.DETECTED:
            for to in path:
                incidents.set_status(conn, incident_id, to, why="over", actor="a test", now=world.now())
            return
        for to in (Status.RESOLVED, Status.CLOSED):  # opened again: it ends as it had ended
            incidents.set_status(conn, incident_id, to, why="over", actor="a test", now=world.now())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPENINGS, min_size=1, max_size=8))
def test_only_openings_that_a_trusted_sender_vouches_for_stop_automation(world: World, clock: Clock, history: Sequence[Opening]) -> None:
    model, counted, most = f"pump_{next(_models)}_flaps", 0, world.policy.recurrence.flapping_after
    for opening in history:
        incident_id = tell(world, model, opening.by)
        for by in opening.joined_by:
            assert tell(world, model, by) == incident_id
        counted += opening.counts
        with world.transaction() as conn:
            held = recurrence.automation_held(conn, incident_id, now=world.now())
        assert (held is not None) == (counted > most), held
        end(world, incident_id, is_false=opening.is_false)
        clock.advance(minutes=5)


def test_false_alarms_of_an_unproven_sender_do_not_prolong_that_automation_waits(world: World, clock: Clock) -> None:
    window = timedelta(minutes=world.policy.recurrence.flapping_within_min)
    for _ in range(4):
        incident_id = tell(world, "pump_wear", "alertmanager")
        last = world.now()
        end(world, incident_id, is_false=True)
        clock.advance(minutes=1)
    for _ in range(10):
        clock.advance(minutes=20)
        incident_id = tell(world, "pump_wear", "")
        with world.transaction() as conn:
            end_at = records.recall(conn, incident_id, Flapping)
        assert end_at is None or end_at.quiet_at <= last + window
        end(world, incident_id, is_false=True)


def test_what_an_unproven_sender_opened_counts_once_it_is_measured_to_be_real(world: World, clock: Clock, file_world: FileWorld) -> None:
    for _ in range(3):
        end(world, tell(world, MODEL, "alertmanager"), is_false=True)
        clock.advance(minutes=5)
    break_again(file_world)
    incident_id = tell(world, MODEL, "")
    with world.transaction() as conn:
        assert recurrence.automation_held(conn, incident_id, now=world.now()) is None
    assert carry(world, incident_id, "run-1") == "pending"
    with world.transaction() as conn:
        assert recurrence.automation_held(conn, incident_id, now=world.now())
    assert file_world.applied == {}
