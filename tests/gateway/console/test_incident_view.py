"""What the page of an incident says, from values alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlrunbook.domain.actions import Configure, Plan, PlanKind, RollBack
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.resolution.deciding import PlanState, Standing, Step
from mlrunbook.domain.resolution.plan import OBJECTION
from mlrunbook.gateway.console import incident_lists as lists
from mlrunbook.gateway.console import incident_view as view
from mlrunbook.gateway.console.possible import Act, Possible
from mlrunbook.store.journal import Row

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
OPEN = Incident(
    "incident_7", "pump", IncidentType.PERFORMANCE_DEGRADATION, "performance", Severity.HIGH, Status.CONTAINED, "F1 fell", "", "Bob", NOW
)  # fmt: skip
RESOLUTION = Plan(
    "incident_7",
    PlanKind.RESOLUTION,
    "pump",
    (RollBack("pump", "v1.5.0"), Configure("pump", {"threshold": 0.4})),
    ("v1.5.0 has held", "F1 fell (0.82; 105 failures); it is new"),
    expected="F1 is back",
    facts={"f1_now": 0.5, "dry_run": ["the runtime takes it"], "against": ["it was slow"], OBJECTION: "v1.5.0 has held"},
)
RULE = view.Rule(frozenset({"ml_team_lead"}), 1)


def shown(standing: Standing = Standing.PENDING, acts: tuple[Possible, ...] = (), plan: Plan = RESOLUTION) -> view.PlanView:
    state = PlanState(plan, standing, "0 of 1 approvals", tuple(Step(action) for action in plan.actions))
    return view.plan_view(state, RULE, [], acts, serving="v2.0.0", now=NOW)


def may(*acts: Act, digest: str = RESOLUTION.digest) -> tuple[Possible, ...]:
    return tuple(Possible(act, digest=digest if act in (Act.APPROVE, Act.REJECT) else "") for act in acts)


def row(kind: str, target: dict[str, Any], *, number: int, state: str = "done", **more: Any) -> Row:
    values: dict[str, Any] = {
        "id": f"a{number}", "incident_id": "incident_7", "plan_digest": "p", "ordinal": 0, "kind": kind, "model": "pump", "target": target,
        "summary": f"{kind} {target}", "approval_id": number, "generation": 1, "state": state, "before": None, "after": None, "attempts": 1,
        "undo_of": None, "undone_by": None, "kept_because": None, "error": None, "intended_at": NOW, "done_at": NOW,
    }  # fmt: skip
    return Row(**values | more)


def test_a_plan_says_from_what_to_what_and_what_speaks_against_it() -> None:
    plan = shown()
    assert plan.changes[0].values == (("target version", "v2.0.0", "v1.5.0"),)
    assert plan.changes[1].values == (("threshold", "?", "0.4"),), "nobody knows yet what it was"
    assert plan.objection == "v1.5.0 has held"
    assert plan.reasons == ("F1 fell (0.82; 105 failures)", "it is new"), "the objection is said apart, and brackets stay whole"
    assert plan.tried == ("the runtime takes it",)
    assert plan.numbers == (("F1 now", "0.50"),)


def test_the_buttons_at_hand_are_what_waits_for_this_visitor() -> None:
    late = view.answer_of(OPEN, None, NOW - timedelta(minutes=5), NOW)
    acts = may(Act.ACKNOWLEDGE, Act.APPROVE, Act.REJECT, Act.CLOSE)
    found = view.attention(late, [shown(acts=acts)], acts, OPEN)
    assert [one.act for one in found.acts] == [Act.ACKNOWLEDGE, Act.APPROVE, Act.REJECT]
    rest, _ = view.others(acts, found)
    assert [one.act for one in rest] == [Act.CLOSE]


def test_who_may_not_decide_learns_for_whom_it_waits() -> None:
    answered = view.answer_of(OPEN, "Ann Lee", NOW, NOW)
    no = (Possible(Act.APPROVE, "ML Team Lead decides this.", RESOLUTION.digest),)
    found = view.attention(answered, [shown(acts=no)], no, OPEN)
    assert found.acts == ()
    assert "ML Team Lead" in found.sentence
    over = view.attention(answered, [], (), replace(OPEN, status=Status.CLOSED))
    assert over.acts == ()


@pytest.mark.parametrize(("minutes", "state"), [(-1, "late"), (10, "due")])
def test_a_response_is_due_or_late_until_somebody_has_it(minutes: int, state: str) -> None:
    due = NOW + timedelta(minutes=minutes)
    assert view.answer_of(OPEN, None, due, NOW).state == state
    assert view.answer_of(OPEN, "Ann Lee", due, NOW).state == "answered"
    assert view.answer_of(replace(OPEN, status=Status.CLOSED), None, due, NOW).state == "over"


def test_what_serves_is_what_was_read_back_last_and_not_taken_back() -> None:
    routed, rolled = row("route_traffic", {"version": "v1.4.0"}, number=1), row("roll_back", {"target_version": "v1.5.0"}, number=2)
    assert view.serving([rolled, routed], "v2.0.0")[0] == "v1.5.0"
    assert view.serving([routed, replace(rolled, state="unknown")], "v2.0.0")[0] == "v1.4.0"
    assert view.serving([replace(rolled, undone_by="a3")], "v2.0.0")[0] == "v2.0.0"
    assert view.serving([], None) == (None, "")


def test_suspects_come_first_and_what_is_not_known_before_what_is_fine() -> None:
    keys = ["ground_truth.error_patterns", "recent_changes.model_deployment", "data_quality.data_freshness"]
    states = [State.OK, State.UNKNOWN, State.SUSPECT]
    found = view.findings([Finding(key, state, "log", None, "x") for key, state in zip(keys, states, strict=True)])
    assert [one.state for one in found] == ["suspect", "unknown", "ok"]


def test_what_was_done_says_how_it_stands() -> None:
    rows = [
        row("scale", {"replicas": 0}, number=1, undone_by="a2"),
        row("scale", {"replicas": 1}, number=2, state="unknown", error="timeout"),
    ]
    found = view.done(rows, {"a1": "Stopped serving"}, NOW)
    assert (found[0].text, found[0].state) == ("Stopped serving", "taken back")
    assert found[1].note == "timeout"
    assert next(view.contained([rows[1]], set(), NOW)).is_trouble


def test_plans_that_wait_come_first() -> None:
    old, new = shown(Standing.CARRIED_OUT), shown(Standing.PENDING)
    assert view.waiting_first([new, old])[0].waits


def test_what_waits_for_the_visitor_comes_before_what_waits_for_others() -> None:
    mine = shown(acts=may(Act.APPROVE, Act.REJECT))
    theirs = shown(acts=(Possible(Act.APPROVE, "the lead decides this", RESOLUTION.digest),))
    assert [one.approve.is_possible for one in view.waiting_first([mine, theirs])] == [True, False]


def message(**values: Any) -> dict[str, Any]:
    base = {
        "kind": "page", "payload": {"to": "ML Team Lead", "channel": "page", "reason": "look"}, "delivered_at": None, "cancelled_at": None,
        "not_before": NOW, "attempts": 0, "last_error": None,
    }  # fmt: skip
    return base | values


def test_messages_say_whether_they_arrived() -> None:
    rows = [
        message(),
        message(delivered_at=NOW),
        message(cancelled_at=NOW),
        message(attempts=3, last_error="no route"),
        message(kind="timer"),
        message(payload=["of another version"]),
    ]
    found = lists.messages(rows, NOW)
    assert [one.state for one in found] == ["not delivered", "cancelled", "delivered", "waiting"]
    assert "3 times" in found[0].note


def test_a_moment_is_dated_where_it_is_not_of_today() -> None:
    assert view.When.of(NOW - timedelta(minutes=3), NOW) == view.When("2026-03-02T02:57:00+00:00", "02:57 UTC", "3 minutes ago")
    assert "Feb" in view.When.of(NOW - timedelta(days=2), NOW).text
    assert view.When.of(NOW + timedelta(hours=1), NOW).ago == "in 1 hour"
