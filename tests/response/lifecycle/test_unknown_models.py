"""An incident on a name that neither the registry nor policy knows: paged once, nothing planned, nothing changed, no run."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlrunbook.domain import actions
from mlrunbook.domain.actions import Path
from mlrunbook.domain.detection.alerts import PROVEN_AS, NormalisedAlert
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.communication import missed_pages
from mlrunbook.response.communication.notifications import stop
from mlrunbook.response.detection import monitor
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.lifecycle.unknown_models import sentence
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, plans
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of, told

NAME = "predictive_maintenence"


def fire(
    world: World,
    model: str = NAME,
    name: str = "ModelF1Drop",
    *,
    level: str = "critical",
    held: list[str] | None = None,
    start: str = "first",
    by: tuple[str, str] = ("", OWN),
) -> list[str]:
    """An alert as a webhook takes it in; with the same `start` a repeat. `by`: the sender, and as whom it is proven."""
    now = world.now()
    body = {"labels": {"alertname": name, "severity": level}, "annotations": {"summary": f"{name} fires"}, PROVEN_AS: by[1]}
    fired = NormalisedAlert(f"{name}@{model}", True, name, model, None, level, None, f"{name} fires", BEGUN[start], body)
    standings = world.known_models.of(world.policy, [model])

    def hold(_: NormalisedAlert, why: str, is_new: bool) -> None:
        if is_new and held is not None:
            held.append(why)

    with world.transaction() as conn:
        batch, holding = AlertBatch("alertmanager", [fired], sender=by[0]), hold if held is not None else None
        return take_in_alerts(conn, world.policy, batch, standings=standings, hold=holding, now=now)


BEGUN = {"first": Clock().at.replace(minute=1), "second": Clock().at.replace(minute=2)}


def said(world: World, incident_id: str) -> str | None:
    with world.transaction() as conn:
        return sentence(conn, incidents.get(conn, incident_id))


def nothing_was_done(world: World, file_world: FileWorld, incident_id: str) -> None:
    assert file_world.applied == {}
    with world.transaction() as conn:
        assert plans.standing(conn, incident_id, *actions.PlanKind) == []
        assert journal.of_incident(conn, incident_id) == []


def test_it_pages_the_engineer_on_call_once_with_what_was_probably_meant_and_then_nobody(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator
) -> None:
    [incident_id] = fire(world)
    for _ in range(30):
        deliver(world)
        missed_pages.audit(world)
        clock.advance(minutes=20)
    [page] = notifier.pages()
    assert page.body.startswith("On-Call ML Engineer")
    assert "did you mean predictive_maintenance?" in page.body
    assert "models:" in page.body
    assert "incidents close" in page.body
    assert notifier.sent == [page]
    assert orchestrator.started == {}
    assert incident_of(world, incident_id).status is Status.DETECTED
    nothing_was_done(world, file_world, incident_id)


@pytest.mark.parametrize("level", ["critical", "warning"])
def test_repeats_and_other_alerts_on_it_join_and_page_nobody_again(
    world: World, clock: Clock, notifier: LedgerNotifier, level: str
) -> None:
    [incident_id] = fire(world, level="warning")
    for start in ("first", "second"):
        clock.advance(minutes=40)
        assert fire(world, level=level, start=start) == [incident_id]
        assert fire(world, name="CriticalFailureMissed", level=level, start=start) == [incident_id]
        deliver(world)
    assert len(notifier.pages()) == 1


def test_a_run_that_somebody_starts_does_nothing(world: World, file_world: FileWorld) -> None:
    [incident_id] = fire(world)
    assert carry(world, incident_id, "run-1") == "not ours"
    with world.transaction() as conn:
        assert leases.get(conn, incident_id).state == "free"
    nothing_was_done(world, file_world, incident_id)


def test_a_breach_on_an_unknown_name_reaches_the_officers_too(world: World, notifier: LedgerNotifier) -> None:
    fire(world, name="ModelProbed")
    deliver(world)
    assert {page.body.partition(":")[0] for page in notifier.pages()} == {"On-Call ML Engineer", "Security Officer", "Compliance Officer"}


class TestManyNames:
    def test_more_than_policy_allows_an_hour_wait_in_quarantine_once_each_and_open_later(self, world: World, clock: Clock) -> None:
        held: list[str] = []
        opened = [fire(world, f"ghost_{n}", held=held) for n in range(8)]
        assert [len(ids) for ids in opened] == [1] * 5 + [0] * 3
        assert len(held) == 3
        assert "at most 5 incidents an hour" in held[0]
        fire(world, "ghost_7", held=held)
        assert len(held) == 3, "a repeat is only counted"
        assert fire(world, "ghost_0", held=held) == opened[0], "what is open goes on"
        clock.advance(minutes=61)
        assert fire(world, "ghost_7", held=held), "a repeat opens it as soon as it may"
        assert len(held) == 3

    def test_alerts_on_known_models_are_never_held_back(self, world: World) -> None:
        held: list[str] = []
        for n in range(6):
            fire(world, f"ghost_{n}", held=held)
        assert fire(world, "predictive_maintenance", held=held)
        assert len(held) == 1


class TestKnownLater:
    @pytest.mark.parametrize("by", ["registered", "policy"])
    @pytest.mark.parametrize("start", ["first", "second"])
    def test_the_next_alert_makes_it_a_normal_incident_with_its_whole_ladder_from_now(
        self,
        world: World,
        file_world: FileWorld,
        clock: Clock,
        notifier: LedgerNotifier,
        orchestrator: LedgerOrchestrator,
        by: str,
        start: str,
    ) -> None:
        [incident_id] = fire(world)
        deliver(world)
        clock.advance(hours=5)
        if by == "registered":
            file_world.registered.append(NAME)
        else:
            world = replace(world, policy=Policy(models={NAME: ModelRules()}))
        assert fire(world, start=start) == [incident_id]
        assert said(world, incident_id) is None
        deliver(world)
        assert [f"{incident_id}:1"] == list(orchestrator.started)
        clock.advance(minutes=2)
        deliver(world)
        assert len(notifier.pages()) == 3, "the engineer and the lead at once, the others in their time"
        clock.advance(minutes=120)
        deliver(world)
        assert len(notifier.pages()) > 4

    def test_a_run_finds_it_known(self, world: World, file_world: FileWorld) -> None:
        [incident_id] = fire(world)
        file_world.registered.append(NAME)
        assert carry(world, incident_id, "run-1") != "not ours"
        assert said(world, incident_id) is None

    def test_while_the_registry_is_away_it_stays_as_it_is(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        [incident_id] = fire(world)
        file_world.down = True
        clock.advance(minutes=10)
        assert fire(world, start="second") == [incident_id]
        assert said(world, incident_id)
        assert carry(world, incident_id, "run-1") == "not ours"


class TestRegistryAway:
    def test_every_name_is_accepted_and_the_run_that_finds_it_unknown_plans_nothing_and_says_so_once(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.down = True
        [incident_id] = fire(world)
        assert said(world, incident_id) is None
        file_world.down = False
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "not ours"
        assert "did you mean predictive_maintenance?" in str(said(world, incident_id))
        for _ in range(12):
            clock.advance(hours=1)
            deliver(world)
            assert carry(world, incident_id, "run-2") == "not ours"
        assert len(notifier.pages()) == 1
        assert len(told(world, incident_id, "waiting")) == 1
        nothing_was_done(world, file_world, incident_id)

    def test_the_ladder_is_whole_again_when_its_name_is_known_after_all(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.down = True
        fire(world)
        file_world.down = False
        clock.advance(minutes=10)
        [incident_id] = fire(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        deliver(world)
        before = len(notifier.pages())
        file_world.registered.append(NAME)
        clock.advance(minutes=10)
        fire(world)
        clock.advance(minutes=5)
        deliver(world)
        assert len(notifier.pages()) - before >= 2


class TestDoors:
    def ask(self, world: World, model: str = NAME, **how: object) -> str:
        about = (model, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "it is wrong", "", "anna")
        return open_or_join(world, NewReport(*about), **how)  # type: ignore[arg-type]

    def test_a_report_in_prefect_is_refused_with_what_was_probably_meant_unless_the_person_insists(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        with pytest.raises(NotFound, match=r"did you mean predictive_maintenance\?"):
            self.ask(world)
        incident_id = self.ask(world, unknown_model=True)
        deliver(world)
        assert len(notifier.pages()) == 1
        assert self.ask(world, unknown_model=True) == incident_id
        deliver(world)
        assert len(notifier.pages()) == 2, "a person's report is never only counted"
        nothing_was_done(world, file_world, incident_id)

    def test_a_path_is_refused_for_it_whoever_insists(self, world: World) -> None:
        request = Request(path=Path.ROLLBACK, target_version="v1.5.0", by="anna", reason="it is wrong")
        with pytest.raises(NotFound):
            self.ask(world, request=request, unknown_model=True)

    @pytest.mark.parametrize("name", ["../admin", "modèle", "a b", "x" * 101])
    def test_a_name_that_no_model_can_have_is_refused_there_too(self, world: World, name: str) -> None:
        with pytest.raises(Invalid, match="no model id"):
            self.ask(world, name)

    def test_while_the_registry_is_away_a_report_is_accepted(self, world: World, file_world: FileWorld) -> None:
        file_world.down = True
        assert incident_of(world, self.ask(world)).model == NAME

    def test_the_monitor_does_not_look_at_it(self, world: World) -> None:
        with pytest.raises(NotFound, match=r"did you mean predictive_maintenance\?"):
            monitor.read_status(world, NAME)


# --- alerts on many names


JUNK = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),  # the sender
        st.sampled_from(["", "email", "alertmanager"]),  # as whom it is proven
        st.integers(0, 9),  # the name it makes up
        st.sampled_from(["ModelF1Drop", "CriticalFailureMissed"]),
    ),
    max_size=40,
)
_ghosts = count(1)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(junk=JUNK, same_name=st.booleans())
def test_junk_of_any_number_of_senders_delays_no_proven_critical_alert(
    world: World, notifier: LedgerNotifier, junk: list[tuple[str, str, int, str]], same_name: bool
) -> None:
    example = next(_ghosts)
    for sender, proven_as, number, name in junk:
        fire(world, f"ghost_{example}_{number}", name, held=[], by=(f"{sender}{example}", proven_as))
    deliver(world)
    model = f"ghost_{example}_{0 if same_name else 'real'}"
    sent = len(notifier.sent)
    [incident_id] = fire(world, model, "CriticalFailureMissed", held=[], by=(f"the watch {example}", "alertmanager"))
    deliver(world)
    opened_by_a_trusted_sender = any(f"ghost_{example}_{n}" == model and by == "alertmanager" for _, by, n, _ in junk)
    assert opened_by_a_trusted_sender or [m.incident_id for m in notifier.sent[sent:] if m.page] == [incident_id]


@pytest.mark.parametrize("by", [("the watch", "alertmanager"), ("anybody", "")])
def test_alerts_over_a_senders_limit_are_paged_at_once_and_again_while_more_come(
    world: World, clock: Clock, notifier: LedgerNotifier, by: tuple[str, str]
) -> None:
    held: list[str] = []
    for number in range(5):
        fire(world, f"ghost_{number}", held=held, by=by)
    deliver(world)
    assert (held, len(notifier.pages())) == ([], 5)
    fire(world, "ghost_5", held=held, by=by)
    deliver(world)
    assert (len(held), len(notifier.pages())) == (1, 6), "the first pages at once"
    for minute in range(30):
        fire(world, f"ghost_more_{minute}", held=held, by=by)
        came = len(notifier.pages())
        clock.advance(minutes=1)
        deliver(world)
        assert len(notifier.pages()) <= came + 2
    assert 8 <= len(notifier.pages()) <= 12, "and more are paged every ten minutes, however many come"
    sent = len(notifier.pages())
    fire(world, "ghost_of_a_failure", "CriticalFailureMissed", held=held, by=by)
    deliver(world)
    assert len(notifier.pages()) == sent + 1, "a critical one waits for none of them"
    assert len(held) == 32


def test_what_is_held_is_paged_although_the_incidents_that_used_up_the_limit_are_closed(
    world: World, clock: Clock, notifier: LedgerNotifier
) -> None:
    opened = [fire(world, f"ghost_{number}", held=[])[0] for number in range(5)]
    held: list[str] = []
    assert fire(world, "ghost_5", held=held) == []
    assert fire(world, "ghost_6", held=held) == []
    for incident_id in opened:
        with world.transaction() as conn:
            incidents.set_status(conn, incident_id, Status.FALSE_ALARM, why="a typo", actor="a person", now=world.now())
            stop(conn, incident_id, now=world.now())
    sent = len(notifier.pages())
    clock.advance(minutes=10)
    deliver(world)
    assert len(notifier.pages()) > sent
    assert fire(world, "ghost_7", held=held), "nothing is open that could page about it: it opens its own"
