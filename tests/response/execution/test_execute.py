"""Every change to the world goes through execute(): approved, journaled, at most once, read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import Engine

from mlrunbook.base.progress import told_to
from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Materialize,
    Plan,
    PlanKind,
    Promote,
    Register,
    Restart,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Scale,
    Stage,
)
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import Fenced, NotApproved, Refused, Transient, Unknown
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import FreezeWindow, Guardrails, Policy
from mlrunbook.response.execution.approvals import approve_by_rule, decide
from mlrunbook.response.execution.execute import execute
from mlrunbook.response.execution.handlers import COMPARED
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, leases, outbox, plans, timeline
from tests.fake_features import START
from tests.fakes import MODEL, Clock, FileWorld, empty_store, world_of

BACK = RollBack(MODEL, "v1.5.0", reason="v2.0.0 is a bad release")
APPROVAL = Configure(MODEL, {"human_approval": True})
STOP = Scale(MODEL, 0)
RULE = "containment.high.human_approval"


@dataclass
class Scene:
    """An open incident with evidence, its lease held, and a world to change."""

    world: World
    file_world: FileWorld
    clock: Clock
    incident_id: str
    lease: leases.Lease

    def plan(self, *actions: Action, kind: PlanKind = PlanKind.RESOLUTION, rule: str | None = None) -> Plan:
        plan = Plan(self.incident_id, kind, MODEL, actions, ("a test",), rule=rule)
        with self.world.transaction() as conn:
            plans.propose(conn, plan, now=self.clock())
        return plan

    def approved(self, *actions: Action, kind: PlanKind = PlanKind.RESOLUTION) -> Plan:
        plan = self.plan(*actions, kind=kind)
        self.say(plan, "approved")
        return plan

    def automatic(self, *actions: Action, kind: PlanKind = PlanKind.CONTAINMENT) -> Plan:
        plan = self.plan(*actions, kind=kind, rule=RULE)
        with self.world.transaction() as conn:
            approve_by_rule(conn, plan, now=self.clock())
        return plan

    def say(self, plan: Plan, decision: str) -> None:
        said = Decision(decision, "the lead", "ml_team_lead", "rest")
        with self.world.transaction() as conn:
            decide(conn, self.world.policy, plan.incident_id, plan.digest, said, now=self.clock())

    def do(self, plan: Plan, ordinal: int = 0) -> journal.Row:
        return execute(self.world, self.lease, plan, ordinal)

    def row(self, plan: Plan, ordinal: int = 0) -> journal.Row | None:
        with self.world.transaction() as conn:
            return journal.find(conn, plan.incident_id, plan.digest, ordinal)

    def state(self, plan: Plan) -> str | None:
        row = self.row(plan)
        return row.state if row else None

    def crashed(self, plan: Plan, *, applied: bool = False) -> None:
        """An earlier attempt journaled its intent, began to apply, and died: before the change or after it."""
        before = {"serving_version": "v2.0.0", "server_version": "v2.0.0"}
        with self.world.transaction() as conn:
            yes = plans.approvals_of(conn, plan.incident_id, plan.digest)[-1]
            row = journal.intend(conn, journal.Intent(plan, 0, yes.id, 1, before), now=self.clock())
            journal.mark(conn, row, "applying")
        if applied:
            self.file_world.rollback(MODEL, target_version="v1.5.0", reason="", rolled_back_by="", idempotency_key=row.id)

    def set_severity(self, severity: Severity) -> None:
        with self.world.transaction() as conn:
            found = incidents.Classification(severity, IncidentType.PREDICTION_ERROR)
            incidents.classify(conn, self.incident_id, found, why="test", actor="test", now=self.clock())

    def pages(self) -> list[str]:
        with self.world.transaction() as conn:
            return [r["payload"]["reason"] for r in outbox.of_incident(conn, self.incident_id, "page")]

    def said(self) -> list[str]:
        with self.world.transaction() as conn:
            return [e.text for e in timeline.read(conn, self.incident_id)]


class Meanwhile(FileWorld):
    """Something happens once while the platform's status is read, after so many reads of it."""

    def __init__(self, path: Path, now: Clock, happens: Callable[[], None], *, after_reads: int) -> None:
        super().__init__(path, now)
        self._happens, self._reads = happens, after_reads

    def status(self, model: str) -> ServingStatus:
        seen = super().status(model)
        self._reads -= 1
        if self._reads == -1:
            self._happens()
        return seen


