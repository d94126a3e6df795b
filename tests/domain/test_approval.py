from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mlrunbook.domain.approval import Approval, ApprovalRules, granted, valid
from tests.domain.builders import NOW

DIGEST, OTHER = "a" * 64, "b" * 64
LEADS = ApprovalRules(roles=frozenset({"ml_team_lead", "engineering_manager"}))
YES = Approval(DIGEST, "approved", "lead-1", "cli", True, NOW - timedelta(minutes=2), "ml_team_lead", NOW + timedelta(minutes=58))
RULE = replace(YES, approver="containment.high.human_approval", door="policy_rule", role=None, expires_at=None)


def test_a_verified_yes_in_the_right_role_for_exactly_this_plan_counts() -> None:
    assert valid(YES, DIGEST, NOW, LEADS) == (True, "approved by lead-1 through cli")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"plan_digest": OTHER}, "is for another plan (bbbbbbbbbbbb): approve aaaaaaaaaaaa"),
        ({"voided_at": NOW, "voided_because": "the plan changed"}, "is void (the plan changed): ask again"),
        ({"decision": "rejected"}, "lead-1 rejected the plan"),
        ({"decision": "APPROVED?"}, "lead-1 APPROVED? the plan"),
        ({"expires_at": NOW}, "expired at 12:00 UTC: ask again"),
        ({"at": NOW + timedelta(minutes=5)}, "is dated in the future"),
        ({"verified": False, "door": "prefect_form"}, "through prefect_form, which cannot prove who it was"),
        ({"role": "intern"}, "role intern may not approve this, engineering_manager or ml_team_lead may"),
        ({"role": None}, "role none may not approve this"),
    ],
)
def test_anything_else_is_a_no_with_its_reason(changes: dict[str, Any], why: str) -> None:
    ok, sentence = valid(replace(YES, **changes), DIGEST, NOW, LEADS)
    assert not ok
    assert why in sentence


def test_an_unverified_door_counts_only_where_policy_lets_it_in() -> None:
    form = replace(YES, verified=False, door="prefect_form")
    assert valid(form, DIGEST, NOW, replace(LEADS, unverified_doors=frozenset({"prefect_form"})))[0]
    assert not valid(form, DIGEST, NOW, replace(LEADS, unverified_doors=frozenset({"email"})))[0]


def test_a_form_proves_no_role_and_counts_without_one_only_where_policy_lets_it_in() -> None:
    form = replace(YES, verified=False, door="prefect_form", role=None)
    let_in = replace(LEADS, unverified_doors=frozenset({"prefect_form"}))
    assert valid(form, DIGEST, NOW, let_in) == (True, "approved by lead-1 through prefect_form (unverified)")
    assert not valid(form, DIGEST, NOW, LEADS)[0]
    assert not valid(replace(YES, role=None), DIGEST, NOW, let_in)[0], "at any other door the role is needed"
    assert not granted([YES, replace(form, decision="rejected", approver="somebody")], DIGEST, NOW, let_in)[0], "its no counts too"


def test_a_policy_rule_covers_only_the_plan_that_names_it() -> None:
    assert granted([RULE], DIGEST, NOW, replace(LEADS, count=2, plan_rule=RULE.approver))[0]
    assert not granted([RULE], DIGEST, NOW, LEADS)[0]
    assert not granted([RULE], DIGEST, NOW, replace(LEADS, plan_rule="containment.high.raise_threshold"))[0]


def test_two_approvals_mean_two_people() -> None:
    two = replace(LEADS, count=2)
    ok, sentence = granted([YES, replace(YES, door="rest"), replace(YES, approver=" LEAD-1")], DIGEST, NOW, two)
    assert not ok
    assert sentence.startswith("1 of 2 approvals for plan aaaaaaaaaaaa")
    assert granted([YES, replace(YES, approver="manager-1", role="engineering_manager")], DIGEST, NOW, two)[0]


