"""Approval is bound to what was shown."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.actions import Configure, Plan, PlanKind, RollBack
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.execution.approvals import approve_by_rule, decide
from mlrunbook.response.plan_state import is_rejected, valid_approval
from mlrunbook.store import plans, timeline
from tests.fakes import MODEL, T0

POLICY = Policy()
TWO_PEOPLE = Policy(approvals=Approvals(resolution=ApprovalRule(roles=(Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER), count=2)))


def rollback_to(incident_id: str, version: str = "v1.5.0") -> Plan:
    return Plan(incident_id, PlanKind.RESOLUTION, MODEL, (RollBack(MODEL, version),), ("v2.0.0 is a bad release",))


def say(
    conn: Connection,
    plan: Plan,
    decision: str = "approved",
    *,
    by: str = "the lead",
    role: str | None = "ml_team_lead",
    now: datetime = T0,
    policy: Policy = POLICY,
) -> plans.StoredApproval:
    return decide(conn, policy, plan.incident_id, plan.digest, Decision(decision, by, role, "rest"), now=now)


def is_approved(conn: Connection, plan: Plan, *, now: datetime = T0, policy: Policy = POLICY) -> bool:
    return valid_approval(conn, policy, plan, now=now)[0] is not None


def test_a_plan_is_read_back_as_it_was_shown(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    digest = plans.propose(conn, plan, now=T0)
    assert plans.get(conn, incident_id, digest) == plan
    assert plans.get(conn, incident_id, digest).digest == digest
    assert plans.current(conn, incident_id, PlanKind.RESOLUTION) == plan
    with pytest.raises(NotFound):
        plans.get(conn, incident_id, "0" * 64)


def test_proposing_the_same_plan_again_changes_nothing(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    say(conn, plan)
    entries = len(timeline.read(conn, incident_id))
    plans.propose(conn, plan, now=T0 + timedelta(minutes=1))
    assert len(timeline.read(conn, incident_id)) == entries
    assert is_approved(conn, plan)


def test_a_newer_plan_replaces_the_older_and_voids_its_approvals(conn: Connection, incident_id: str) -> None:
    first, second = rollback_to(incident_id), rollback_to(incident_id, "v1.4.0")
    plans.propose(conn, first, now=T0)
    say(conn, first)
    plans.propose(conn, second, now=T0)
    approval, why = valid_approval(conn, POLICY, first, now=T0)
    assert approval is None
    assert "replaced by a newer one" in why
    assert not is_approved(conn, second), "a changed plan needs its own approval"
    [voided] = plans.approvals_of(conn, incident_id, first.digest)
    assert voided.voided_because == "a new resolution plan replaced it"
    assert any("voided" in e.text for e in timeline.read(conn, incident_id))
    with pytest.raises(Refused, match="replaced by a newer one"):
        say(conn, first)


def test_going_back_to_an_earlier_plan_makes_it_the_standing_one_and_needs_a_new_decision(conn: Connection, incident_id: str) -> None:
    first, second = rollback_to(incident_id), rollback_to(incident_id, "v1.4.0")
    plans.propose(conn, first, now=T0)
    say(conn, first)
    plans.propose(conn, second, now=T0)
    plans.propose(conn, first, now=T0)
    assert plans.current(conn, incident_id, PlanKind.RESOLUTION) == first
    assert not is_approved(conn, first)
    say(conn, first, now=T0 + timedelta(minutes=1))
    assert is_approved(conn, first, now=T0 + timedelta(minutes=1))


def test_a_plan_of_another_kind_stands_beside_it(conn: Connection, incident_id: str) -> None:
    resolution = rollback_to(incident_id)
    mitigation = Plan(incident_id, PlanKind.MITIGATION, MODEL, (Configure(MODEL, {"human_approval": True}),), ("for now",))
    plans.propose(conn, resolution, now=T0)
    say(conn, resolution)
    plans.propose(conn, mitigation, now=T0)
    assert is_approved(conn, resolution)
    assert not is_approved(conn, mitigation)


def test_an_expired_approval_no_longer_counts_and_may_be_given_again(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    say(conn, plan)
    assert is_approved(conn, plan, now=T0 + timedelta(minutes=59))
    late = T0 + timedelta(minutes=60)
    approval, why = valid_approval(conn, POLICY, plan, now=late)
    assert approval is None
    assert "expired" in why
    again = say(conn, plan, now=late)
    assert valid_approval(conn, POLICY, plan, now=late)[0] == again


def test_saying_the_same_twice_adds_nothing(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    assert say(conn, plan) == say(conn, plan, now=T0 + timedelta(minutes=1))
    assert len(plans.approvals_of(conn, incident_id)) == 1


def test_a_rejection_outweighs_an_approval(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    say(conn, plan)
    say(conn, plan, "rejected", by="the manager", role="engineering_manager")
    assert is_rejected(conn, POLICY, plan)
    assert not is_approved(conn, plan)


def test_where_policy_asks_for_two_people_one_person_is_not_enough(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    say(conn, plan, policy=TWO_PEOPLE)
    assert not is_approved(conn, plan, policy=TWO_PEOPLE)
    say(conn, plan, by="the manager", role="engineering_manager", policy=TWO_PEOPLE)
    assert is_approved(conn, plan, policy=TWO_PEOPLE)


def test_the_on_call_engineer_does_not_decide_about_the_resolution(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    with pytest.raises(Refused, match="is decided by"):
        say(conn, plan, by="on-call", role="oncall_ml_engineer")
    with pytest.raises(Invalid, match="approved or rejected"):
        say(conn, plan, "maybe")
    assert plans.approvals_of(conn, incident_id) == []


def test_an_automatic_plan_rests_on_its_rule_and_no_other_plan_does(conn: Connection, incident_id: str) -> None:
    rule = "containment.high.human_approval"
    automatic = Plan(incident_id, PlanKind.CONTAINMENT, MODEL, (Configure(MODEL, {"human_approval": True}),), ("high",), rule=rule)
    plans.propose(conn, automatic, now=T0)
    made = approve_by_rule(conn, automatic, now=T0)
    assert (made.door, made.approver) == ("policy_rule", rule)
    assert is_approved(conn, automatic, now=T0 + timedelta(days=1)), "a rule does not expire"
    by_hand = rollback_to(incident_id)
    plans.propose(conn, by_hand, now=T0)
    plans.decide(conn, incident_id, by_hand.digest, Decision("approved", rule, None, "policy_rule"), now=T0)
    assert not is_approved(conn, by_hand)


def test_a_change_rests_on_an_approval_that_counts_not_on_a_later_one_that_does_not(conn: Connection, incident_id: str) -> None:
    plan = rollback_to(incident_id)
    plans.propose(conn, plan, now=T0)
    counts = say(conn, plan)
    typed = Decision("approved", "somebody", "ml_team_lead", "prefect_form", verified=False)
    plans.decide(conn, incident_id, plan.digest, typed, now=T0)
    assert valid_approval(conn, POLICY, plan, now=T0)[0] == counts
