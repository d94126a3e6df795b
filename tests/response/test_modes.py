"""How far the runbook goes by itself: the same bad release in each mode, with every change counted at the platform."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlrunbook.domain.actions import Order, PlanKind
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.reports import Origin, Report
from mlrunbook.domain.errors import Invalid, NotApproved
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.owned import Known, ModelRules, Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.observation import Happened, Observed, WouldContain, WouldResolve, summary
from mlrunbook.response import modes
from mlrunbook.response.containment.emergency import Requested, request
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.execute import execute
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.lifecycle.severity_change import Said
from mlrunbook.response.resolution import observation
from mlrunbook.response.resolution.observed import observed as observed_of
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, leases, outbox, plans, records
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.containment.test_emergency import ONCALL
from tests.response.people import approve, deliver, incident_of, plan, report, resolve, say, told
from tests.response.test_bad_release import EXPECTED


def in_mode(world: World, mode: Mode) -> World:
    return replace(world, policy=Policy(models={MODEL: ModelRules(mode=mode)}))


@pytest.fixture
def observed(world: World) -> World:
    return in_mode(world, Mode.OBSERVE)


@pytest.fixture
def proposing(world: World) -> World:
    return in_mode(world, Mode.PROPOSE)


def alert(world: World, *, firing: bool = True, of: str = "f1") -> str:
    """What Alertmanager tells of the model."""
    body = {"labels": {"alertname": "ModelF1Drop", "model": MODEL}, "annotations": {"summary": "F1 fell 40 %"}}
    one = NormalisedAlert(
        fingerprint=of,
        firing=firing,
        name="ModelF1Drop",
        model=MODEL,
        model_version=None,
        level="critical",
        incident_type=IncidentType.PERFORMANCE_DEGRADATION,
        summary="F1 fell 40 %",
        starts_at=world.now().replace(hour=0, minute=0, second=0, microsecond=0),
        body=body,
    )
    with world.transaction() as conn:
        [incident_id] = take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [one]), now=world.now())
    return incident_id


def would(world: World, incident_id: str) -> tuple[WouldContain, WouldResolve]:
    with world.transaction() as conn:
        contain = records.recall(conn, incident_id, WouldContain)
        propose = records.recall(conn, incident_id, WouldResolve)
    assert contain is not None
    assert propose is not None
    return contain, propose


def standing(world: World, incident_id: str) -> list[Any]:
    with world.transaction() as conn:
        return plans.standing(conn, incident_id, *PlanKind)


def is_to_start_now(world: World, incident_id: str) -> bool:
    with world.transaction() as conn:
        newest = max(outbox.of_incident(conn, incident_id, "start_run"), key=lambda row: row["payload"]["generation"])
    return bool(newest["not_before"] <= world.now())


class TestObserve:
    def test_it_says_in_one_channel_what_it_would_do_and_changes_nothing_and_pages_nobody(
        self, observed: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        before, incident_id = file_world.state, alert(observed)
        assert carry(observed, incident_id, "run-1") == "observed"
        for _ in range(4):
            deliver(observed)
            clock.advance(hours=1)
        assert file_world.applied == {}
        assert file_world.state == before
        assert standing(observed, incident_id) == [], "nobody is asked for anything"
        assert notifier.pages() == []
        [message] = notifier.sent
        assert message.channel == "incidents"
        contain, resolve = would(observed, incident_id)
        assert {one.kind for one in contain.at_once} == {"configure"}
        assert [one.kind for one in resolve.changes] == ["rollback"] or resolve.path == "rollback"
        assert incident_of(observed, incident_id).status is Status.INVESTIGATING
        assert told(observed, incident_id, "observed")

    def test_the_channel_is_that_of_policy(self, world: World, notifier: LedgerNotifier) -> None:
        channels = Policy().channels | {"watching": "#watching"}
        communication = Policy().communication.model_copy(update={"observe_channel": "watching"})
        watching = replace(world, policy=Policy(mode=Mode.OBSERVE, channels=channels, communication=communication))
        carry(watching, report(watching), "run-1")
        deliver(watching)
        assert [m.channel for m in notifier.sent] == ["watching"]

    def test_it_ends_with_its_alerts_and_asks_for_no_review(self, observed: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        clock.advance(minutes=10)
        alert(observed, firing=False)
        assert carry(observed, incident_id, "run-2") == "closed"
        closed = incident_of(observed, incident_id)
        assert closed.status is Status.CLOSED
        assert closed.review_due_at is None
        deliver(observed)
        assert notifier.pages() == []

    def test_a_person_who_says_that_it_is_fixed_ends_it(self, observed: World, clock: Clock) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        clock.advance(minutes=10)
        resolve(observed, incident_id, "rolled back by hand")
        assert carry(observed, incident_id, "run-2") == "closed"
        assert incident_of(observed, incident_id).status is Status.CLOSED

    def test_what_a_person_reports_pages_and_is_acted_on(
        self, observed: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = report(observed, Severity.HIGH, by_alert=False)
        assert carry(observed, incident_id, "run-1") == "pending"
        deliver(observed)
        assert {"On-Call ML Engineer", "ML Team Lead"} <= {m.body.split(":")[0] for m in notifier.pages()}
        approve(observed, incident_id)
        clock.advance(minutes=2)
        assert carry(observed, incident_id, "run-1") == "closed"
        assert file_world.applied == EXPECTED

    def test_a_person_who_reports_on_what_is_only_observed_takes_it_up(
        self, observed: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        deliver(observed)
        assert notifier.pages() == []
        assert report(observed, Severity.HIGH, by_alert=False) == incident_id
        deliver(observed)
        assert "On-Call ML Engineer" in {m.body.split(":")[0] for m in notifier.pages()}
        assert carry(observed, incident_id, "run-2") == "pending"
        assert set(file_world.applied) == {"config:human_approval=True", "config:auto_scheduling=False"}
        assert plan(observed, incident_id) is not None

    def test_an_order_is_carried_out(self, observed: World, file_world: FileWorld) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        with observed.transaction() as conn:
            incident = incidents.get(conn, incident_id, lock=True)
            request(conn, observed.policy, incident, Requested(Order.STOP_SERVING, ONCALL, "it harms"), now=observed.now())
        carry(observed, incident_id, "run-2")
        assert file_world.applied.get("scale:0") == 1

    def test_whatever_a_flow_does_nothing_is_applied(self, world: World, observed: World, file_world: FileWorld) -> None:
        """The one way to change production refuses, also a plan that a rule has approved before."""
        incident_id = alert(observed)
        run = runs.take(world, incident_id, "run-1")  # of a worker that still follows the policy of before
        assert run is not None
        from mlrunbook.response.containment import containment
        from mlrunbook.response.detection import triage

        triage.triage(run)
        decided = containment.plan(run)
        assert decided.automatic is not None
        with world.transaction() as conn:
            evidence.preserve(conn, incident_id, "metrics.json", b"{}", "application/json", now=world.now())
            wanted = plans.get(conn, incident_id, decided.automatic)
            approve_by_rule(conn, wanted, now=world.now())
        with pytest.raises(NotApproved, match="observe"):
            execute(observed, run.lease, wanted, 0)
        assert file_world.applied == {}

    def test_a_report_that_comes_while_it_is_about_to_end_keeps_it_open(
        self, observed: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        clock.advance(minutes=10)
        alert(observed, firing=False)
        run = runs.take(observed, incident_id, "run-2")
        assert run is not None
        assert observation.is_observed(run)
        report(observed, Severity.MEDIUM, by_alert=False)
        assert observation.is_over(run) is None
        assert incident_of(observed, incident_id).status is Status.INVESTIGATING
        deliver(observed)
        assert notifier.pages()

    def test_a_person_who_says_how_severe_it_is_takes_it_up(self, observed: World, notifier: LedgerNotifier) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        with observed.transaction() as conn:
            severity_change.say(conn, observed.policy, incident_id, Said(Severity.MEDIUM, "Ann", "few assets"), now=observed.now())
        assert is_to_start_now(observed, incident_id)
        deliver(observed)
        assert notifier.pages()
        [words] = told(observed, incident_id, "mode")
        assert "Ann" in words

    def test_an_alert_about_a_name_that_nobody_knows_pages(self, observed: World, notifier: LedgerNotifier) -> None:
        """No run looks at it, so nobody would ever hear of it."""
        everything = replace(observed, policy=Policy(mode=Mode.OBSERVE))
        said = Report(
            "chrun",
            IncidentType.PERFORMANCE_DEGRADATION,
            everything.policy.family_of(IncidentType.PERFORMANCE_DEGRADATION),
            Severity.HIGH,
            "F1 fell",
            "alertmanager",
            origin=Origin.ALERT,
        )
        with everything.transaction() as conn:
            take_in(conn, everything.policy, said, now=everything.now(), standing=Standing(Known.UNKNOWN))
        deliver(everything)
        assert "On-Call ML Engineer" in {m.body.split(":")[0] for m in notifier.pages()}

    def test_a_gateway_that_starts_with_another_mode_takes_up_what_was_observed_at_once(
        self, world: World, observed: World, notifier: LedgerNotifier
    ) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        runs.take_up_what_was_observed(observed)
        assert not is_to_start_now(observed, incident_id)
        for _ in range(2):
            runs.take_up_what_was_observed(world)
        assert is_to_start_now(world, incident_id)
        assert len(told(world, incident_id, "mode")) == 1
        with world.transaction() as conn:
            assert outbox.of_incident(conn, incident_id, "update"), "stakeholders hear of it every half hour"
        deliver(world)
        assert "On-Call ML Engineer" in {m.body.split(":")[0] for m in notifier.pages()}

    def test_where_the_mode_cannot_be_read_people_are_paged(self, observed: World, notifier: LedgerNotifier) -> None:
        class Broken(Policy):
            def mode_of(self, model: str) -> Mode:
                raise ValueError(f"no mode of {model} can be read")

        broken = replace(observed, policy=Broken())
        report(broken, Severity.CRITICAL)
        deliver(broken)
        assert notifier.pages()

    def test_once_its_model_acts_what_was_observed_is_handled(
        self, world: World, observed: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        assert carry(world, incident_id, "run-2") == "pending"
        assert set(file_world.applied) == {"config:human_approval=True", "config:auto_scheduling=False"}
        deliver(world)
        assert "On-Call ML Engineer" in {m.body.split(":")[0] for m in notifier.pages()}


class TestPropose:
    def test_nothing_is_changed_before_a_persons_yes_and_each_yes_changes_what_it_is_about(
        self, proposing: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = alert(proposing)
        assert carry(proposing, incident_id, "run-1") == "pending"
        deliver(proposing)
        assert file_world.applied == {}
        assert "On-Call ML Engineer" in {m.body.split(":")[0] for m in notifier.pages()}

        approve(proposing, incident_id, PlanKind.MITIGATION)
        assert carry(proposing, incident_id, "run-1") == "pending"
        contained = dict(file_world.applied)
        assert contained == {"config:human_approval=True": 1, "config:auto_scheduling=False": 1, "rollback": 1}

        approve(proposing, incident_id)
        clock.advance(minutes=2)
        assert carry(proposing, incident_id, "run-1") == "pending", "taking the containment back is a change too"
        assert file_world.applied == contained
        approve(proposing, incident_id, PlanKind.UNDO)
        assert carry(proposing, incident_id, "run-1") == "closed"
        assert file_world.applied == EXPECTED

    def test_containment_stays_where_a_person_rejects_taking_it_back(self, proposing: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = alert(proposing)
        carry(proposing, incident_id, "run-1")
        approve(proposing, incident_id, PlanKind.MITIGATION)
        carry(proposing, incident_id, "run-1")
        approve(proposing, incident_id)
        clock.advance(minutes=2)
        carry(proposing, incident_id, "run-1")
        say(proposing, incident_id, "rejected", PlanKind.UNDO)
        assert carry(proposing, incident_id, "run-1") == "closed"
        assert file_world.state["config"]["human_approval"] is True

    def test_a_rule_alone_changes_nothing(self, world: World, proposing: World, file_world: FileWorld) -> None:
        incident_id = alert(world)
        assert carry(proposing, incident_id, "run-1") == "pending"
        with world.transaction() as conn:
            offered = plans.current(conn, incident_id, PlanKind.MITIGATION)
            assert offered is not None
            ruled = replace(offered, kind=PlanKind.CONTAINMENT, rule="containment.high.human_approval")
            plans.propose(conn, ruled, now=world.now())
            approve_by_rule(conn, ruled, now=world.now())
            lease = leases.get(conn, incident_id)
        with pytest.raises(NotApproved, match="propose"):
            execute(proposing, lease, ruled, 0)
        assert file_world.applied == {}

    def test_what_was_changed_is_not_left_alone_when_its_model_becomes_observed(
        self, world: World, observed: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = alert(world)
        carry(world, incident_id, "run-1")
        contained = dict(file_world.applied)
        assert contained
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(observed, incident_id, "run-1") == "pending"
        assert file_world.applied == contained | {"rollback": 1}
        approve(observed, incident_id, PlanKind.UNDO)
        assert carry(observed, incident_id, "run-1") == "closed"


def test_one_that_nobody_tells_of_any_more_is_over(observed: World, clock: Clock) -> None:
    incident_id = alert(observed)
    carry(observed, incident_id, "run-1")
    clock.at += timedelta(hours=25)
    assert carry(observed, incident_id, "run-2") == "closed"


class TestReport:
    """What would have been done, against what happened."""

    def seen(self, world: World) -> dict[str, Observed]:
        return {one.incident_id: one for one in observed_of(world, model=None, since=None, may_see=lambda _: True)}

    def test_a_rollback_by_hand_is_what_would_have_been_done(self, observed: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        clock.advance(minutes=40)
        state = file_world.state
        file_world.set(serving="v1.5.0", previous="v2.0.0", released_by="rollback", deployed_at=clock().isoformat())
        assert state["serving"] == "v2.0.0"
        alert(observed, firing=False)
        carry(observed, incident_id, "run-2")
        one = self.seen(observed)[incident_id]
        assert one.happened is Happened.SAME
        assert one.minutes_sooner is not None
        assert one.minutes_sooner >= 39
        assert summary([one]).startswith("1 observed; would have acted in 1 (1 of them at once)")

    def test_an_alert_that_ends_by_itself_is_told_apart_from_what_people_did(self, observed: World, clock: Clock) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        assert self.seen(observed)[incident_id].happened is Happened.OPEN
        clock.advance(minutes=10)
        alert(observed, firing=False)
        carry(observed, incident_id, "run-2")
        assert self.seen(observed)[incident_id].happened is Happened.BY_ITSELF

    def test_what_people_report_or_fix_otherwise_is_told_too(self, observed: World, clock: Clock) -> None:
        incident_id = alert(observed)
        carry(observed, incident_id, "run-1")
        clock.advance(minutes=10)
        resolve(observed, incident_id, "replaced the sensor gateway")
        carry(observed, incident_id, "run-2")
        assert self.seen(observed)[incident_id].happened is Happened.OTHERWISE
        clock.advance(hours=2)
        again = alert(observed, of="another")
        carry(observed, again, "run-3")
        report(observed, Severity.HIGH, by_alert=False)
        assert self.seen(observed)[again].happened is Happened.TAKEN_UP


class TestOnRecord:
    """Every change of mode that a gateway or a run sees, and who says why."""

    def test_a_change_is_noted_once_and_explained_by_a_person_once(self, world: World, observed: World, proposing: World) -> None:
        for one in (world, observed, observed, proposing, world):
            with one.transaction() as conn:
                modes.note(conn, one.policy, now=one.now())
        with world.transaction() as conn:
            found = modes.changes(conn, model=MODEL, limit=10)
            assert [(c.was, c.mode) for c in found] == [(Mode.PROPOSE, Mode.ACT), (Mode.OBSERVE, Mode.PROPOSE), (None, Mode.OBSERVE)]
            assert {c.by for c in found} == {None}
            said = modes.explain(conn, MODEL, by="Kim (ML Team Lead)", why="nine of nine agreed", now=world.now())
            assert (said.mode, said.by, said.why) == (Mode.ACT, "Kim (ML Team Lead)", "nine of nine agreed")
            with pytest.raises(Invalid):
                modes.explain(conn, MODEL, by="Ole", why="another", now=world.now())

    def test_a_run_notes_the_mode_that_it_reads(self, observed: World) -> None:
        carry(observed, alert(observed), "run-1")
        with observed.transaction() as conn:
            assert modes.changes(conn, model=MODEL, limit=1)[0].mode is Mode.OBSERVE
