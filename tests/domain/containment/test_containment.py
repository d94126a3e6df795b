from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import Configure, FlagWorkOrders, Isolate, Plan, PlanKind, Restart, RollBack, RouteTraffic, Scale
from mlrunbook.domain.containment.breach import Verdict
from mlrunbook.domain.containment.containment import Containment, Situation, plan_containment
from mlrunbook.domain.containment.taking_back import Executed, undo_plan
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.changes import ContainmentPolicy, Rule
from tests.domain.builders import MODEL, serving, status

INC = "inc-7"


def judged(severity: str = "high", type_: str = "performance_degradation", real: bool | None = True, **flags: bool) -> Assessment:
    return Assessment(real, Severity(severity), IncidentType(type_), ("F1 fell",), **flags)


DANGEROUS = judged("critical", "prediction_error", dangerous=True, safety_risk=True)


def contain(
    assessment: Assessment, *, policy: ContainmentPolicy | None = None, isolate: tuple[bool, str] | None = None, **changes: Any
) -> Containment:
    values: dict[str, Any] = {"status": status(), "state": serving(), "previous_is_dangerous": False, "pending_work_orders": 12}
    return plan_containment(INC, MODEL, assessment, Situation(**(values | changes)), policy, isolate=Verdict(*isolate) if isolate else None)


def actions(plan: Plan | None) -> list[Any]:
    return list(plan.actions) if plan else []


# --- critical


def test_dangerous_predictions_are_routed_to_a_previous_version_that_is_not_dangerous() -> None:
    c = contain(DANGEROUS)
    assert actions(c.automatic)[0] == RouteTraffic(MODEL, "v1.5.0")
    assert c.automatic is not None
    assert c.automatic.rule == "containment.critical.route_previous, containment.critical.halt_work_orders"
    assert "dangerous predictions: traffic goes to v1.5.0, which is not dangerous" in c.reasons
    assert c.mitigation is None


@pytest.mark.parametrize(("previous", "dangerous"), [(None, None), ("v1.5.0", True)])
def test_without_a_safe_previous_version_serving_stops(previous: str | None, dangerous: bool | None) -> None:
    c = contain(DANGEROUS, status=status(previous_version=previous), previous_is_dangerous=dangerous)
    assert actions(c.automatic)[0] == Scale(MODEL, 0)
    assert "serving stops" in c.reasons[0]


def test_a_safety_risk_halts_work_orders_and_flags_the_pending_ones() -> None:
    c = contain(DANGEROUS)
    assert Configure(MODEL, {"auto_work_orders": False}) in actions(c.automatic)
    assert any(isinstance(a, FlagWorkOrders) for a in actions(c.automatic))


def test_a_critical_outage_of_the_server_changes_nothing_by_itself() -> None:
    c = contain(judged("critical", "infrastructure"))
    assert (c.automatic, c.mitigation) == (None, None)


@pytest.mark.parametrize("severity", ["medium", "high", "critical"])
def test_a_breach_isolates_by_its_named_rule_and_changes_nothing_else_about_the_model(severity: str) -> None:
    c = contain(judged(severity, "security", insufficient=True), isolate=(True, "data leakage"))
    assert (actions(c.automatic), c.mitigation) == ([Isolate(MODEL, True)], None)
    assert c.automatic is not None
    assert c.automatic.rule == "containment.security.isolate"


def test_a_breach_that_a_person_decides_about_is_proposed() -> None:
    c = contain(judged("high", "compliance"), isolate=(False, "audit failure"))
    assert (c.automatic, actions(c.mitigation)) == (None, [Isolate(MODEL, True)])


def test_where_policy_takes_the_rule_away_every_isolation_is_proposed() -> None:
    c = contain(judged("high", "security"), isolate=(True, "data leakage"), policy=ContainmentPolicy(automatic=frozenset()))
    assert (c.automatic, actions(c.mitigation)) == (None, [Isolate(MODEL, True)])


