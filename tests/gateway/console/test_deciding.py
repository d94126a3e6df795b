"""Yes and no to a plan in the console: about exactly the plan that was shown, once, by who may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from mlrunbook.store import plans
from tests.gateway.api.test_incidents import opened, proposed
from tests.gateway.conftest import Clock, Keys, world_on
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.world_of import everything


@pytest.fixture
def lead(sign_in: SignIn, keys: Keys, clock: Clock) -> Browser:
    return sign_in(keys.token("the lead", role="ml_team_lead"))


@pytest.fixture
def waiting(client: TestClient, world: World, model: str) -> tuple[str, str]:
    """An incident, and the digest of the plan that waits."""
    incident_id = opened(client, model)
    return incident_id, proposed(world, incident_id, model)


def decide(browser: Browser, incident_id: str, digest: str, act: str = "approve", **form: str) -> Any:
    fields: Mapping[str, str] = {"plan_digest": digest, **form}
    return browser.submit(f"/incidents/{incident_id}/{act}?plan={digest}", fields, follow_redirects=False)


def approvals(world: World, incident_id: str) -> list[tuple[str, str]]:
    with world.transaction() as conn:
        return [(row.approver, row.decision) for row in plans.approvals_of(conn, incident_id) if row.voided_at is None]


def test_the_page_shows_the_plan_that_its_button_approves(lead: Browser, waiting: tuple[str, str], model: str) -> None:
    incident_id, digest = waiting
    page = lead.get(f"/incidents/{incident_id}/approve")
    assert page.status_code == 200
    for shown in (f"roll {model} back to v1.5.0", "F1 fell after v2.0.0", "F1 as before", f'name="plan_digest" value="{digest}"'):
        assert shown in page.text


def test_a_plan_that_was_replaced_meanwhile_is_not_approved_and_the_new_one_is_shown(
    world: World, lead: Browser, waiting: tuple[str, str], model: str
) -> None:
    incident_id, stale = waiting
    lead.get(f"/incidents/{incident_id}/approve?plan={stale}")
    newer = proposed(world, incident_id, model, version="v1.4.0")
    before = everything(world)
    answer = decide(lead, incident_id, stale)
    assert answer.status_code == 409
    assert "was replaced" in answer.text
    assert f"/incidents/{incident_id}/approve?plan={newer}" in answer.text
    assert f'value="{stale}"' not in answer.text, "nothing on the page approves the old one"
    assert lead.get(f"/incidents/{incident_id}/approve?plan={stale}").status_code == 409
    assert everything(world) == before


def test_a_plan_of_another_incident_is_refused(
    client: TestClient, world: World, lead: Browser, waiting: tuple[str, str], model: str
) -> None:
    other = opened(client, f"{model}_other")
    before = everything(world)
    assert decide(lead, other, waiting[1]).status_code == 404
    assert lead.get(f"/incidents/{other}/approve?plan={waiting[1]}").status_code == 404
    assert everything(world) == before


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 64, "' OR 1=1 --"])
def test_what_is_no_digest_decides_nothing(world: World, lead: Browser, waiting: tuple[str, str], digest: str) -> None:
    before = everything(world)
    answer = lead.submit(f"/incidents/{waiting[0]}/approve", {"plan_digest": digest})
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert everything(world) == before


def test_two_taps_decide_once(world: World, lead: Browser, waiting: tuple[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: decide(lead, *waiting), range(4)))
    assert {answer.status_code for answer in answers} == {303}
    assert approvals(world, waiting[0]) == [("the lead", "approved")]


def test_a_no_and_a_yes_at_once_leave_one_standing_no(world: World, sign_in: SignIn, keys: Keys, waiting: tuple[str, str]) -> None:
    people = [sign_in(keys.token(name, role=role)) for name, role in (("Ann", "ml_team_lead"), ("Bo", "engineering_manager"))]
    with ThreadPoolExecutor(2) as pool:
        yes = pool.submit(decide, people[0], *waiting)
        no = pool.submit(decide, people[1], *waiting, "reject", reason="wait")
    assert no.result().status_code == 303
    assert yes.result().status_code in (303, 409)
    assert ("Bo", "rejected") in approvals(world, waiting[0])
    assert "Bo rejected the plan" in people[0].get(f"/incidents/{waiting[0]}/approve?plan={waiting[1]}").text


def test_a_role_that_may_not_decide_reads_who_does_and_sees_no_button(
    world: World, sign_in: SignIn, keys: Keys, waiting: tuple[str, str]
) -> None:
    on_call = sign_in(keys.token("on call", role="oncall_ml_engineer"))
    before = everything(world)
    page = on_call.get(f"/incidents/{waiting[0]}/approve")
    assert "ML Team Lead" in page.text
    assert 'name="plan_digest"' not in page.text
    assert decide(on_call, *waiting).status_code == 409
    assert everything(world) == before


def test_an_old_sign_in_is_asked_for_again_before_production_changes(
    world: World, lead: Browser, clock: Clock, waiting: tuple[str, str]
) -> None:
    clock.pass_(minutes=world.policy.console.fresh_sign_in_min + 1)
    incident_id, digest = waiting
    assert "Sign in again" in lead.get(f"/incidents/{incident_id}/approve?plan={digest}").text
    before = everything(world)
    answer = decide(lead, incident_id, digest)
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login")
    assert f"plan%3D{digest}" in answer.headers["location"], "after signing in the person is at the plan again"
    assert (
        lead.submit(f"/incidents/{incident_id}/reverse", {"reason": "x"}, follow_redirects=False).headers["location"].startswith("/login")
    )
    assert everything(world) == before


def test_several_plans_wait_and_one_is_chosen(world: World, lead: Browser, waiting: tuple[str, str], model: str) -> None:
    other = proposed(world, waiting[0], model, version="v1.3.0", kind=PlanKind.MITIGATION)
    page = lead.get(f"/incidents/{waiting[0]}/approve").text
    for digest in (waiting[1], other):
        assert f"/incidents/{waiting[0]}/approve?plan={digest}" in page
    assert '<form method="post" action="/incidents' not in page


def test_two_people_are_needed_and_the_page_says_how_many_have_agreed(clock: Clock, keys: Keys, browser: Any, model: str) -> None:
    pairs = ApprovalRule(roles=(Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER), count=2)
    world = world_on(keys.engine, clock, Policy(approvals=Approvals(resolution=pairs)))
    app = create_app(world)
    ann, bo = browser(app), browser(app)
    for one, name, role in ((ann, "Ann", "ml_team_lead"), (bo, "Bo", "engineering_manager")):
        one.post("/login/token", data={"token": keys.token(name, role=role)}, follow_redirects=False)
    form = {"model": model, "severity": "high", "type": "performance_degradation", "description": "F1 fell"}
    incident_id = ann.submit("/report", form, follow_redirects=False).headers["location"].split("/")[2].partition("?")[0]
    digest = proposed(world, incident_id, model)
    assert decide(ann, incident_id, digest).status_code == 303
    assert "You have approved it" in ann.get(f"/incidents/{incident_id}/approve?plan={digest}").text
    shown = bo.get(f"/incidents/{incident_id}/approve?plan={digest}").text
    assert "1 of 2 approvals" in shown, re.sub("<[^>]*>", " ", shown)
    assert decide(bo, incident_id, digest).status_code == 303
    assert approvals(world, incident_id) == [("Ann", "approved"), ("Bo", "approved")]