def open_incident(world: World, family: str = "performance", *, holder: str = "run-1") -> tuple[str, leases.Lease]:
    told = Report(MODEL, IncidentType.PERFORMANCE_DEGRADATION, family, Severity.HIGH, "F1 fell 40 %", "alertmanager")
    with world.transaction() as conn:
        incident, _ = incidents.open_or_join(conn, told, now=world.now())
        incidents.set_status(conn, incident.id, Status.INVESTIGATING, why="real", actor="test", now=world.now())
        evidence.preserve(conn, incident.id, "metrics.json", b"{}", "application/json", now=world.now())
        lease = leases.take(conn, incident.id, holder, here=world.elapsed(), lease_s=3600)
    assert lease is not None
    return incident.id, lease


Make = Callable[..., Scene]


@pytest.fixture
def make(engine: Engine, tmp_path: Path) -> Make:
    def scene(policy: Policy | None = None) -> Scene:
        empty_store(engine)
        clock = Clock()
        file_world = FileWorld(tmp_path / "world.json", clock)
        world = world_of(engine, file_world, clock, policy=policy)
        return Scene(world, file_world, clock, *open_incident(world))

    return scene


@pytest.fixture
def scene(make: Make) -> Scene:
    return make()


class TestOwnModel:
    def test_a_plan_about_another_model_cannot_be_made(self) -> None:
        with pytest.raises(Refused, match="scale is about churn, and this incident about predictive_maintenance"):
            Plan("INC-1", PlanKind.RESOLUTION, MODEL, (BACK, Scale("churn", 0)), ("a test",))

    def test_a_plan_of_another_model_than_the_incidents_is_refused_before_anything(self, scene: Scene) -> None:
        plan = Plan(scene.incident_id, PlanKind.RESOLUTION, "churn", (Scale("churn", 0),), ("a test",))
        with scene.world.transaction() as conn:
            plans.propose(conn, plan, now=scene.clock())
        scene.say(plan, "approved")
        with pytest.raises(Refused, match="about churn"):
            scene.do(plan)
        assert (scene.file_world.applied, scene.row(plan)) == ({}, None)

    @pytest.mark.parametrize("action", [Materialize(MODEL, ("asset_sensors",)), ResumeMaterialization(MODEL, ("asset_sensors",))])
    def test_feature_views_that_the_model_does_not_read_are_left_alone(self, make: Make, action: Action) -> None:
        scene = make(Policy(models={MODEL: ModelRules(feature_views=("asset_wear",))}))
        scene.file_world.set(features=START | {"stale": ["asset_sensors"], "suspended": ["asset_sensors"]})
        with pytest.raises(Refused, match="does not read asset_sensors; its feature views: asset_wear"):
            scene.do(scene.approved(action))
        assert scene.file_world.applied == {}


