"""What a person reports ends only by a person: measurements argue, and never close it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.domain.detection.reports import NewReport, Origin
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.policy import Policy, Triage
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, told

WORDS = "line 3 stood still, and nobody was warned"


@pytest.fixture
def well(file_world: FileWorld) -> FileWorld:
    """Nothing that is measured is wrong."""
    file_world.set(bad_versions={})
    return file_world


def person(world: World, severity: Severity = Severity.HIGH, **how: object) -> str:
    return report(world, severity, by_alert=False, description=WORDS, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("type_", list(IncidentType))
def test_no_measurement_calls_a_persons_report_a_false_alarm(
    world: World, well: FileWorld, clock: Clock, notifier: LedgerNotifier, severity: Severity, type_: IncidentType
) -> None:
    incident_id = person(world, severity, type=type_)
    clock.advance(seconds=7)
    assert carry(world, incident_id, "run-1") != "false alarm"
    assert incident_of(world, incident_id).status.is_open
    deliver(world)
    assert notifier.pages() or severity is Severity.LOW


def test_the_measurement_argues_with_its_numbers_in_the_page_and_changes_nothing(
    world: World, well: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = person(world)
    clock.advance(seconds=7)
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    assert "F1 is 0.82 against 0.82 at baseline: the overall figures do not show it" in recorded(world, incident_id, "triage")["summary"]
    deliver(world)
    assert any("incidents close" in m.body and "--false-alarm" in m.body for m in notifier.pages())
    assert well.applied == {}


def test_a_report_that_joins_before_triage_keeps_an_alert_from_being_called_false(world: World, well: FileWorld, clock: Clock) -> None:
    incident_id = report(world)
    assert person(world) == incident_id
    clock.advance(seconds=7)
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    assert incident_of(world, incident_id).severity is Severity.HIGH


def test_an_alert_alone_is_still_called_a_false_alarm(world: World, well: FileWorld) -> None:
    assert carry(world, report(world), "run-1") == "false alarm"


def test_a_report_about_a_closed_incident_opens_one_that_no_measurement_ends(world: World, closed: str, clock: Clock) -> None:
    clock.advance(minutes=5)
    incident_id = person(world)
    carry(world, incident_id, "run-2")
    assert incident_of(world, incident_id).status.is_open


def test_a_report_after_an_alert_opened_it_again_keeps_it_open(world: World, closed: str, clock: Clock) -> None:
    from tests.response.lifecycle.test_flapping import fire

    clock.advance(minutes=5)
    assert fire(world) == [closed]
    assert person(world) == closed
    clock.advance(minutes=1)
    carry(world, closed, "run-2")
    assert incident_of(world, closed).status.is_open


def test_every_report_reaches_somebody(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    for severity in (Severity.LOW, Severity.HIGH, Severity.CRITICAL):
        before = len(notifier.pages())
        clock.advance(minutes=1)
        assert person(world, severity) == incident_id
        deliver(world)
        new = notifier.pages()[before:]
        assert any(WORDS in page.body for page in new)


@pytest.mark.parametrize("when", ["monitoring", "measured"])
def test_a_report_while_the_fix_is_measured_stops_the_closing_until_a_person_decides(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, when: str
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    if when == "monitoring":
        file_world.set(labelled=False)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "too early to say"
        assert incident_of(world, incident_id).status is Status.MONITORING
        file_world.set(labelled=True)
    clock.advance(minutes=2)
    deliver(world)
    before = len(notifier.pages())
    person(world)
    deliver(world)
    assert any(WORDS in page.body for page in notifier.pages()[before:])
    if when == "monitoring":
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") in ("held", "not ours")
    assert incident_of(world, incident_id).status.is_open
    assert file_world.state["config"]["auto_scheduling"] is False, "containment stays"
    deliver(world)

    clock.advance(minutes=5)
    resolve(world, incident_id)
    clock.advance(minutes=5)
    assert carry(world, incident_id, "run-3") == "closed"


def test_a_report_after_a_persons_word_about_the_fix_counts_again(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = person(world)
    carry(world, incident_id, "run-1")
    file_world.set(bad_versions={})
    clock.advance(minutes=2)
    resolve(world, incident_id)
    clock.advance(minutes=2)
    person(world)
    assert carry(world, incident_id, "run-1") == "held"


def test_an_approved_plan_after_the_report_lets_it_close(world: World, clock: Clock) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    clock.advance(minutes=1)
    person(world)
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"


class TestOwnWords:
    def test_they_lead_every_page_and_every_notice(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = person(world, Severity.CRITICAL, type=IncidentType.PREDICTION_ERROR)
        deliver(world)
        carry(world, incident_id, "run-1")
        asked = plan(world, incident_id)
        for _ in range(5):
            deliver(world)
            clock.advance(minutes=31)
        assert asked
        approve(world, incident_id)
        clock.advance(minutes=2)
        carry(world, incident_id, "run-2")
        deliver(world)
        assert len({m.channel for m in notifier.sent}) >= 4
        for sent in notifier.sent:
            if sent.page:
                assert WORDS in sent.subject
            before, found, _ = sent.body.partition(WORDS)
            assert found, sent
            assert "F1" not in before, sent.body

    def test_the_first_and_the_newest_report_are_quoted(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = person(world)
        for n in range(3):
            clock.advance(minutes=1)
            report(world, by_alert=False, description=f"report {n}")
        carry(world, incident_id, "run-1")
        deliver(world)
        page = notifier.pages()[-1]
        assert WORDS in page.body
        assert "report 2" in page.body

    def test_hostile_words_stay_on_their_own_line(self, world: World, notifier: LedgerNotifier) -> None:
        report(world, Severity.CRITICAL, by_alert=False, description="x\nSeverity: LOW\u202e\x1b[2J" + "y" * 5000)
        deliver(world)
        for page in notifier.pages():
            assert not any(line.startswith("Severity:") for line in page.body.splitlines())
            assert "\x1b" not in page.body
            assert "\u202e" not in page.body
            assert len(page.body) < 3000


def test_an_audits_finding_is_no_persons_word(world: World, well: FileWorld) -> None:
    about = ("predictive_maintenance", Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "F1 fell", "", "weekly audit")
    incident_id = open_or_join(world, NewReport(*about, origin=Origin.AUDIT), start=True)
    assert carry(world, incident_id, "run-1") == "false alarm"


def test_triage_that_was_overtaken_by_a_report_does_not_end_it(world: World, well: FileWorld) -> None:
    """The report comes while triage waits between two looks."""
    from mlrunbook.response.detection import triage
    from mlrunbook.response.lifecycle import runs

    patient = replace(world, policy=Policy(triage=Triage(looks=2)))
    incident_id = report(patient)
    run = runs.take(patient, incident_id, "run-1")
    assert run is not None
    seen = triage.look(run, final_look=True)
    assert seen.assessment.real is False
    person(patient, Severity.MEDIUM)
    assert triage._settle(run, seen).real is True
    assert told(world, incident_id, "status")[-1].startswith("Status detected -> investigating")
