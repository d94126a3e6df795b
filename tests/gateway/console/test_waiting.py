"""What waits for a person: decisions that would count, pages nobody of their role has acknowledged, reviews, overdue action items."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.incident import ItemStatus, Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.waiting import Waiting, What
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.console.waiting import waits_for
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.execution import approvals
from mlrunbook.response.review import action_items, reviews
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import SignIn
from tests.gateway.console.kit import opened, paged, planned, reviewed_draft, todo
from tests.gateway.console.reading import read


def of(name: str, role: Role | None, *scopes: Scope, models: tuple[str, ...] = ()) -> Identity:
    return Identity("t", name, role, frozenset(scopes or Scope), limits=tokens.Limits(models=models))


LEAD, ENGINEER = of("Ann Lee", Role.ML_TEAM_LEAD), of("Bo Day", Role.ONCALL_ML_ENGINEER)


def waits(world: World, who: Identity, incident_id: str, policy: Policy | None = None) -> list[Waiting]:
    with world.transaction() as conn:
        return [one for one in waits_for(conn, policy or world.policy, who, now=world.now()) if one.incident_id == incident_id]


def kinds(world: World, who: Identity, incident_id: str, policy: Policy | None = None) -> list[What]:
    return [one.what for one in waits(world, who, incident_id, policy)]


def decide(world: World, incident_id: str, digest: str, who: Identity, decision: str = "approved", policy: Policy | None = None) -> None:
    said = Decision(decision, who.name, who.role, "console", person=who.person)
    with world.transaction() as conn:
        approvals.decide(conn, policy or world.policy, incident_id, digest, said, now=world.now())


def test_a_plan_waits_for_those_whose_yes_counts(world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    plan = planned(world, one)
    (asked,) = waits(world, LEAD, one)
    assert (asked.what, asked.path, asked.severity) == (What.DECISION, f"/incidents/{one}", Severity.HIGH)
    assert "v1.4.0" in asked.sentence
    for who in (ENGINEER, of("Cy", None), of("Di", Role.ML_TEAM_LEAD, Scope.READ, Scope.OPERATE)):
        assert kinds(world, who, one) == []
    decide(world, one, plan.digest, LEAD)
    assert kinds(world, LEAD, one) == []
    assert kinds(world, of("Ed", Role.ENGINEERING_MANAGER), one) == []


@pytest.mark.parametrize("decision", ["rejected"])
def test_a_decided_plan_waits_for_nobody(world: World, clock: Clock, model: str, decision: str) -> None:
    one = opened(world, model)
    decide(world, one, planned(world, one).digest, LEAD, decision)
    assert kinds(world, of("Ed", Role.ENGINEERING_MANAGER), one) == []


def test_of_two_who_must_agree_the_second_is_waited_for(world: World, clock: Clock, model: str) -> None:
    rule = world.policy.approvals.resolution.model_copy(update={"count": 2})
    policy = world.policy.model_copy(update={"approvals": world.policy.approvals.model_copy(update={"resolution": rule})})
    one = opened(world, model)
    decide(world, one, planned(world, one).digest, LEAD, policy=policy)
    assert kinds(world, LEAD, one, policy) == []
    assert kinds(world, of("Ed", Role.ENGINEERING_MANAGER), one, policy) == [What.DECISION]


def test_a_plan_that_was_replaced_or_whose_incident_is_over_waits_no_more(world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    planned(world, one, to="v1.3.0")
    planned(world, one, to="v1.4.0")
    (asked,) = waits(world, LEAD, one)
    assert "v1.4.0" in asked.sentence
    reviewed_draft(world, one)
    assert What.DECISION not in kinds(world, LEAD, one)


def test_a_page_waits_until_somebody_of_that_role_acknowledges(world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    paged(world, one, Role.ML_TEAM_LEAD)
    assert kinds(world, LEAD, one) == [What.PAGE]
    assert kinds(world, ENGINEER, one) == []
    with world.transaction() as conn:
        acknowledge(conn, one, by="Bo Day", role=Role.ONCALL_ML_ENGINEER, now=clock())
    assert kinds(world, LEAD, one) == [What.PAGE]
    with world.transaction() as conn:
        acknowledge(conn, one, by="Cy Poe", role=Role.ML_TEAM_LEAD, now=clock())
    assert kinds(world, LEAD, one) == []


def test_after_a_reopening_the_page_waits_again(world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    paged(world, one, Role.ML_TEAM_LEAD)
    with world.transaction() as conn:
        acknowledge(conn, one, by="Ann Lee", role=Role.ML_TEAM_LEAD, now=clock())
    reviewed_draft(world, one)
    with world.transaction() as conn:
        incidents.reopen(conn, one, why="it is back", actor="dispatcher", now=clock())
    assert kinds(world, LEAD, one) == [What.PAGE]


def test_a_review_waits_first_for_its_reviewer_then_for_another_to_approve_it(world: World, clock: Clock, model: str) -> None:
    one, manager = opened(world, model), of("Ed Fox", Role.ENGINEERING_MANAGER)
    reviewed_draft(world, one)
    (asked,) = waits(world, LEAD, one)
    assert (asked.what, asked.path, asked.is_late) == (What.REVIEW, f"/incidents/{one}/review", False)
    assert "1 question" in asked.sentence
    assert kinds(world, ENGINEER, one) == []
    clock.pass_(hours=49)
    assert waits(world, LEAD, one)[0].is_late
    sign(world, one, "reviewed", LEAD)
    assert kinds(world, LEAD, one) == []
    assert kinds(world, manager, one) == [What.REVIEW]
    sign(world, one, "approved", manager)
    assert kinds(world, manager, one) == kinds(world, of("Gil", Role.VP_ENGINEERING), one) == []


def sign(world: World, incident_id: str, part: Any, who: Identity) -> None:
    with world.transaction() as conn:
        reviews.sign(conn, world.policy, incident_id, part, reviews.Signer(who.name, who.role, who.person), now=world.now())


@pytest.mark.parametrize("owner", ["ml_team_lead", "ML Team Lead", "Ann  LEE"])
def test_an_overdue_action_item_waits_for_its_owner(world: World, clock: Clock, model: str, owner: str) -> None:
    one = opened(world, model)
    number = todo(world, one, owner=owner, days=2)
    assert kinds(world, LEAD, one) == []
    clock.pass_(days=4)
    assert kinds(world, LEAD, one) == [What.ITEM]
    assert kinds(world, ENGINEER, one) == []
    with world.transaction() as conn:
        action_items.move(conn, world.policy, number, ItemStatus.DONE, by="Ann Lee", note="", now=clock())
    assert kinds(world, LEAD, one) == []


def test_a_limited_token_hears_of_its_models_alone(world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    planned(world, one)
    paged(world, one, Role.ML_TEAM_LEAD)
    todo(world, one, days=-3)
    assert len(waits(world, LEAD, one)) == 3
    assert len(waits(world, of("Ann Lee", Role.ML_TEAM_LEAD, models=(model,)), one)) == 3
    assert waits(world, of("Ann Lee", Role.ML_TEAM_LEAD, models=("other_*",)), one) == []


def test_decisions_come_first_and_the_more_severe_before_the_older(world: World, clock: Clock, model: str) -> None:
    low = opened(world, f"{model}_low", severity=Severity.MEDIUM)
    todo(world, low, days=-3)
    planned(world, low)
    clock.pass_(minutes=5)
    worst = opened(world, f"{model}_worst", severity=Severity.CRITICAL)
    planned(world, worst, kind=PlanKind.CONTAINMENT)
    with world.transaction() as conn:
        found = [(one.what, one.incident_id) for one in waits_for(conn, world.policy, LEAD, now=clock()) if one.incident_id in (low, worst)]
    assert found == [(What.DECISION, worst), (What.DECISION, low), (What.ITEM, low)]


def test_the_page_lists_what_waits_and_the_navigation_counts_it(sign_in: SignIn, keys: Keys, world: World, model: str) -> None:
    with transaction(keys.engine) as conn:
        token = tokens.create(conn, name=f"Ida {model}", scopes=list(Scope), role="vp_engineering", limits=tokens.Limits(models=(model,)))
    ida = sign_in(token)
    assert ida.get("/waiting").text.strip() == ""
    one = opened(world, model)
    planned(world, one)
    paged(world, one, Role.VP_ENGINEERING)
    page = read(ida.get("/incidents"))
    assert page.links.count(f"/incidents/{one}") == 3, "the decision, the page, the list"
    assert "2" in ida.get("/waiting").text
