"""Security and compliance incidents, from report to hand-over or closing, without Prefect."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mlrunbook.domain.actions import Isolate, Path, PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.communication.regulatory import Notification, Statement
from mlrunbook.domain.containment.evidence import MANIFEST
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Case, ClockName, IncidentType, Severity, Status, Subtype
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.containment import breach as breach_step
from mlrunbook.response.containment import evidence as evidence_step
from mlrunbook.response.execution.approvals import decide
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.review.closing import unexplained
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, outbox, plans, records, timeline
from mlrunbook.store import regulatory_clocks as clocks
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, say, told

AT_ONCE = (Subtype.UNAUTHORISED_ACCESS, Subtype.ADVERSARIAL_ATTACK, Subtype.DATA_LEAKAGE, Subtype.PRIVACY_BREACH)
BY_A_PERSON = (Subtype.REGULATORY_VIOLATION, Subtype.AUDIT_FAILURE)
ISOLATED = {"isolate:True": 1}
RELEASED = {"isolate:True": 1, "isolate:False": 1}


def breach(world: World, kind: Subtype | None, severity: Severity = Severity.HIGH, **more: object) -> str:
    type_ = kind.type if kind else IncidentType.SECURITY
    return report(world, severity, type_, by_alert=False, description="Something was seen", subtype=kind, **more)  # type: ignore[arg-type]


def release(world: World, incident_id: str, decision: str = "approved") -> None:
    """What security says to the plan that stands: to lift the isolation, or to begin it."""
    say(world, incident_id, decision, PlanKind.ISOLATION, by="Security", role="security_officer")


def ask_for_rollback(world: World) -> str:
    wish = Request(path=Path.ROLLBACK, target_version="v1.4.0", by="an engineer", reason="the new one feels wrong")
    about = (MODEL, Severity.MEDIUM, IncidentType.PERFORMANCE_DEGRADATION, "Rollback to v1.4.0 requested", "", "an engineer")
    return open_or_join(world, NewReport(*about), wish)


@pytest.fixture(autouse=True)
def healthy(file_world: FileWorld) -> None:
    """The model is sound: what is done is done for the breach."""
    file_world.set(bad_versions={})


class TestAtOnce:
    @pytest.mark.parametrize("kind", AT_ONCE)
    def test_the_server_is_isolated_by_the_named_rule_and_a_named_person_is_asked(
        self, kind: Subtype, world: World, file_world: FileWorld
    ) -> None:
        incident_id = breach(world, kind)
        assert carry(world, incident_id, "run-1") == "pending"
        assert (file_world.applied, file_world.state["isolated"], file_world.state["replicas"]) == (ISOLATED, True, 1)
        incident = incident_of(world, incident_id)
        assert (incident.type, incident.status) == (kind.type, Status.CONTAINED)
        with world.transaction() as conn:
            contained = plans.current(conn, incident_id, PlanKind.CONTAINMENT)
            assert contained is not None
            rests_on = [(a.door, a.approver) for a in plans.approvals_of(conn, incident_id, contained.digest)]
        assert rests_on == [("policy_rule", "containment.security.isolate")]

    @pytest.mark.parametrize("kind", BY_A_PERSON)
    def test_a_violation_and_a_failed_audit_are_isolated_when_a_person_says_so(
        self, kind: Subtype, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = breach(world, kind)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert file_world.applied == {}
        offered = plan(world, incident_id, PlanKind.ISOLATION)
        assert offered is not None
        assert offered.actions == (Isolate(MODEL, True),)
        release(world, incident_id)
        clock.advance(minutes=1)
        assert carry(world, incident_id, "run-1") == "pending"
        assert file_world.applied == ISOLATED

    def test_a_breach_of_an_unknown_kind_is_isolated_and_starts_every_clock(self, world: World, file_world: FileWorld) -> None:
        incident_id = breach(world, None, Severity.MEDIUM)
        carry(world, incident_id, "run-1")
        assert file_world.applied == ISOLATED
        with world.transaction() as conn:
            assert {c.name for c in clocks.of_incident(conn, incident_id)} == {"gdpr", "ai_act"}

    def test_a_compliance_question_isolates_nothing_by_itself(self, world: World, file_world: FileWorld) -> None:
        incident_id = report(world, type=IncidentType.COMPLIANCE, by_alert=False, description="Who has signed the model card?")
        carry(world, incident_id, "run-1")
        assert file_world.applied == {}

    def test_an_alert_of_probing_isolates_and_its_diagnosis_is_still_made(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        body = {"labels": {"alertname": "ModelProbed"}, "annotations": {"summary": "80 near-duplicates"}}
        probed = NormalisedAlert("f1", True, "ModelProbed", MODEL, None, "critical", None, "80 near-duplicates", clock.at, body)
        with world.transaction() as conn:
            (incident_id,) = take_in_alerts(conn, world.policy, AlertBatch("platform", [probed]), now=world.now())
        assert carry(world, incident_id, "run-1") == "pending"
        assert (incident_of(world, incident_id).type, file_world.applied) == (IncidentType.SECURITY, ISOLATED)
        assert "adversarial attack" in " ".join(told(world, incident_id, "breach"))
        assert recorded(world, incident_id, "diagnosis")

    def test_a_freeze_and_the_limit_of_changes_do_not_keep_a_breach_open(self, world: World, file_world: FileWorld) -> None:
        frozen = world.policy.model_copy(
            update={"guardrails": world.policy.guardrails.model_copy(update={"changes_per_model_and_hour": 0})}
        )
        held = World(**world.__dict__ | {"policy": frozen})
        incident_id = breach(held, Subtype.DATA_LEAKAGE)
        carry(held, incident_id, "run-1")
        assert file_world.applied == ISOLATED
        assert any("overridden for an isolation" in entry for entry in told(held, incident_id, "guardrail"))

    def test_a_second_report_that_names_a_graver_kind_isolates(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = breach(world, Subtype.AUDIT_FAILURE)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        clock.advance(minutes=5)
        assert breach(world, Subtype.PRIVACY_BREACH) == incident_id
        assert carry(world, incident_id, "run-2") == "pending"
        assert file_world.applied == ISOLATED


class TestPeople:
    def test_security_and_the_compliance_officer_are_paged_and_told_at_once_with_the_deadlines(
        self, world: World, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        deliver(world)
        for channel in ("security", "compliance"):
            assert any(m.page and "data leakage" in m.body for m in notifier.sent if m.channel == channel)
            [notice] = [m for m in notifier.sent if m.channel == channel and m.subject.startswith("[DATA LEAKAGE]")]
            assert "GDPR Art. 33(1): notify the data protection authority by 2026-04-01 00:30 UTC" in notice.body
            assert "not legal advice" in notice.body
            assert "Preserve logs" in notice.body

    def test_they_are_told_also_when_nothing_can_be_reached_and_hear_that_it_is_not_isolated_yet(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        file_world.down = True
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        with pytest.raises(Exception, match="nothing answers"):
            carry(world, incident_id, "run-1")
        deliver(world)
        assert incident_of(world, incident_id).type is IncidentType.SECURITY, "an unreachable platform makes it no outage"
        pages = [m.body for m in notifier.pages() if m.channel == "security"]
        assert any("data leakage" in body for body in pages)
        assert any("not done yet, it is tried again until it is" in body for body in pages)
        file_world.down = False
        assert carry(world, incident_id, "run-2") == "pending"
        assert file_world.applied == ISOLATED

    def test_an_isolation_that_is_refused_is_paged_to_security_and_the_runbook_goes_on(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        file_world.faults["isolate:True"] = ["refused"]
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        deliver(world)
        assert any("could not be done" in m.body for m in notifier.pages() if m.channel == "security")
        assert recorded(world, incident_id, "contained")

    def test_the_decision_is_not_the_engineers_and_asks_the_next_role_when_nobody_answers(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        proposed = plan(world, incident_id, PlanKind.ISOLATION)
        assert proposed is not None
        said = Decision("approved", "the lead", "ml_team_lead", "rest")
        with world.transaction() as conn, pytest.raises(Refused, match="is decided by compliance_officer or engineering_manager"):
            decide(conn, world.policy, incident_id, proposed.digest, said, now=world.now())
        deliver(world)
        asked = [m for m in notifier.pages() if "your decision is needed" in m.body]
        assert {m.channel for m in asked} == {"security"}
        clock.advance(minutes=61)
        deliver(world)
        assert any("Nobody decided" in m.body for m in notifier.pages() if m.channel == "compliance")


class TestEvidence:
    def test_it_is_preserved_before_anything_is_altered_and_its_manifest_holds(self, world: World) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            entries = timeline.read(conn, incident_id)
            listed = evidence.content(conn, incident_id, MANIFEST)
            kept = {item.name: item.sha256 for item in evidence.manifest(conn, incident_id)}
        kinds = [e.kind for e in entries]
        assert kinds.index("breach") < kinds.index("evidence") < kinds.index("action")
        assert listed is not None
        named = {f["name"]: f["sha256"] for f in json.loads(listed[0])["files"]}
        assert {"alerts.json", "changes.json", "predictions.json", "serving-state.json", "runtime/logs/model-server.log"} <= set(named)
        assert kept == named | {MANIFEST: hashlib.sha256(listed[0]).hexdigest()}
        assert next(e.data["manifest"] for e in entries if e.kind == "evidence") == kept[MANIFEST]
        assert evidence_step.check(world, incident_id) == []

    def test_what_was_changed_afterwards_is_found(self, world: World) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            conn.execute(text("UPDATE evidence SET content = 'other' WHERE name = 'metrics.json'"))
        assert evidence_step.check(world, incident_id) == ["metrics.json was changed"]

    def test_a_source_that_is_away_is_named_with_its_reason_and_the_rest_is_kept(self, world: World, file_world: FileWorld) -> None:
        file_world.down = True
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        with pytest.raises(Exception, match="nothing answers"):
            carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            listed = evidence.content(conn, incident_id, MANIFEST)
        assert listed is not None
        body = json.loads(listed[0])
        assert {m["name"]: m["why"] for m in body["missing"]}["runtime/logs/model-server.log"] == "nothing answers"
        assert "alerts.json" in {f["name"] for f in body["files"]}


def test_a_source_that_hangs_is_named_and_holds_up_neither_the_rest_nor_the_isolation(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    answer, lease = threading.Event(), runs.take(world, breach(world, Subtype.DATA_LEAKAGE), "run-1")
    assert lease is not None

    class Hung(FileWorld):
        def metrics(self, *args: Any, **kwargs: Any) -> Any:
            answer.wait()
            return super().metrics(*args, **kwargs)

    hung = Run(replace(world, platform=Hung(file_world.path, clock)), lease.lease)
    try:
        kept = evidence_step.preserve(hung, within_s=2.0)
    finally:
        answer.set()
    with world.transaction() as conn:
        listed = evidence.content(conn, hung.incident_id, MANIFEST)
    assert listed is not None
    body = json.loads(listed[0])
    assert body["missing"] == [{"name": "metrics.json", "why": "no answer within 2 s"}]
    assert {"alerts.json", "predictions.json", "runtime/logs/model-server.log"} < set(kept)
    assert sorted(f["name"] for f in body["files"]) == sorted(set(kept) - {MANIFEST})


class TestDecision:
    def test_lifted_by_the_named_person_then_fixed_by_hand_it_is_measured_and_closes(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = breach(world, Subtype.UNAUTHORISED_ACCESS)
        carry(world, incident_id, "run-1")
        clock.advance(minutes=10)
        release(world, incident_id)
        assert carry(world, incident_id, "run-1") == "waiting for a human", "nothing about the model changes by itself"
        assert (file_world.applied, file_world.state["isolated"]) == (RELEASED, False)
        resolve(world, incident_id, "revoked the stolen token")
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        assert file_world.applied == RELEASED
        with world.transaction() as conn:
            [isolated] = [r for r in journal.of_incident(conn, incident_id) if r.target == {"isolated": True}]
            assert (unexplained(conn, incident_id), isolated.undone_by is not None) == ([], True)
        review = recorded(world, incident_id, "review")["markdown"]
        assert "**Regulatory Deadline:** EU AI Act Art. 73(2): notify the market surveillance authority" in review

    def test_kept_isolated_a_fix_by_hand_asks_anew_and_recovery_never_lifts_it(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        release(world, incident_id, "rejected")
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert file_world.state["isolated"]
        first = plan(world, incident_id, PlanKind.ISOLATION)
        clock.advance(minutes=20)
        resolve(world, incident_id)
        assert carry(world, incident_id, "run-2") == "pending", "asked again: something has changed"
        second = plan(world, incident_id, PlanKind.ISOLATION)
        assert first is not None
        assert second is not None
        assert first.digest != second.digest
        assert any("replaced the sensor gateway" in reason for reason in second.reasons)
        assert file_world.applied == ISOLATED
        release(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        assert file_world.applied == RELEASED

    @pytest.mark.parametrize(
        ("fix", "row", "form"),
        [
            ("human_resolution", {"by": "the lead", "what": "new tokens", "root_cause": None}, datetime.isoformat),
            ("applied", {"path": "rollback"}, str),
        ],
    )
    def test_a_release_that_the_version_before_an_upgrade_has_asked_about_is_not_asked_about_anew(
        self, world: World, clock: Clock, fix: str, row: dict[str, Any], form: Callable[[datetime], str]
    ) -> None:
        incident_id, asked = breach(world, Subtype.DATA_LEAKAGE), "5f" * 32
        carry(world, incident_id, "run-1")
        clock.advance(minutes=20, seconds=0.25)
        with world.transaction() as conn:
            [isolated] = journal.isolations(conn, incident_id)
            records.put(conn, incident_id, fix, row | {"at": form(clock())}, now=clock())
            records.put(conn, incident_id, f"release:{isolated.id}:{form(clock())}", {"digest": asked}, now=clock())
        run = runs.take(world, incident_id, "run-1")
        assert run is not None
        assert breach_step.plan_release(run) == asked

    def test_kept_isolated_after_the_fix_too_a_human_is_asked_how_to_go_on(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        resolve(world, incident_id)
        carry(world, incident_id, "run-1")
        release(world, incident_id, "rejected")
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-1") == "still isolated"
        assert (file_world.applied, incident_of(world, incident_id).status.is_open) == (ISOLATED, True)

    def test_a_bad_release_in_a_breach_is_rolled_back_by_approval_while_isolated_and_lifted_afterwards(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        file_world.set(bad_versions={"v2.0.0": "degraded"})
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        clock.advance(seconds=20)
        carry(world, incident_id, "run-1")
        assert file_world.applied == ISOLATED, "no threshold, no route, no candidate"
        release(world, incident_id, "rejected")
        assert carry(world, incident_id, "run-1") == "pending"
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "pending", "rolled back, it asks again whether to serve"
        assert file_world.applied == ISOLATED | {"rollback": 1}
        release(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert file_world.applied == RELEASED | {"rollback": 1}

    def test_while_isolated_no_rule_of_another_incident_changes_what_serves_and_nothing_ends_the_process(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        carry(world, breach(world, Subtype.DATA_LEAKAGE), "run-1")
        file_world.set(bad_versions={"v2.0.0": "dangerous"})
        other = report(world)
        clock.advance(seconds=20)
        carry(world, other, "run-2")
        assert (file_world.state["route"], file_world.state["replicas"]) == (None, 1)
        assert any("nothing but a person's decision changes what it serves" in entry for entry in told(world, other, "action"))
        assert file_world.state["config"]["auto_work_orders"] is False, "work orders are halted all the same"

    def test_a_path_asked_for_while_isolated_joins_the_breach_and_waits_for_the_officers(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        assert ask_for_rollback(world) == incident_id
        [asked] = [text for text in told(world, incident_id, "plan") if "asks for path" in text]
        assert "asks for path rollback: the new one feels wrong. The model server is isolated: Security Officer or" in asked
        assert carry(world, incident_id, "run-1") == "pending"
        assert plan(world, incident_id) is None
        release(world, incident_id, "rejected")
        assert carry(world, incident_id, "run-1") == "pending"
        wanted = plan(world, incident_id)
        assert wanted is not None
        assert [a.summary for a in wanted.actions] == [f"roll {MODEL} back to v1.4.0"]
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "pending", "whether to serve it is asked about anew"
        assert file_world.applied == ISOLATED | {"rollback": 1}

    def test_a_path_asked_for_after_a_hand_over_says_who_may_lift_the_isolation(self, world: World, file_world: FileWorld) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            for status in (Status.RESOLVED, Status.CLOSED):
                incidents.set_status(conn, incident_id, status, why="handed over", actor="Security", now=world.now())
        path = ask_for_rollback(world)
        assert path != incident_id
        assert incident_of(world, path).type is IncidentType.PERFORMANCE_DEGRADATION
        [asked] = [text for text in told(world, path, "plan") if "asks for path" in text]
        assert f"isolated since {incident_id}, which is closed" in asked
        assert "Report an incident of type security" in asked

    def test_a_path_asked_for_when_nothing_is_isolated_opens_an_incident_of_its_own(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        release(world, incident_id)
        clock.advance(minutes=1)
        carry(world, incident_id, "run-1")
        assert ask_for_rollback(world) != incident_id

    def test_a_breach_that_outcomes_reopen_is_told_isolated_and_decided_anew(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        release(world, incident_id)
        carry(world, incident_id, "run-1")
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        file_world.set(bad_versions={"v2.0.0": "degraded"})
        clock.advance(days=1, minutes=5)
        deliver(world)
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
        assert carry(world, incident_id, "run-3") == "pending"
        deliver(world)
        assert file_world.applied == {"isolate:True": 2, "isolate:False": 1}
        assert sum(m.subject.startswith("[DATA LEAKAGE]") and m.channel == "security" for m in notifier.sent) == 2


class TestClocks:
    def gdpr(self, world: World, incident_id: str) -> str:
        with world.transaction() as conn:
            found = clocks.get(conn, incident_id, ClockName.GDPR)
        assert found is not None
        return found.sentence(world.now())

    def reminders(self, notifier: LedgerNotifier, law: str) -> list[str]:
        return [m.subject.partition("]")[0][1:] for m in notifier.sent if law in m.subject]

    def test_the_officer_is_reminded_until_the_deadline_and_after_it_also_when_the_incident_is_closed(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.PRIVACY_BREACH)
        carry(world, incident_id, "run-1")
        release(world, incident_id)
        carry(world, incident_id, "run-1")
        resolve(world, incident_id)
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"
        clock.advance(minutes=-5)
        for hours in (23, 1, 24, 12, 8, 3, 1, 23, 1, 4):
            clock.advance(hours=hours)
            deliver(world)
        assert self.reminders(notifier, "GDPR") == ["DEADLINE"] * 6 + ["OVERDUE"], "24, 48, 60, 68, 71, 72 and 96 hours after"
        assert self.gdpr(world, incident_id).endswith("overdue by 1 d 4 h (not legal advice)")

    def test_a_recorded_notification_ends_the_reminders_and_says_who_when_and_under_which_reference(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.PRIVACY_BREACH)
        carry(world, incident_id, "run-1")
        clock.advance(hours=30)
        said = Notification("the officer", reference="case 4711")
        for _ in range(2):
            with world.transaction() as conn:
                regulatory_clocks.end(conn, incident_id, ClockName.GDPR, said, now=world.now())
        for _ in range(9):
            clock.advance(hours=20)
            deliver(world)
        assert self.reminders(notifier, "GDPR") == []
        assert len(self.reminders(notifier, "AI Act")) == 1
        assert "was notified at 2026-03-30 06:30 UTC by the officer, reference case 4711" in self.gdpr(world, incident_id)
        assert sum("case 4711" in entry for entry in told(world, incident_id, "clock")) == 1

    def test_a_persons_word_on_the_case_moves_the_deadline_and_no_reminder_of_the_old_one_comes(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = breach(world, Subtype.DATA_LEAKAGE)
        carry(world, incident_id, "run-1")
        clock.advance(hours=1)
        with world.transaction() as conn:
            said = Statement(Case.DEATH, "the officer")
            moved = regulatory_clocks.state_case(conn, world.policy, incident_id, ClockName.AI_ACT, said, now=world.now())
        assert moved.deadline == incident_of(world, incident_id).detected_at + timedelta(days=10)
        for days in (3, 4, 2, 1, 1):
            clock.advance(days=days)
            deliver(world)
        laws = {m.subject.partition("] ")[2].partition(":")[0] for m in notifier.sent if "AI Act" in m.subject}
        assert laws == {"EU AI Act Art. 73(4)"}

    def test_a_channel_that_is_away_holds_a_reminder_up_and_loses_none(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = breach(world, Subtype.PRIVACY_BREACH)
        carry(world, incident_id, "run-1")
        deliver(world)
        notifier.fail.add("compliance")
        clock.advance(hours=25)
        deliver(world)
        assert self.reminders(notifier, "GDPR") == []
        notifier.fail.clear()
        clock.advance(hours=1)
        deliver(world)
        assert self.reminders(notifier, "GDPR") == ["DEADLINE"]
        with world.transaction() as conn:
            rows = outbox.of_incident(conn, incident_id, regulatory_clocks.TIMER)
        assert [r["payload"]["clock"] for r in rows if r["delivered_at"]] == ["gdpr"]

    def test_updates_tell_the_time_left(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        carry(world, breach(world, Subtype.DATA_LEAKAGE), "run-1")
        clock.advance(minutes=31)
        deliver(world)
        [update] = [m for m in notifier.sent if m.subject.startswith("[UPDATE]") and m.channel == "incidents"]
        assert "2 d 23 h left" in update.body


def test_what_an_audit_found_outdated_is_a_ticket_and_nobody_is_asked_about_isolation(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    """Runbook, "Severity Levels": documentation outdated is low."""
    incident_id = breach(world, Subtype.AUDIT_FAILURE, Severity.LOW)
    carry(world, incident_id, "run-1")
    deliver(world)
    assert notifier.pages() == []
    assert "compliance" in {m.channel for m in notifier.sent}
    assert plan(world, incident_id, PlanKind.ISOLATION) is None
    with world.transaction() as conn:
        assert clocks.of_incident(conn, incident_id) == []
        said = severity_change.Said(Severity.HIGH, "the lead", "the authority asks")
        severity_change.say(conn, world.policy, incident_id, said, now=world.now())
    carry(world, incident_id, "run-2")
    deliver(world)
    assert plan(world, incident_id, PlanKind.ISOLATION) is not None, "from medium on it is a breach like any other"
    assert {m.channel for m in notifier.pages()} >= {"security", "compliance"}