def test_a_dangerous_model_in_a_breach_is_isolated_not_rerouted_and_its_work_orders_are_halted() -> None:
    c = contain(judged("critical", "compliance", dangerous=True, safety_risk=True), isolate=(False, "audit failure"))
    assert [type(a) for a in actions(c.automatic)] == [Isolate, Configure, FlagWorkOrders]
    assert c.mitigation is None


def test_recovery_never_lifts_an_isolation() -> None:
    back = undo_plan(INC, MODEL, [Executed("a1", Isolate(MODEL, True), {"isolated": False})])
    assert back.plan is None
    assert "by a named person's decision alone" in back.kept["a1"]


# --- high


def test_high_severity_makes_a_person_approve_predictions_and_proposes_the_temporary_rollback() -> None:
    c = contain(judged())
    assert actions(c.automatic) == [Configure(MODEL, {"human_approval": True}), Configure(MODEL, {"auto_scheduling": False})]
    assert c.automatic is not None
    assert c.automatic.rule == "containment.high.human_approval, containment.high.disable_auto_scheduling"
    assert c.mitigation is not None
    assert c.mitigation.kind is PlanKind.MITIGATION
    assert c.mitigation.rule is None
    assert c.mitigation.actions == (RollBack(MODEL, "v1.5.0", reason="temporary mitigation"),)


@pytest.mark.parametrize(
    "changes", [{"recent_deployment": False}, {"status": status(previous_version=None)}, {"previous_is_dangerous": True}]
)
def test_the_temporary_rollback_needs_a_recent_deployment_and_a_sound_previous_version(changes: dict[str, Any]) -> None:
    assert contain(judged(), **changes).mitigation is None


@pytest.mark.parametrize(
    ("raise_to", "threshold", "expected"),
    [(None, 0.3, 0.5), (0.4, 0.3, 0.4), (0.9, 0.3, 0.5), (None, 0.9, 0.95), (0.35, 0.002, 0.202)],
)
def test_too_many_false_alarms_raise_the_threshold_by_a_capped_step(raise_to: float | None, threshold: float, expected: float) -> None:
    c = contain(judged(excessive_false_positives=True), state=serving(threshold=threshold), raise_to=raise_to)
    assert actions(c.automatic)[:2] == [Configure(MODEL, {"threshold": expected}), Restart(MODEL, f"{INC}-contain-{expected:g}")]


def test_a_threshold_that_is_unknown_or_cannot_help_is_left_alone_and_said_so() -> None:
    flags = judged(excessive_false_positives=True)
    assert "the threshold is not raised: it cannot be read" in contain(flags, state=None).reasons
    assert "the threshold is not raised: no higher one would help" in contain(flags, raise_to=0.2).reasons


def test_a_rule_that_policy_does_not_make_automatic_is_proposed_instead() -> None:
    c = contain(judged(), policy=ContainmentPolicy(automatic=frozenset({Rule.DISABLE_AUTO_SCHEDULING})))
    assert actions(c.automatic) == [Configure(MODEL, {"auto_scheduling": False})]
    assert actions(c.mitigation)[0] == Configure(MODEL, {"human_approval": True})


# --- medium, low, undecided


@pytest.mark.parametrize("assessment", [judged("medium"), judged("low"), judged(real=False), judged(real=None), judged(insufficient=True)])
def test_medium_low_unproven_and_unmeasured_incidents_change_nothing(assessment: Assessment) -> None:
    c = contain(assessment)
    assert (c.automatic, c.mitigation) == (None, None)
    assert c.reasons


