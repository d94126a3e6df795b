"""A decision that comes too late is refused with what is so already, and how to take it back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.action_state import BEGUN, SETTLED
from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Materialize,
    Plan,
    PlanKind,
    Promote,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    Stage,
    digest_prefix,
)
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.resolution.deciding import PlanState, Standing, Step, refusal, standing_of
from tests.domain.builders import MODEL

STATES = (None, "intended", "applying", "done", "already_held", "unknown", "refused")
ACTIONS: tuple[Action, ...] = (RollBack(MODEL, "v1.5.0"), Scale(MODEL, 1), Configure(MODEL, {"threshold": 0.5}), Restart(MODEL, "once"))


def state(
    *steps: Step, kind: PlanKind = PlanKind.RESOLUTION, rule: str | None = None, said: str = "0 of 1 approvals", **holds: bool
) -> PlanState:
    plan = Plan("incident_1", kind, MODEL, tuple(step.action for step in steps), ("F1 fell",), rule=rule)
    facts = {"replaced": False, "rejected": False, "approved": False, "expired": False} | holds
    return standing_of(plan, steps, why=said, **facts)


steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(STATES)), min_size=1, max_size=4).map(
    lambda found: [Step(action, how) for action, how in found]
)
facts = st.fixed_dictionaries({name: st.booleans() for name in ("replaced", "rejected", "approved", "expired")})


@given(steps, facts, st.sampled_from(PlanKind))
def test_a_plan_is_rejected_only_while_none_of_its_actions_has_begun(found: Sequence[Step], holds: dict[str, bool], kind: PlanKind) -> None:
    plan = state(*found, kind=kind, **holds)
    begun = [step for step in found if step.state in BEGUN]
    why = refusal("rejected", plan)
    if begun:
        assert why is not None
        assert "can no longer be rejected" in why
        assert all(s.action.summary in why or s.action.past.lower() in why.lower() for s in begun), "it says what has begun"
    else:
        assert (why is None) is (plan.standing is not Standing.REPLACED)


@given(steps, facts, st.sampled_from(PlanKind))
def test_a_yes_to_what_is_carried_out_replaced_rejected_or_lapsed_is_refused_with_its_reason(
    found: Sequence[Step], holds: dict[str, bool], kind: PlanKind
) -> None:
    plan = state(*found, kind=kind, **holds)
    over = {Standing.CARRIED_OUT, Standing.REPLACED, Standing.REJECTED, Standing.LAPSED}
    assert (refusal("approved", plan) is not None) is (plan.standing in over)


@given(steps, facts, st.sampled_from(PlanKind), st.sampled_from([None, "containment.high.human_approval"]))
def test_what_waits_may_be_approved(found: Sequence[Step], holds: dict[str, bool], kind: PlanKind, rule: str | None) -> None:
    plan = state(*found, kind=kind, rule=rule, **holds)
    if plan.waits:
        assert refusal("approved", plan) is None
        assert not all(step.state in SETTLED for step in found)
        assert not any((holds["replaced"], holds["rejected"], holds["approved"], rule))


@pytest.mark.parametrize(
    ("step", "kind", "way"),
    [
        (Step(RollBack(MODEL, "v1.5.0"), "done", {"serving_version": "v2.0.0"}), PlanKind.RESOLUTION, "contain incident_1 --route v2.0.0"),
        (Step(RollBack(MODEL, "v1.5.0"), "done", {"serving_version": "v2.0.0"}), PlanKind.MITIGATION, "-p targetVersion=v2.0.0"),
        (Step(Promote(MODEL, "v2.1.0"), "done", {"serving_version": "v2.0.0"}), PlanKind.RESOLUTION, "contain incident_1 --route v2.0.0"),
        (Step(Scale(MODEL, 0), "done", {"replicas": 1}), PlanKind.EMERGENCY, "contain incident_1 --take-back"),
        (Step(RouteTraffic(MODEL, "v1.5.0"), "done", {"version": None}), PlanKind.CONTAINMENT, "contain incident_1 --take-back"),
        (Step(Scale(MODEL, 1), "done", {"replicas": 0}), PlanKind.RESOLUTION, "contain incident_1 --stop-serving"),
        (Step(Configure(MODEL, {"threshold": 0.5}), "done", {"threshold": 0.2}), PlanKind.RESOLUTION, "-p threshold=0.2"),
        (Step(Configure(MODEL, {"human_approval": True}), "done", {"human_approval": False}), PlanKind.CONTAINMENT, "--take-back"),
        (Step(Isolate(MODEL, True), "done", {"isolated": False}), PlanKind.ISOLATION, "the officers lift it"),
        (Step(Stage(MODEL, "v2.1.0"), "done", {}), PlanKind.STAGING, "reject its promotion"),
        (Step(Materialize(MODEL, ("asset_sensors",)), "done", {}), PlanKind.RESOLUTION, "nothing to take back"),
        (Step(FlagWorkOrders(MODEL), "already_held", {}), PlanKind.CONTAINMENT, "nothing to take back"),
        (Step(Scale(MODEL, 0), "done", {"replicas": 1}, taken_back=True), PlanKind.EMERGENCY, "nothing to take back"),
        (Step(Scale(MODEL, 0), "applying", {"replicas": 1}), PlanKind.EMERGENCY, "timeline incident_1 --follow"),
    ],
)
def test_what_has_begun_comes_with_its_way_back(step: Step, kind: PlanKind, way: str) -> None:
    assert way in str(refusal("rejected", state(step, kind=kind)))


def test_what_is_left_of_a_plan_is_named_and_whether_it_follows() -> None:
    half = (Step(RollBack(MODEL, "v1.5.0"), "done", {"serving_version": "v2.0.0"}), Step(Restart(MODEL, "once")))
    assert "next: restart the predictive_maintenance server" in str(refusal("rejected", state(*half, approved=True)))
    assert "not before somebody approves it" in str(refusal("rejected", state(*half)))


def test_an_order_lapses_and_any_other_plan_is_asked_about_again() -> None:
    stop = Step(Scale(MODEL, 0))
    assert state(stop, kind=PlanKind.EMERGENCY, expired=True).standing is Standing.LAPSED
    assert state(Step(Scale(MODEL, 0), "applying"), kind=PlanKind.EMERGENCY, expired=True).standing is Standing.PENDING, "see it through"
    assert state(stop, kind=PlanKind.RESOLUTION, expired=True).waits


@given(st.text(alphabet="0123456789abcdefABCDEF", min_size=8, max_size=64))
def test_eight_or_more_hexadecimal_characters_name_a_plan_in_any_case(given_: str) -> None:
    assert digest_prefix(f" {given_}") == given_.lower()


@given(st.one_of(st.text(max_size=7), st.text(alphabet="0123456789abcdef", min_size=65, max_size=80), st.just("ｆ" * 8), st.just("%" * 8)))
def test_anything_else_names_none(given_: str) -> None:
    with pytest.raises(Invalid) as refused:
        digest_prefix(given_)
    assert refused.value.field == "planDigest"