def test_people_are_told_apart_by_their_id_and_not_by_name_door_or_token() -> None:
    two = replace(LEADS, count=2)
    same = [replace(YES, approver=name, person="kim", door=door) for name, door in (("Kim", "cli"), ("K. Lee", "rest"), ("lead-1", "rest"))]
    assert not granted(same, DIGEST, NOW, two)[0]
    assert granted([*same, replace(YES, person="lee")], DIGEST, NOW, two)[0], "two people may have one name"


def test_a_token_without_a_person_id_and_a_sign_in_under_the_same_name_are_one() -> None:
    two = replace(LEADS, count=2)
    by_token = replace(YES, approver="Ann Lee", person="ann lee")
    by_provider = replace(YES, approver="Ann Lee", person="ann.lee@example.com", door="console")
    for pair in ([by_token, by_provider], [by_provider, by_token]):
        assert not granted(pair, DIGEST, NOW, two)[0]
        assert granted([*pair, replace(YES, approver="Bo Ray", person="bo@example.com")], DIGEST, NOW, two)[0]


FORM = replace(YES, verified=False, door="prefect_form", role=None)
WITH_FORM = replace(LEADS, count=2, unverified_doors=frozenset({"prefect_form"}))


def test_a_shared_form_is_one_login_however_many_names_are_typed_into_it() -> None:
    typed = [replace(FORM, approver=name) for name in ("anybody", "somebody else", "Lead-2", "lead-3")]
    ok, sentence = granted(typed, DIGEST, NOW, WITH_FORM)
    assert not ok
    assert sentence.startswith("1 of 2")
    assert granted([YES, *typed], DIGEST, NOW, WITH_FORM)[0]
    assert not granted([YES, *typed], DIGEST, NOW, replace(WITH_FORM, count=3))[0]


@pytest.mark.parametrize("typed", ["lead-1", " LEAD-1 ", "Ｌead-1"])
def test_a_yes_by_token_and_by_form_of_one_person_is_one(typed: str) -> None:
    assert not granted([YES, replace(FORM, approver=typed)], DIGEST, NOW, WITH_FORM)[0]


def test_a_name_typed_into_the_form_adds_nobody_who_has_said_yes_with_a_token_under_a_person_id() -> None:
    kim = replace(YES, approver="Kim Lee", person="kim")
    for typed in ("Kim Lee", "kim", " KIM  lee"):
        assert not granted([kim, replace(FORM, approver=typed)], DIGEST, NOW, WITH_FORM)[0]
    assert granted([kim, replace(FORM, approver="Lead-2")], DIGEST, NOW, WITH_FORM)[0]


def test_whoever_asked_for_the_plan_is_not_among_those_who_approve_it() -> None:
    asked = replace(LEADS, requesters=frozenset({"lead-1"}))
    ok, sentence = valid(YES, DIGEST, NOW, asked)
    assert not ok
    assert "lead-1 asked for this plan, another person must approve it" in sentence
    assert not valid(replace(YES, approver="Kim", person="lead-1"), DIGEST, NOW, asked)[0]
    assert not valid(replace(YES, approver=" Lead-1", person="kim"), DIGEST, NOW, asked)[0], "who typed the name may be this one"
    assert valid(replace(YES, approver="Lee", person="lee"), DIGEST, NOW, asked)[0]
    assert not granted([YES, replace(YES, approver="lead-1", decision="rejected")], DIGEST, NOW, asked)[0], "may still withdraw it"


def test_one_entitled_no_stops_the_plan_until_it_is_voided() -> None:
    no = replace(YES, approver="manager-1", decision="rejected")
    assert granted([YES, no], DIGEST, NOW, LEADS) == (False, "manager-1 rejected the plan")
    assert granted([YES, replace(no, voided_at=NOW)], DIGEST, NOW, LEADS)[0]
    assert granted([YES, replace(no, plan_digest=OTHER)], DIGEST, NOW, LEADS)[0]


def test_a_no_from_somebody_who_may_not_approve_stops_nothing() -> None:
    assert granted([YES, replace(YES, approver="guest", role="guest", decision="rejected")], DIGEST, NOW, LEADS)[0]


def test_no_approval_is_no() -> None:
    assert granted([], DIGEST, NOW, LEADS) == (False, "0 of 1 approvals for plan aaaaaaaaaaaa")