@given(st.sampled_from(list(Severity)), st.sampled_from(list(IncidentType)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_every_automatic_plan_names_rules_of_the_policy_and_no_production_version(s: Severity, t: IncidentType, flags: list[bool]) -> None:
    dangerous, safety, excessive, insufficient = flags
    c = contain(Assessment(True, s, t, ("x",), dangerous, safety, excessive, insufficient))
    if c.automatic is not None:
        assert s.at_least(Severity.HIGH)
        assert not insufficient
        assert c.automatic.rule is not None
        assert set(c.automatic.rule.split(", ")) <= set(Rule)
        assert not any(isinstance(a, RollBack) for a in c.automatic.actions)


def test_the_same_incident_gives_the_same_digest() -> None:
    first, again = contain(judged(excessive_false_positives=True)), contain(judged(excessive_false_positives=True))
    assert first.automatic is not None
    assert again.automatic is not None
    assert first.automatic.digest == again.automatic.digest
    assert Plan.from_dict(first.automatic.as_dict()).digest == first.automatic.digest


# --- taking it back

SWITCHES = [
    Executed("a1", Configure(MODEL, {"human_approval": True}), {"human_approval": False, "running_human_approval": False}),
    Executed("a2", Configure(MODEL, {"auto_scheduling": False}), {"auto_scheduling": True}),
]
ROLLBACK = Plan(INC, PlanKind.RESOLUTION, MODEL, (RollBack(MODEL, "v1.5.0"),), ())


def test_switches_go_back_to_what_they_were_newest_first() -> None:
    undo = undo_plan(INC, MODEL, SWITCHES, resolution=ROLLBACK, state=serving(human_approval=True, auto_scheduling=False))
    assert actions(undo.plan) == [Configure(MODEL, {"auto_scheduling": True}), Configure(MODEL, {"human_approval": False})]
    assert undo.undoes == ("a2", "a1")
    assert undo.kept == {}


def test_a_switch_that_was_set_before_the_incident_stays() -> None:
    already = Executed("a1", Configure(MODEL, {"human_approval": True}), {"human_approval": True})
    undo = undo_plan(INC, MODEL, [already])
    assert undo.plan is None
    assert undo.kept == {"a1": "human_approval was True before it too"}


def test_what_a_person_changed_meanwhile_is_not_overwritten() -> None:
    undo = undo_plan(INC, MODEL, SWITCHES, state=serving(human_approval=False, auto_scheduling=False))
    assert undo.kept == {"a1": "somebody has set human_approval to False since"}
    assert actions(undo.plan) == [Configure(MODEL, {"auto_scheduling": True})]


def test_a_slipped_threshold_that_the_resolution_put_right_is_not_restored() -> None:
    raised = [
        Executed("a1", Configure(MODEL, {"threshold": 0.2}), {"threshold": 0.002}),
        Executed("a2", Restart(MODEL, "r"), {"restart_id": None, "ready": True}),
    ]
    fixed = Plan(INC, PlanKind.RESOLUTION, MODEL, (Configure(MODEL, {"threshold": 0.5}), Restart(MODEL, "x")), ())
    undo = undo_plan(INC, MODEL, raised, resolution=fixed, state=serving(threshold=0.5))
    assert undo.plan is None
    assert undo.kept == {"a1": "the resolution has set threshold itself", "a2": "a restart leaves nothing behind to take back"}


def test_a_threshold_put_back_needs_a_restart_to_take_effect() -> None:
    raised = Executed("a1", Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5})
    undo = undo_plan(INC, MODEL, [raised], state=serving(threshold=0.7))
    assert actions(undo.plan) == [Configure(MODEL, {"threshold": 0.5}), Restart(MODEL, f"{INC}-undo-0.5")]
    assert undo.undoes == ("a1", None)


def test_the_override_goes_once_the_registry_serves_the_good_version() -> None:
    routed = Executed("a1", RouteTraffic(MODEL, "v1.5.0"), {"version": None, "serves": "v2.0.0"})
    undo = undo_plan(INC, MODEL, [routed], resolution=ROLLBACK, state=serving(route="v1.5.0"))
    assert actions(undo.plan) == [RouteTraffic(MODEL, None)]


def test_traffic_never_goes_back_to_the_version_that_was_contained() -> None:
    routed = Executed("a1", RouteTraffic(MODEL, "v1.5.0"), {"version": None, "serves": "v2.0.0"})
    undo = undo_plan(INC, MODEL, [routed], state=serving(route="v1.5.0"))
    assert undo.plan is None
    assert undo.kept["a1"] == "the registry still names the version that was contained: traffic must not go back to it"
    rolled = Executed("a2", RollBack(MODEL, "v1.5.0"), {"serving_version": "v2.0.0"})
    assert "a new deployment, decided by people" in undo_plan(INC, MODEL, [rolled], resolution=ROLLBACK).kept["a2"]


def test_somebody_elses_route_stays() -> None:
    routed = Executed("a1", RouteTraffic(MODEL, "v1.5.0"), {"version": None})
    undo = undo_plan(INC, MODEL, [routed], resolution=ROLLBACK, state=serving(route="v1.4.0"))
    assert undo.kept == {"a1": "somebody has routed traffic to v1.4.0 since: that stays"}


def test_servers_that_were_stopped_start_again_unless_that_was_done_already() -> None:
    stopped = Executed("a1", Scale(MODEL, 0), {"replicas": 2, "ready_replicas": 2})
    assert actions(undo_plan(INC, MODEL, [stopped], resolution=ROLLBACK, state=serving(replicas=0)).plan) == [Scale(MODEL, 2)]
    again = Plan(INC, PlanKind.RESOLUTION, MODEL, (RollBack(MODEL, "v1.5.0"), Scale(MODEL, 2)), ())
    assert undo_plan(INC, MODEL, [stopped], resolution=again).kept == {"a1": "the resolution has set the number of servers itself"}
    assert "somebody has scaled to 3" in undo_plan(INC, MODEL, [stopped], resolution=ROLLBACK, state=serving(replicas=3)).kept["a1"]
    assert "a person decides when to serve again" in undo_plan(INC, MODEL, [stopped]).kept["a1"]


def test_flagged_work_orders_stay_flagged_for_the_supervisors() -> None:
    undo = undo_plan(INC, MODEL, [Executed("a1", FlagWorkOrders(MODEL), {"pending_unflagged": 12})])
    assert undo.kept == {"a1": "flagged work orders stay flagged until the supervisors have reviewed them"}


def test_a_change_whose_state_before_is_unknown_is_left_to_a_person() -> None:
    undo = undo_plan(INC, MODEL, [Executed("a1", Configure(MODEL, {"human_approval": True}), None)])
    assert "a person decides" in undo.kept["a1"]


EXECUTED = st.one_of(
    st.builds(
        lambda t, b: (Configure(MODEL, {"threshold": t}), {"threshold": b}), st.sampled_from([0.2, 0.7]), st.sampled_from([0.2, 0.5])
    ),
    st.builds(lambda b: (Configure(MODEL, {"human_approval": True}), {"human_approval": b}), st.booleans()),
    st.builds(lambda v, b: (RouteTraffic(MODEL, v), {"version": b}), st.just("v1.5.0"), st.sampled_from([None, "v1.5.0"])),
    st.builds(lambda b: (Scale(MODEL, 0), {"replicas": b}), st.integers(0, 2)),
    st.sampled_from([(FlagWorkOrders(MODEL), {"pending_unflagged": 3}), (Restart(MODEL, "r"), {}), (RollBack(MODEL, "v1.5.0"), None)]),
)


@given(st.lists(EXECUTED, max_size=6), st.sampled_from([None, ROLLBACK]), st.booleans())
def test_every_executed_action_is_undone_or_kept_with_a_reason(done: list[Any], resolution: Plan | None, observed: bool) -> None:
    executed = [Executed(f"a{i}", action, before) for i, (action, before) in enumerate(done)]
    undo = undo_plan(INC, MODEL, executed, resolution=resolution, state=serving() if observed else None)
    undone = {i for i in undo.undoes if i is not None}
    for e in executed:  # several routes, or stops, go back as one: by the last of them
        last = [o for o in executed if isinstance(e.action, RouteTraffic | Scale) and isinstance(o.action, type(e.action))][-1:]
        undone |= {e.action_id} if any(o.action_id in undone for o in last) else set()
    assert undone | set(undo.kept) == {e.action_id for e in executed}
    assert undone.isdisjoint(undo.kept)
    assert all(undo.kept.values())
    assert len(undo.undoes) == len(actions(undo.plan))
