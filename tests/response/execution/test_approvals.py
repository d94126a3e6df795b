"""Asking for a decision, also when the answer came to nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prefect._internal.pydantic.v2_schema import create_v2_schema
from prefect.utilities.schema_tools.validation import is_valid

from flows.incident import respond
from mlrunbook import bootstrap
from mlrunbook.domain.actions import Order, Path, Plan, PlanKind
from mlrunbook.domain.approval import PREFECT_FORM, FormAnswer
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution.approval_gate import record_form
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.lifecycle.runs import take
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import incidents, plans
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.plain_engine import PlainEngine, Suspended
from tests.response.carrying import carry
from tests.response.people import approve, deliver, plan, recorded, report, say, told

TWO_PEOPLE = Policy(approvals=Approvals(resolution=ApprovalRule(roles=(Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER), count=2)))


def asked(notifier: LedgerNotifier) -> list[str]:
    """Who was asked about the resolution. The on-call engineer is asked once more, about the temporary rollback."""
    roles = [m.body.split(":")[0] for m in notifier.pages() if "Decide: " in m.body]
    assert roles.count("On-Call ML Engineer") <= 1
    return [role for role in roles if role != "On-Call ML Engineer"]


def test_a_run_that_asks_again_pages_nobody_twice(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    for minute in range(3):
        clock.advance(minutes=minute)
        assert carry(world, incident_id, "run-1") == "pending"
        deliver(world)
    assert asked(notifier) == ["ML Team Lead"]


def test_an_approval_that_expired_before_the_run_came_back_is_asked_for_again(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    approve(world, incident_id)
    clock.advance(minutes=61)  # nothing ran meanwhile
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    assert asked(notifier) == ["ML Team Lead", "ML Team Lead"]
    assert "rollback" not in file_world.applied
    clock.advance(minutes=61)
    deliver(world)
    assert sorted(asked(notifier)[2:]) == ["ML Team Lead", "VP Engineering"], "and escalated as before"
    approve(world, incident_id)
    clock.advance(minutes=1)
    assert carry(world, incident_id, "run-1") == "closed"


def test_where_two_must_approve_the_asking_goes_on_after_the_first(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    world = replace(world, policy=TWO_PEOPLE)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    assert carry(world, incident_id, "run-1") == "pending"
    assert "rollback" not in file_world.applied
    clock.advance(minutes=61)
    deliver(world)
    assert "Engineering Manager" in asked(notifier)
    approve(world, incident_id)
    say(world, incident_id, "approved", by="the other lead")
    clock.advance(minutes=1)
    assert carry(world, incident_id, "run-1") == "closed"


def test_a_plan_that_is_carried_out_is_not_asked_for_again_when_its_approval_has_expired(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    clock.advance(seconds=20)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.set(labelled=False)
    clock.advance(minutes=20)
    assert carry(world, incident_id, "run-1") == "too early to say"
    clock.advance(minutes=50)  # the approval is 70 minutes old, the outcomes have come in
    file_world.set(labelled=True)
    assert carry(world, incident_id, "run-2") == "closed"
    assert asked(notifier) == []


def test_a_path_that_a_person_asks_for_goes_through_plan_and_approval_and_is_measured_anew(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    incident_id = report(world)
    clock.advance(seconds=20)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.set(labelled=False)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "too early to say"
    wish = Request(path=Path.ROLLBACK, target_version="v1.4.0", by="the lead", reason="v1.5.0 misses pumps")
    said = NewReport(MODEL, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "go further back", "", "the lead")
    joined = open_or_join(world, said, wish)
    assert joined == incident_id
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "pending", "what a person asks for needs its approval too"
    assert file_world.state["serving"] == "v1.5.0"
    approve(world, incident_id)
    file_world.set(labelled=True)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"
    assert file_world.state["serving"] == "v1.4.0"
    assert file_world.applied["rollback"] == 2
    assert recorded(world, incident_id, "applied")["at"] == str(clock.at)


def test_a_form_that_is_answered_too_late_is_noted_and_stops_no_run(world: World, file_world: FileWorld, clock: Clock) -> None:
    by_form = ApprovalRule(roles=(Role.ML_TEAM_LEAD,), accept_prefect_form=True)
    world = replace(world, policy=Policy(approvals=Approvals(resolution=by_form)))
    incident_id = report(world)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    asked = plan(world, incident_id)
    assert asked is not None
    approve(world, incident_id)
    file_world.set(labelled=False)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "too early to say"
    run = take(world, incident_id, "run-2")
    assert run is not None
    for number, decision in enumerate(("rejected", "approved")):
        assert not record_form(run, asked.digest, number, FormAnswer(decision, "somebody", "too late"))
    rejected, approved = told(world, incident_id, "approval")[-2:]
    assert "can no longer be rejected: rolled back to v1.5.0" in rejected
    assert "Nothing is left to approve" in approved
    file_world.set(labelled=True)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"


FORM_COUNTS = Policy(approvals=Approvals(resolution=ApprovalRule(roles=(Role.ML_TEAM_LEAD,), accept_prefect_form=True)))
YES = {"decision": "approved", "name": "ML Team Lead", "comment": "roll it back"}


def proposed(world: World, incident_id: str) -> Plan:
    found = plan(world, incident_id)
    assert found is not None
    return found


def suspended_at(world: World, incident_id: str, engine: PlainEngine) -> str:
    """The gate where the run stops."""
    with bootstrap.using(world), pytest.raises(Suspended) as stopped:
        engine.run(respond, "run-1", incident_id=incident_id)
    return stopped.value.key


def test_the_form_shows_the_plan_and_counts_where_policy_opens_it(world: World, file_world: FileWorld, clock: Clock) -> None:
    world, engine = replace(world, policy=FORM_COUNTS), PlainEngine()
    incident_id = report(world)
    gate = suspended_at(world, incident_id, engine)
    shown = engine.artifacts[f"{incident_id.replace('_', '-')}-plan"]
    assert all(f"1. {action.summary}" in shown for action in proposed(world, incident_id).actions)
    engine.answer("run-1", gate, YES)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1", engine=engine) == "closed"
    assert file_world.applied["rollback"] == 1


def test_a_form_that_policy_does_not_count_suspends_the_run_at_the_next_gate(world: World, file_world: FileWorld) -> None:
    engine = PlainEngine()
    incident_id = report(world)
    first = suspended_at(world, incident_id, engine)
    engine.answer("run-1", first, YES)
    second = suspended_at(world, incident_id, engine)
    assert second != first
    engine.answer("run-1", second, {"decision": "decided_elsewhere"})
    third = suspended_at(world, incident_id, engine)
    assert third != second
    assert "rollback" not in file_world.applied
    with world.transaction() as conn:
        assert not [row for row in plans.approvals_of(conn, incident_id) if row.door == PREFECT_FORM]


def test_a_form_says_whether_it_counts_offers_no_approve_where_it_does_not_and_links_to_the_plan(world: World) -> None:
    incident_id = report(world)
    suspended_at(world, incident_id, closed := PlainEngine())
    suspended_at(replace(world, policy=FORM_COUNTS), incident_id, opened := PlainEngine())
    asked = proposed(world, incident_id)
    link = f"/incidents/{incident_id}/approve?plan={asked.digest[:12]}"
    for engine, offered in ((closed, ["decided_elsewhere"]), (opened, ["approved", "rejected", "decided_elsewhere"])):
        form = engine.forms[-1]
        choices = [str(one) for one in form.model_fields["decision"].annotation or ()]  # type: ignore[attr-defined]
        first, plan_text = str(form._description).split("## ", 1)
        assert choices == offered
        assert link in first
        assert all(action.summary in plan_text for action in asked.actions)
    assert closed.artifacts[f"{incident_id.replace('_', '-')}-console"].endswith(f"/incidents/{incident_id}")


@pytest.mark.parametrize("policy", [Policy(), FORM_COUNTS], ids=["decides nothing", "counts"])
def test_what_the_dispatcher_answers_fits_either_form(world: World, policy: Policy) -> None:
    world, engine = replace(world, policy=policy), PlainEngine()
    incident_id = report(world)
    gate = suspended_at(world, incident_id, engine)
    form, answer = engine.forms[-1], {"decision": "decided_elsewhere", "name": "dispatcher", "comment": "why"}
    assert is_valid(answer, create_v2_schema("form", model_base=form)), "Prefect's server takes it"
    assert is_valid(answer | {"decision": "approved"}, create_v2_schema("form", model_base=form)) is (policy is FORM_COUNTS)
    engine.answer("run-1", gate, answer)
    assert suspended_at(world, incident_id, engine) != gate, "nobody has decided yet"
    assert any("Resumed by dispatcher" in line for line in told(world, incident_id, "approval"))


def test_a_run_that_was_killed_at_the_gate_and_is_tried_again_asks_again(world: World, file_world: FileWorld) -> None:
    engine = PlainEngine()
    incident_id = report(world)
    gates = [suspended_at(world, incident_id, engine) for _ in range(3)]
    assert len(set(gates)) == 3, "Prefect stops at one gate only once"
    assert "rollback" not in file_world.applied


def form_of_two(world: World, **more: bool) -> World:
    rule = ApprovalRule(roles=(Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER), count=2, accept_prefect_form=True, **more)
    return replace(world, policy=Policy(approvals=Approvals(resolution=rule)))


@pytest.mark.parametrize("names", [("anybody", "somebody else"), ("Ann", "Ann\u200b"), ("Ann", "\u0410nn"), ("Ann", "ANN ")])
def test_two_names_in_the_form_are_one_login(world: World, clock: Clock, names: tuple[str, str]) -> None:
    world = form_of_two(world)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    run = take(world, incident_id, "run-1")
    assert run is not None
    digest = proposed(world, incident_id).digest
    for number, name in enumerate(names):
        record_form(run, digest, number, FormAnswer("approved", name, ""))
    with world.transaction() as conn:
        assert valid_approval(conn, world.policy, proposed(world, incident_id), now=world.now())[0] is None


@pytest.mark.parametrize(("name", "why"), [("Ann\u200b", "cannot be seen"), ("\u0410nn", "write it in one script"), ("-", "letter")])
def test_a_name_in_the_form_that_could_deceive_decides_nothing_and_the_timeline_says_why(world: World, name: str, why: str) -> None:
    world = replace(world, policy=FORM_COUNTS)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    run = take(world, incident_id, "run-1")
    assert run is not None
    assert not record_form(run, proposed(world, incident_id).digest, 1, FormAnswer("approved", name, ""))
    assert why in told(world, incident_id, "approval")[-1]


def asked_by(world: World, by: str) -> str:
    wish = Request(path=Path.ROLLBACK, target_version="v1.4.0", by=by, reason="v1.5.0 misses pumps")
    said = NewReport(MODEL, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "go further back", "", by)
    incident_id = open_or_join(world, said, wish)
    assert carry(world, incident_id, "run-1") == "pending"
    return incident_id


def is_approved(world: World, incident_id: str) -> tuple[bool, str]:
    with world.transaction() as conn:
        found, why = valid_approval(conn, world.policy, proposed(world, incident_id), now=world.now())
    return found is not None, why


@pytest.mark.parametrize("as_typed", ["Ann", " ann", "ANN"])
def test_where_two_must_approve_whoever_asked_for_the_path_is_neither_of_them(world: World, as_typed: str) -> None:
    world = form_of_two(world)
    incident_id = asked_by(world, as_typed)
    say(world, incident_id, "approved", by="Ann")
    say(world, incident_id, "approved", by="Bob")
    ok, why = is_approved(world, incident_id)
    assert not ok
    assert "the approval of Ann does not count" in why
    run = take(world, incident_id, "run-1")
    assert run is not None
    record_form(run, proposed(world, incident_id).digest, 1, FormAnswer("approved", "Somebody Else", ""))
    assert not is_approved(world, incident_id)[0], "the path was asked for by the form's login"
    say(world, incident_id, "approved", by="Cem")
    assert is_approved(world, incident_id)[0]


def test_where_one_is_enough_whoever_asked_may_approve_it_unless_policy_says_no(world: World) -> None:
    incident_id = asked_by(world, "the lead")
    approve(world, incident_id)
    assert is_approved(world, incident_id)[0]
    strict = ApprovalRule(roles=(Role.ML_TEAM_LEAD,), not_by_requester=True)
    world = replace(world, policy=Policy(approvals=Approvals(resolution=strict)))
    assert not is_approved(world, incident_id)[0]


def test_where_two_must_approve_an_order_its_giver_is_neither_of_them(world: World, file_world: FileWorld, clock: Clock) -> None:
    two = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2)
    world = replace(world, policy=Policy(approvals=Approvals(emergency=two)))
    incident_id = report(world)
    with world.transaction() as conn:
        by = emergency.Requester("Ann", "oncall_ml_engineer", "cli", "ann")
        wanted = emergency.Requested(Order.STOP_SERVING, by, "it harms")
        emergency.request(conn, world.policy, incidents.get(conn, incident_id, lock=True), wanted, now=world.now())
    for who in ("Ann", "Bob"):
        say(world, incident_id, "approved", PlanKind.EMERGENCY, by=who)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 1
    say(world, incident_id, "approved", PlanKind.EMERGENCY, by="Cem")
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 0