class TestApproval:
    def test_without_an_approval_nothing_is_applied(self, scene: Scene) -> None:
        plan = scene.plan(BACK)
        with pytest.raises(NotApproved, match="0 of 1 approvals"):
            scene.do(plan)
        assert scene.file_world.applied == {}
        assert scene.row(plan) is None

    def test_a_rejected_an_expired_and_a_replaced_plan_are_not_carried_out(self, scene: Scene) -> None:
        rejected = scene.plan(BACK)
        scene.say(rejected, "rejected")
        with pytest.raises(NotApproved, match="rejected the plan"):
            scene.do(rejected)
        replaced = scene.approved(RollBack(MODEL, "v1.4.0"))
        expired = scene.approved(RollBack(MODEL, "v1.3.0"))
        with pytest.raises(NotApproved, match="replaced by a newer one"):
            scene.do(replaced)
        scene.clock.advance(hours=2)
        with pytest.raises(NotApproved, match="expired"):
            scene.do(expired)
        assert scene.file_world.applied == {}

    def test_nothing_is_altered_before_evidence_is_preserved(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        with scene.world.transaction() as conn:
            conn.exec_driver_sql("DELETE FROM evidence")
        with pytest.raises(Refused, match="no evidence has been preserved"):
            scene.do(plan)
        assert scene.file_world.applied == {}

    def test_a_run_that_lost_its_lease_changes_nothing(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        with scene.world.transaction() as conn:
            leases.request_start(conn, scene.incident_id, why="went silent", now=scene.clock())
        with pytest.raises(Fenced):
            scene.do(plan)
        assert scene.file_world.applied == {}


class TestRejectedMeanwhile:
    """Somebody says no while the run is at work: the plan is either not begun and never will be, or can no longer be rejected."""

    def scene_where(self, make: Make, after_reads: int, said: list[str]) -> tuple[Scene, Plan]:
        scene = make()
        plan = scene.approved(BACK)

        def reject() -> None:
            try:
                scene.say(plan, "rejected")
                said.append("rejected")
            except Refused as error:
                said.append(str(error))

        scene.file_world = Meanwhile(scene.file_world.path, scene.clock, reject, after_reads=after_reads)
        scene.world = replace(scene.world, platform=scene.file_world, runtime=scene.file_world)
        return scene, plan

    def test_a_no_while_the_state_before_is_read_is_heard(self, make: Make) -> None:
        said: list[str] = []
        scene, plan = self.scene_where(make, 0, said)
        with pytest.raises(NotApproved, match="rejected the plan"):
            scene.do(plan)
        assert (said, scene.row(plan), scene.file_world.applied) == (["rejected"], None, {})

    def test_a_no_once_the_change_is_applied_is_refused_and_the_change_is_seen_through(self, make: Make) -> None:
        said: list[str] = []
        scene, plan = self.scene_where(make, 1, said)
        assert scene.do(plan).state == "done"
        assert "under way: roll predictive_maintenance back to v1.5.0" in said[0]
        with pytest.raises(Refused, match=r"rolled back to v1\.5\.0.*--route v2\.0\.0"):
            scene.say(plan, "rejected")
        assert scene.file_world.applied == {"rollback": 1}


class TestOnce:
    def test_a_change_is_journaled_with_the_state_before_and_after_and_the_approval_it_rests_on(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        row = scene.do(plan)
        assert (row.state, row.attempts) == ("done", 1)
        assert row.before == {"serving_version": "v2.0.0", "server_version": "v2.0.0"}
        assert row.after == {"serving_version": "v1.5.0", "server_version": "v1.5.0"}
        with scene.world.transaction() as conn:
            assert row.approval_id == plans.approvals_of(conn, scene.incident_id, plan.digest)[0].id
        assert scene.file_world.applied == {"rollback": 1}

    def test_asked_again_it_answers_with_the_journal_and_does_nothing(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        first = scene.do(plan)
        scene.file_world.set(serving="v2.0.0")  # somebody deploys it again: that is theirs to decide
        assert scene.do(plan) == first
        assert scene.file_world.applied == {"rollback": 1}

    @pytest.mark.parametrize(
        ("action", "already"),
        [
            (BACK, {"serving": "v1.5.0"}),
            (RouteTraffic(MODEL, "v1.5.0"), {"route": "v1.5.0"}),
            (STOP, {"replicas": 0}),
            (Configure(MODEL, {"auto_scheduling": True}), {}),
            (Restart(MODEL, "once"), {"restart_id": "once"}),
            (FlagWorkOrders(MODEL), {}),
            (Materialize(MODEL, ("asset_sensors", "asset_wear")), {}),
            (ResumeMaterialization(MODEL, ("asset_sensors",)), {}),
            (Register(MODEL, "v2.0.0"), {}),
            (Stage(MODEL, "v1.5.0"), {"staging": "v1.5.0"}),
            (Promote(MODEL, "v2.0.0"), {}),
        ],
        ids=lambda x: x.kind if isinstance(x, Action) else "",
    )
    def test_what_holds_already_is_recorded_and_not_applied(self, scene: Scene, action: Action, already: dict[str, Any]) -> None:
        scene.file_world.set(**already)
        row = scene.do(scene.approved(action))
        assert row.state == "already_held"
        assert scene.file_world.applied == {}
        assert scene.said()[-1].startswith("Already so, nothing changed")

    def test_what_a_crashed_attempt_reached_is_done_without_a_second_application(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.crashed(plan, applied=True)
        row = scene.do(plan)
        assert (row.state, row.before) == ("done", {"serving_version": "v2.0.0", "server_version": "v2.0.0"})
        assert scene.file_world.applied == {"rollback": 1}

    def test_what_a_crashed_attempt_did_not_reach_is_applied_now(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.crashed(plan)
        assert (scene.do(plan).state, scene.file_world.applied) == ("done", {"rollback": 1})

    def test_what_somebody_else_changed_meanwhile_goes_to_a_human(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.crashed(plan)
        scene.file_world.set(serving="v2.1.0")
        with pytest.raises(Unknown, match="somebody else acted"):
            scene.do(plan)
        assert (scene.state(plan), scene.file_world.applied) == ("unknown", {})
        with pytest.raises(Unknown, match="approve a new plan"):
            scene.do(plan)
        assert scene.file_world.applied == {}, "and it stays with them"


class TestTrouble:
    def test_a_platform_that_refuses_is_recorded_and_not_asked_again(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.file_world.faults["rollback"] = ["refused"]
        for _ in range(2):
            with pytest.raises(Refused, match="forbidden"):
                scene.do(plan)
        assert (scene.state(plan), scene.file_world.applied) == ("refused", {})

    def test_a_busy_platform_is_tried_again(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.file_world.faults["rollback"] = ["busy"]
        with pytest.raises(Transient):
            scene.do(plan)
        row = scene.do(plan)
        assert (row.state, row.attempts, scene.file_world.applied) == ("done", 2, {"rollback": 1})

    def test_a_change_that_timed_out_but_happened_is_read_back_as_done(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.file_world.faults["rollback"] = ["late"]
        row = scene.do(plan)
        assert (row.state, row.attempts, scene.file_world.applied) == ("done", 1, {"rollback": 1})

    def test_a_change_that_timed_out_and_does_not_show_is_unknown_and_never_repeated_blindly(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.file_world.faults["rollback"] = ["lost"]
        for _ in range(2):
            with pytest.raises(Unknown):
                scene.do(plan)
        assert (scene.state(plan), scene.file_world.applied) == ("unknown", {})

    @pytest.mark.parametrize("applied", [False, True], ids=["before the change", "after the change"])
    def test_a_platform_that_went_away_is_waited_for_and_the_change_is_made_once(self, scene: Scene, applied: bool) -> None:
        plan = scene.approved(BACK)
        scene.crashed(plan, applied=applied)
        scene.file_world.down_after_reads = 0 if applied else 1
        with pytest.raises(Transient):
            scene.do(plan)
        scene.file_world.down_after_reads, scene.file_world.down = None, False
        assert (scene.do(plan).state, scene.file_world.applied) == ("done", {"rollback": 1})

    def test_a_platform_that_dies_while_it_applies_is_read_once_it_is_back(self, scene: Scene) -> None:
        plan = scene.approved(BACK)
        scene.file_world.faults["rollback"] = ["dies"]
        with pytest.raises(Transient):
            scene.do(plan)
        assert scene.state(plan) == "applying", "what cannot be read yet is no outcome"
        scene.file_world.down = False
        assert (scene.do(plan).state, scene.file_world.applied) == ("done", {"rollback": 1})


class TestFeatures:
    """Path B: the rows, read back against their source, and the schedule that keeps them fresh."""

    SENSORS = Materialize(MODEL, ("asset_sensors",), as_of="2026-01-01T00:00:00+00:00")
    STALE: ClassVar[dict[str, Any]] = {"features": START | {"stale": ["asset_sensors"], "suspended": ["asset_sensors"]}}

    def test_stale_rows_are_materialised_and_read_back_and_progress_is_told(self, scene: Scene) -> None:
        scene.file_world.set(**self.STALE)
        told: list[tuple[str, int, int]] = []
        with told_to(lambda *how_far: told.append(how_far)):
            row = scene.do(scene.approved(self.SENSORS))
        assert row.state == "done"
        assert row.before["asset_sensors"]["behind"] == COMPARED
        assert row.after == {"asset_sensors": {"behind": 0, "missing": 0, "emptier_than_source": [], "ends_in_the_future": False}}
        assert scene.file_world.applied == {"materialize:asset_sensors": 1}
        assert told[-1][1] == told[-1][2] > 0

    def test_rows_emptier_than_their_source_do_not_hold(self, scene: Scene) -> None:
        scene.file_world.set(features=START | {"empty": {"torque_nm": "online"}})
        row = scene.do(scene.approved(self.SENSORS))
        assert row.before["asset_sensors"]["emptier_than_source"] == ["torque_nm"]
        assert row.state == "done"

    def test_a_locked_store_is_waited_for_before_anything_is_journaled(self, scene: Scene) -> None:
        scene.file_world.set(features=START | {"out": "a transaction holds it"})
        plan = scene.approved(self.SENSORS)
        with pytest.raises(Transient, match="a transaction holds it"):
            scene.do(plan)
        assert scene.row(plan) is None
        scene.file_world.set(**self.STALE)
        assert scene.do(plan).state == "done"

    def test_a_broken_source_is_refused_with_the_reason(self, scene: Scene) -> None:
        scene.file_world.set(features=START | {"stale": ["asset_sensors"], "empty": {"torque_nm": "source"}})
        with pytest.raises(Refused, match="the source of asset_sensors is empty"):
            scene.do(scene.approved(self.SENSORS))

    def test_without_a_feature_store_it_says_which_setting_is_missing(self, scene: Scene) -> None:
        scene.world = replace(scene.world, features=None)
        with pytest.raises(Refused, match="MLRUNBOOK_FEATURE_REPO"):
            scene.do(scene.approved(self.SENSORS))

    def test_a_materialisation_that_was_killed_is_done_again(self, scene: Scene) -> None:
        scene.file_world.set(**self.STALE)
        plan = scene.approved(self.SENSORS)
        scene.crashed(plan)
        assert (scene.do(plan).state, scene.file_world.applied) == ("done", {"materialize:asset_sensors": 1})

    def test_a_suspended_schedule_runs_again(self, scene: Scene) -> None:
        scene.file_world.set(**self.STALE)
        row = scene.do(scene.approved(ResumeMaterialization(MODEL, ("asset_sensors",))))
        assert (row.before, row.after) == ({"suspended": ["asset_sensors"]}, {"suspended": []})
        assert [s.view for s in scene.file_world.feature_schedules() if s.suspended] == []


class TestVersions:
    """Path C: a trained version is registered, staged in the shadow, and promoted; each once, each read back."""

    def test_register_stage_and_promote_reach_their_target(self, scene: Scene) -> None:
        scene.file_world.set(trained=["v2.1.0"])
        plan = scene.approved(Register(MODEL, "v2.1.0"), Stage(MODEL, "v2.1.0"), Promote(MODEL, "v2.1.0", reason="a test"))
        rows = [scene.do(plan, n) for n in range(3)]
        assert [r.state for r in rows] == ["done"] * 3
        assert [r.after for r in rows] == [
            {"registered": True},
            {"staging_version": "v2.1.0"},
            {"serving_version": "v2.1.0", "server_version": "v2.1.0"},
        ]
        assert scene.file_world.applied == {"register:v2.1.0": 1, "stage:v2.1.0": 1, "promote:v2.1.0": 1}

    def test_the_staging_slot_is_emptied(self, scene: Scene) -> None:
        scene.file_world.set(staging="v1.5.0")
        assert scene.do(scene.approved(Stage(MODEL, None))).after == {"staging_version": None}

    def test_a_version_that_was_never_trained_is_refused(self, scene: Scene) -> None:
        with pytest.raises(Refused, match=r"v9\.9\.9"):
            scene.do(scene.approved(Register(MODEL, "v9.9.9")))

    def test_another_version_that_somebody_promoted_meanwhile_goes_to_a_human(self, scene: Scene) -> None:
        plan = scene.approved(Promote(MODEL, "v1.5.0"))
        scene.crashed(plan)
        scene.file_world.set(serving="v1.4.0")
        with pytest.raises(Unknown, match="somebody else acted"):
            scene.do(plan)
        assert scene.file_world.applied == {}


class TestGuardrails:
    """Limits for the machine; a critical stop overrides them and pages that it did."""

    def use_up_the_hour(self, scene: Scene) -> None:
        switches = [Configure(MODEL, {"human_approval": n % 2 == 0}) for n in range(10)]
        plan = scene.automatic(*switches)
        for n in range(10):
            assert scene.do(plan, n).state == "done"

    def test_the_eleventh_automatic_change_in_an_hour_is_refused(self, scene: Scene) -> None:
        self.use_up_the_hour(scene)
        before = scene.file_world.applied
        with pytest.raises(Refused, match="10 automatic changes"):
            scene.do(scene.automatic(APPROVAL))
        assert scene.file_world.applied == before
        scene.clock.advance(minutes=61)
        assert scene.do(scene.automatic(APPROVAL, kind=PlanKind.MITIGATION)).state == "done", "the next hour has its own ten"

    def test_what_a_person_approved_is_not_counted_against_the_machine(self, scene: Scene) -> None:
        self.use_up_the_hour(scene)
        assert scene.do(scene.approved(BACK)).state == "done"

    def test_a_critical_stop_overrides_the_limit_and_pages_that_it_did(self, scene: Scene) -> None:
        self.use_up_the_hour(scene)
        scene.set_severity(Severity.CRITICAL)
        assert scene.do(scene.automatic(RouteTraffic(MODEL, "v1.5.0"))).state == "done"
        [paged] = [p for p in scene.pages() if "guardrail overridden" in p]
        assert "10 automatic changes" in paged
        assert any("guardrail overridden" in line.lower() for line in scene.said())

    def test_its_undo_overrides_the_limit_too_and_pages_that_it_did(self, scene: Scene) -> None:
        self.use_up_the_hour(scene)
        assert scene.do(scene.automatic(APPROVAL, kind=PlanKind.UNDO)).state == "done"
        assert any("guardrail overridden" in p for p in scene.pages())

    def test_too_few_replicas_are_refused_to_the_machine_unless_it_is_critical(self, scene: Scene) -> None:
        with pytest.raises(Refused, match="minimum of 1 replica"):
            scene.do(scene.automatic(STOP))
        assert scene.file_world.state["replicas"] == 1
        scene.set_severity(Severity.CRITICAL)
        assert scene.do(scene.automatic(STOP, kind=PlanKind.MITIGATION)).state == "done"
        assert any("minimum of 1 replica" in p for p in scene.pages())

    def test_in_a_freeze_window_no_approved_change_starts(self, make: Make) -> None:
        start = Clock().at
        window = FreezeWindow(start=start, end=start + timedelta(hours=1), reason="quarter end")
        scene = make(Policy(guardrails=Guardrails(freeze_windows=(window,))))
        plan = scene.approved(BACK)
        with pytest.raises(Refused, match="quarter end"):
            scene.do(plan)
        assert scene.file_world.applied == {}
        scene.clock.advance(hours=1)
        scene.say(plan, "approved")
        assert scene.do(plan).state == "done", "the window ends at its end"

    def test_a_change_that_has_begun_is_seen_through_although_a_freeze_began(self, make: Make) -> None:
        start = Clock().at + timedelta(minutes=1)
        window = FreezeWindow(start=start, end=start + timedelta(hours=1), reason="quarter end")
        scene = make(Policy(guardrails=Guardrails(freeze_windows=(window,))))
        plan = scene.approved(BACK)
        scene.crashed(plan, applied=True)
        scene.clock.advance(minutes=2)
        assert (scene.do(plan).state, scene.file_world.applied) == ("done", {"rollback": 1})


class TestOneAtATime:
    def test_while_another_open_incident_changes_the_model_this_one_waits(self, scene: Scene) -> None:
        other = Scene(scene.world, scene.file_world, scene.clock, *open_incident(scene.world, "infrastructure", holder="run-2"))
        theirs, ours = other.approved(BACK), scene.approved(BACK)
        other.crashed(theirs)
        with pytest.raises(Transient, match=f"{other.incident_id} is changing {MODEL}"):
            scene.do(ours)
        assert scene.file_world.applied == {}
        other.do(theirs)
        assert scene.do(ours).state == "already_held"

    def test_an_incident_that_is_over_holds_nobody_up(self, scene: Scene) -> None:
        other = Scene(scene.world, scene.file_world, scene.clock, *open_incident(scene.world, "infrastructure", holder="run-2"))
        other.crashed(other.approved(BACK))
        with scene.world.transaction() as conn:
            for status in (Status.RESOLVED, Status.CLOSED):
                incidents.set_status(conn, other.incident_id, status, why="test", actor="test", now=scene.clock())
        assert scene.do(scene.approved(BACK)).state == "done"

    def test_two_incidents_that_begin_at_the_same_moment_do_not_both_change_the_model(self, scene: Scene) -> None:
        """The other one writes its intent while this one reads the state before."""
        other = Scene(scene.world, scene.file_world, scene.clock, *open_incident(scene.world, "infrastructure", holder="run-2"))
        theirs, ours = other.approved(RouteTraffic(MODEL, "v1.5.0")), scene.approved(BACK)
        meanwhile = _Meanwhile(scene.file_world, lambda: other.crashed(theirs))
        with pytest.raises(Transient, match=other.incident_id):
            execute(replace(scene.world, platform=meanwhile), scene.lease, ours, 0)
        assert scene.file_world.applied == {}
        assert scene.row(ours) is None


class _Meanwhile:
    """A platform during whose first answer something else happens."""

    def __init__(self, platform: FileWorld, happens: Callable[[], None]) -> None:
        self._platform, self._happens = platform, [happens]

    def status(self, model: str) -> Any:
        if self._happens:
            self._happens.pop()()
        return self._platform.status(model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)
