"""Each severity of the runbook, from report to its end."""

from __future__ import annotations

from mlrunbook.domain.actions import PlanKind, RollBack, Scale
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.response.review.closing import unexplained
from mlrunbook.response.world import World
from mlrunbook.store import journal, plans
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve

ALL_HIGH_RISK = {
    "route:v1.5.0": 1,
    "config:auto_work_orders=False": 1,
    "flag": 1,
    "rollback": 1,
    "config:auto_work_orders=True": 1,
    "route:None": 1,
}


def all_high_risk(file_world: FileWorld) -> None:
    """v2.0.0 flags every asset; three work orders came of it."""
    orders = [{"id": n, "asset": f"asset_{n}", "flagged": False} for n in (1, 2, 3)]
    file_world.set(bad_versions={"v2.0.0": "dangerous"}, work_orders=orders)


class TestCritical:
    """ "If model is making dangerous predictions", "If safety risk identified"."""

    def test_traffic_goes_to_the_previous_version_at_once_and_work_orders_are_halted_and_flagged(
        self, world: World, file_world: FileWorld
    ) -> None:
        all_high_risk(file_world)
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        incident = incident_of(world, incident_id)
        assert (incident.severity, incident.type) == (Severity.CRITICAL, IncidentType.PREDICTION_ERROR)
        assert incident.status is Status.CONTAINED
        assert file_world.state["route"] == "v1.5.0"
        assert file_world.state["serving"] == "v2.0.0", "the registry waits for an approval"
        assert file_world.state["config"]["auto_work_orders"] is False
        assert all(w["flagged"] for w in file_world.state["work_orders"])
        with world.transaction() as conn:
            contained = plans.current(conn, incident_id, PlanKind.CONTAINMENT)
            assert contained is not None
            rules = [(a.door, a.approver) for a in plans.approvals_of(conn, incident_id, contained.digest)]
        assert rules == [("policy_rule", "containment.critical.route_previous, containment.critical.halt_work_orders")]

    def test_supervisors_get_the_list_and_maintenance_the_emergency_alert(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        all_high_risk(file_world)
        carry(world, report(world), "run-1")
        deliver(world)
        [to_supervisors] = [m for m in notifier.sent if m.channel == "supervisors"]
        assert all(f"WO {n}: asset asset_{n}" in to_supervisors.body for n in (1, 2, 3))
        [to_maintenance] = [m for m in notifier.sent if m.channel == "maintenance"]
        assert "EMERGENCY" in to_maintenance.subject.upper()

    def test_after_the_approved_rollback_override_and_switches_are_taken_back_and_nothing_is_unexplained(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        all_high_risk(file_world)
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert file_world.applied == ALL_HIGH_RISK
        state = file_world.state
        assert (state["serving"], state["route"], state["config"]["auto_work_orders"]) == ("v1.5.0", None, True)
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []
            [flagged] = [r for r in journal.of_incident(conn, incident_id) if r.kind == "flag_work_orders"]
        assert flagged.kept_because == "flagged work orders stay flagged until the supervisors have reviewed them"

    def test_where_the_previous_version_is_dangerous_too_serving_stops_and_nobody_is_offered_to_go_back_to_it(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        file_world.set(bad_versions=dict.fromkeys(("v2.0.0", "v1.5.0", "v1.4.0"), "dangerous"))
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert file_world.state["replicas"] == 0
        assert "route:v1.5.0" not in file_world.applied
        deliver(world)
        assert any("v1.5.0 or v1.4.0 would not do better; deploy a fixed version" in m.body for m in notifier.pages())

    def test_a_version_that_answers_well_is_offered_though_the_one_before_is_dangerous_too(
        self, world: World, file_world: FileWorld
    ) -> None:
        file_world.set(bad_versions=dict.fromkeys(("v2.0.0", "v1.5.0"), "dangerous"))
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        asked = plan(world, incident_id)
        assert asked is not None
        assert [a.target_version for a in asked.actions if isinstance(a, RollBack)] == ["v1.4.0"]
        assert [a.replicas for a in asked.actions if isinstance(a, Scale)] == [1]

    def test_serving_that_was_stopped_starts_again_with_the_approved_resolution(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        """The threshold slipped to where every asset is flagged, and the version before was dangerous in its time."""
        file_world.slip()
        file_world.set(slipped_counts="dangerous", bad_versions={"v1.4.0": "dangerous"})
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "pending"
        assert file_world.state["replicas"] == 0, "serving is stopped at once"
        asked = plan(world, incident_id)
        assert asked is not None
        assert any(isinstance(a, Scale) and a.replicas == 1 for a in asked.actions)
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert (file_world.state["replicas"], file_world.state["loaded_threshold"]) == (1, 0.5)

    def test_a_stop_below_the_minimum_of_replicas_is_done_all_the_same_and_paged(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        file_world.set(bad_versions={"v2.0.0": "dangerous", "v1.5.0": "dangerous"})
        carry(world, report(world), "run-1")
        deliver(world)
        assert any("guardrail overridden" in m.body and "minimum of 1 replica" in m.body for m in notifier.pages())


class TestMedium:
    def test_nothing_changes_by_itself_a_person_approves_the_plan_and_the_incident_closes(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        file_world.set(bad_versions={"v2.0.0": "worse"})
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "pending"
        assert incident_of(world, incident_id).severity is Severity.MEDIUM
        assert file_world.applied == {}
        asked = plan(world, incident_id)
        assert asked is not None
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert file_world.applied == {"rollback": 1}


class TestLow:
    def test_a_low_report_is_a_ticket_and_nobody_is_paged_and_nothing_changes(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.set(bad_versions={})
        incident_id = report(world, Severity.LOW, by_alert=False, description="the runbook names an old dashboard")
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        for _ in range(26):
            deliver(world)
            clock.advance(hours=1)
        assert notifier.pages() == []
        assert {m.channel for m in notifier.sent} == {"tickets"}
        assert file_world.applied == {}
        assert incident_of(world, incident_id).status is Status.INVESTIGATING

    def test_a_low_report_that_a_person_fixed_closes(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        file_world.set(bad_versions={})
        incident_id = report(world, Severity.LOW, by_alert=False, description="the runbook names an old dashboard")
        carry(world, incident_id, "run-1")
        resolve(world, incident_id, "corrected the page")
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-2") == "closed"


class TestFalseAlarm:
    def test_a_false_alarm_within_the_grace_changes_nothing_and_pages_nobody(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.set(bad_versions={})
        incident_id = report(world)
        deliver(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "false alarm"
        assert incident_of(world, incident_id).status is Status.FALSE_ALARM
        for _ in range(4):
            clock.advance(hours=1)
            deliver(world)
        assert notifier.pages() == []
        assert [m.subject for m in notifier.sent] == ["[FALSE ALARM] Predictive Maintenance Model"]
        assert file_world.applied == {}


class TestUnreachable:
    def test_a_platform_that_cannot_be_reached_in_triage_is_real_infrastructure_paged_and_not_touched(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        file_world.down = True
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        incident = incident_of(world, incident_id)
        assert (incident.severity, incident.type) == (Severity.HIGH, IncidentType.INFRASTRUCTURE)
        assert incident.status is Status.INVESTIGATING
        deliver(world)
        assert {"On-Call ML Engineer", "ML Team Lead"} <= {m.body.split(":")[0] for m in notifier.pages()}
        assert file_world.applied == {}


class TestHumans:
    def test_without_a_safe_path_a_human_is_paged_and_their_word_lets_the_runbook_go_on_to_the_review(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        long_ago = (clock.at.replace(year=clock.at.year - 1)).isoformat()
        # Bad, and no release or setting explains it; what is trained anew is no better.
        file_world.set(deployed_at=long_ago, bad_versions=dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0", "v2.1.0"), "degraded"))
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        deliver(world)
        assert any("candidate is not promoted" in m.body and "incidents resolve" in m.body for m in notifier.pages())

        file_world.set(bad_versions={})  # the human mends it outside
        clock.advance(minutes=30)
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        review = recorded(world, incident_id, "review")["markdown"]
        assert "replaced the sensor gateway (the lead)" in review
        assert "broken sensor gateway" in review
        assert file_world.state["config"]["auto_scheduling"] is True, "containment is taken back"

    def test_a_humans_word_is_measured_and_a_fix_that_did_not_work_is_reopened(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.set(bad_versions=dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0"), "degraded"))
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "not recovered"
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
        deliver(world)
        assert any("the fix did not work" in m.body for m in notifier.pages())

    def test_a_fix_by_hand_is_measured_at_the_threshold_that_comes_back_not_at_the_one_that_containment_raised(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        broken = dict.fromkeys(("v1.4.0", "v2.0.0", "v2.1.0"), "degraded") | {"v1.5.0": "slipped"}
        long_ago = (clock.at.replace(year=clock.at.year - 1)).isoformat()
        file_world.set(serving="v1.5.0", previous="v1.4.0", deployed_at=long_ago, bad_versions=broken, raised_counts="degraded")
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert file_world.state["config"]["threshold"] == 0.7, "containment raised it against the false alarms"
        file_world.set(bad_versions={})  # the human mends it outside
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        assert "at the threshold 0.5" in recorded(world, incident_id, "recovery")["sentence"]
        assert file_world.state["config"]["threshold"] == 0.5

    def test_an_incident_of_bias_has_not_recovered_while_one_asset_type_is_worse_although_the_figure_over_all_is_fine(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        sound = {"tp": 170, "fp": 30, "fn": 40, "tn": 2000}
        file_world.set(serving="v1.5.0", types_before={"H": sound}, types={"H": {"tp": 60, "fp": 40, "fn": 110, "tn": 1500}})
        incident_id = report(world, type=IncidentType.BIAS_FAIRNESS, by_alert=False)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "not recovered"
        assert "H" in recorded(world, incident_id, "triage")["summary"]

        file_world.set(types={"H": sound})
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-3") == "closed"
        assert "no asset type is worse" in recorded(world, incident_id, "recovery")["sentence"]

    def test_a_fix_that_does_not_work_reopens_the_investigation_and_keeps_the_containment(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "pending"
        approve(world, incident_id)
        file_world.set(bad_versions={"v2.0.0": "degraded", "v1.5.0": "degraded"})  # what answered well when it was replayed no longer does
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "not recovered"
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
        assert file_world.applied["rollback"] == 1
        assert (file_world.state["config"]["human_approval"], file_world.state["config"]["auto_scheduling"]) == (True, False)
        deliver(world)
        assert any("the fix did not work" in m.body for m in notifier.pages())

    def test_after_a_fix_that_did_not_work_a_humans_word_closes_the_incident(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = report(world)
        clock.advance(seconds=20)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(bad_versions={"v2.0.0": "degraded", "v1.5.0": "degraded"})
        clock.advance(minutes=2)
        carry(world, incident_id, "run-1")
        file_world.set(bad_versions={})
        clock.advance(minutes=20)
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        assert file_world.state["config"]["auto_scheduling"] is True

    def test_an_approved_mitigation_is_carried_out_before_the_plan(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        clock.advance(seconds=20)
        assert carry(world, incident_id, "run-1") == "pending"
        offered = plan(world, incident_id, PlanKind.MITIGATION)
        assert offered is not None
        assert [type(a) for a in offered.actions] == [RollBack]
        approve(world, incident_id, PlanKind.MITIGATION)
        clock.advance(minutes=1)
        assert carry(world, incident_id, "run-1") == "pending", "the plan still waits for its own decision"
        assert file_world.state["serving"] == "v1.5.0"
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert file_world.applied["rollback"] == 1, "the plan found it done"

    def test_labels_that_are_not_in_yet_are_waited_for_by_a_later_run(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        clock.advance(seconds=20)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(labelled=False)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "too early to say"
        assert incident_of(world, incident_id).status is Status.MONITORING
        assert carry(world, incident_id, "run-2") == "too early to say"
        file_world.set(labelled=True)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-3") == "closed"
        assert file_world.applied["rollback"] == 1
