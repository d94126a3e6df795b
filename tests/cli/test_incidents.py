"""Incidents from the command line: report, look, acknowledge, decide, resolve, close."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, func, insert, update

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.cli import render
from mlrunbook.domain.actions import Plan, PlanKind, Scale
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.store import plans, tables
from tests.cli.conftest import COMMAND, Cli, environment, one_line


def report(cli: Cli, model: str, **options: str) -> str:
    given = {"severity": "high", "type": "performance_degradation", "description": "F1 fell"} | options
    args = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
    done = cli("report", "--model", model, *args)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def shown(cli: Cli, incident: str) -> dict[str, object]:
    return dict(json.loads(cli("incidents", "show", incident, "--json").stdout))


def test_an_incident_report_opens_an_incident(cli: Cli, model: str) -> None:
    said = report(cli, model, impact="wasted maintenance", reported_by="monitoring_system")
    made = shown(cli, said.split()[0])
    assert "opened" in said
    assert (made["model"], made["severity"], made["status"]) == (model, "high", "detected")
    assert (made["impact"], made["reportedBy"]) == ("wasted maintenance", "monitoring_system")


def test_the_same_report_again_joins_the_incident_that_is_open(cli: Cli, model: str) -> None:
    first = report(cli, model).split()[0]
    again = report(cli, model)
    assert again.startswith(f"{first} joined")


def test_a_severity_the_runbook_does_not_know_is_wrong_usage_that_names_the_four(cli: Cli, model: str) -> None:
    done = cli("report", "--model", model, "--severity", "hgih", "--type", "security", "--description", "x")
    assert done.exit_code == 2
    said = one_line(done.stderr)
    assert all(word in said for word in ("--severity", "hgih", "low", "medium", "high", "critical", "mlrunbook report --help"))


def test_a_report_of_a_model_that_cannot_be_one_says_so(cli: Cli) -> None:
    done = cli("report", "--model", "a b/c", "--severity", "low", "--type", "security", "--description", "x")
    assert done.exit_code == 1
    one_line(done.stderr)


def test_the_list_holds_severity_status_and_model_in_80_columns_without_a_terminal(cli: Cli, incident: str, model: str) -> None:
    said = cli("incidents", "list", "--model", model).stdout
    assert all(word in said for word in (incident, "LOW", "detected", model, "ago"))
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "\x1b" not in said


def test_the_list_filters_by_status_and_by_being_open(cli: Cli, incident: str, model: str) -> None:
    cli("incidents", "close", incident, "--reason", "documentation corrected")
    assert cli("incidents", "list", "--model", model, "--open").stdout == "no incidents\n"
    found = json.loads(cli("incidents", "list", "--model", model, "--status", "closed", "--json").stdout)
    assert [one["id"] for one in found] == [incident]


def test_show_tells_what_was_reported_and_what_to_decide(cli: Cli, incident: str, plan: Plan) -> None:
    said = cli("incidents", "show", incident).stdout
    assert "F1 score dropped from 0.82 to 0.65" in said
    assert plan.actions[0].summary in said
    assert f"mlrunbook incidents approve {incident} --plan {plan.digest[:12]}" in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_an_unknown_incident_says_how_to_list_them(cli: Cli) -> None:
    for command in (("show",), ("timeline",), ("timeline", "--follow"), ("ack",), ("approve",), ("close",), ("verify",), ("review",)):
        done = cli("incidents", *command, "incident_999999")
        assert done.exit_code == 1
        assert "mlrunbook incidents list" in one_line(done.stderr)


@pytest.mark.parametrize("hostile", ["[bold]x[/bold] [/]", "\x1b[2J\x1b]0;owned\x07x", "a\u202eb\u200b", ":skull: [link=http://x]y[/link]"])
def test_hostile_text_is_shown_as_the_text_it_is(cli: Cli, model: str, hostile: str) -> None:
    incident = report(cli, model, description=hostile, impact=hostile).split()[0]
    for command in (("list", "--model", model), ("show", incident), ("timeline", incident)):
        done = cli("incidents", *command)
        assert done.exit_code == 0, done.stderr
        assert not set(done.stdout) & set("\x1b\x07\u202e\u200b")
    if hostile.startswith("["):
        assert hostile in cli("incidents", "show", incident).stdout


def test_the_timeline_gives_the_time_in_utc_and_the_event(cli: Cli, incident: str, engine: Engine) -> None:
    cli("incidents", "ack", incident)
    lines = cli("incidents", "timeline", incident).stdout.splitlines()
    entries = json.loads(cli("incidents", "timeline", incident, "--json").stdout)
    assert lines[0].endswith("UTC")
    assert lines[1].startswith(entries[0]["at"][11:19])
    assert "Incident detected" in lines[1]
    assert any("Acknowledged by the lead" in line for line in lines)


def test_the_timeline_followed_shows_what_happens_and_ends_with_the_incident(cli: Cli, incident: str) -> None:
    command = [*COMMAND, "incidents", "timeline", incident, "--follow", "--every", "0.1", "--json"]
    with subprocess.Popen(command, env=environment(cli), stdout=subprocess.PIPE, text=True) as live:
        assert live.stdout is not None
        assert json.loads(live.stdout.readline())["kind"] == "detected"
        cli("incidents", "ack", incident)
        entry = json.loads(live.stdout.readline())
        while entry["kind"] != "acknowledged":
            entry = json.loads(live.stdout.readline())
        cli("incidents", "close", incident, "--reason", "documentation corrected")
        rest = [json.loads(line) for line in live.stdout]
    assert live.returncode == 0
    assert any("-> closed" in entry["text"] for entry in rest)
    assert rest[-1]["kind"] == "review"


def test_an_untouched_timeline_is_verified(cli: Cli, incident: str) -> None:
    done = cli("incidents", "verify", incident)
    assert (done.exit_code, done.stdout[:7]) == (0, "intact:")


def test_an_edited_timeline_is_found_out(cli: Cli, incident: str, engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.execute(update(tables.timeline).where(tables.timeline.c.incident_id == incident).values(text="nothing happened"))
    done = cli("incidents", "verify", incident)
    assert done.exit_code == 1
    assert f"{incident} is not what was written of it. Entry 1 of the timeline was changed" in one_line(done.stderr)
    assert "Compare with a backup" in one_line(done.stderr)


def test_an_edited_approval_is_named_with_what_it_was(cli: Cli, incident: str, plan: Plan, engine: Engine) -> None:
    assert cli("incidents", "approve", incident, "--plan", plan.digest, "--yes").exit_code == 0
    with transaction(engine) as conn:
        conn.execute(update(tables.approvals).where(tables.approvals.c.incident_id == incident).values(approver="the VP"))
    done = cli("incidents", "verify", incident)
    assert done.exit_code == 1
    assert "and is 'the VP'" in one_line(done.stderr)


def test_all_incidents_are_verified_at_once_and_a_deleted_one_is_named(cli: Cli, incident: str, engine: Engine) -> None:
    with transaction(engine) as conn:
        conn.execute(insert(tables.chain_heads).values(incident_id="incident_gone", entries=7, changed_at=func.now()))
    done = cli("incidents", "verify", "--all")
    with transaction(engine) as conn:
        conn.execute(delete(tables.chain_heads).where(tables.chain_heads.c.incident_id == "incident_gone"))
    assert done.exit_code == 1
    assert "incident_gone was deleted from the database: its chain had 7 timeline entries" in one_line(done.stderr)
    assert "name one incident, or give --all" in one_line(cli("incidents", "verify").stderr)


def test_approving_shows_actions_reasons_numbers_and_sends_the_digest_shown(cli: Cli, incident: str, plan: Plan, engine: Engine) -> None:
    done = cli("incidents", "approve", incident, "--yes", "--reason", "seen")
    assert done.exit_code == 0, done.stderr
    for word in (plan.actions[0].summary, plan.reasons[0], plan.expected, "0.5649", plan.digest):
        assert word in " ".join(done.stdout.split())
    with transaction(engine) as conn:
        (row,) = plans.approvals_of(conn, incident)
    assert (row.plan_digest, row.decision, row.door) == (plan.digest, "approved", "cli")
    assert (row.approver, row.role, row.verified, row.reason) == ("the lead", "ml_team_lead", True, "seen")


def test_a_plan_may_be_rejected(cli: Cli, incident: str, plan: Plan, engine: Engine) -> None:
    assert cli("incidents", "reject", incident, "--plan", plan.digest[:12], "--yes").exit_code == 0
    with transaction(engine) as conn:
        assert [row.decision for row in plans.approvals_of(conn, incident, plan.digest)] == ["rejected"]


def test_nothing_is_approved_without_a_terminal_to_ask_on(cli: Cli, incident: str, plan: Plan, engine: Engine) -> None:
    done = cli("incidents", "approve", incident)
    assert done.exit_code == 1
    assert "--yes" in one_line(done.stderr)
    with transaction(engine) as conn:
        assert plans.approvals_of(conn, incident) == []


@pytest.mark.parametrize(("answer", "decided"), [("y", ["approved"]), ("n", [])])
def test_on_a_terminal_it_asks_and_does_what_was_answered(
    cli: Cli, incident: str, plan: Plan, engine: Engine, answer: str, decided: list[str]
) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "incidents", "approve", incident]
    with subprocess.Popen(command, env=environment(cli), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        os.write(ours, f"{answer}\n".encode())
        out, err = asking.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert plan.digest in out
    assert asking.returncode == (0 if decided else 1), err
    with transaction(engine) as conn:
        assert [row.decision for row in plans.approvals_of(conn, incident)] == decided


def test_a_plan_that_is_not_there_is_not_approved(cli: Cli, incident: str, plan: Plan) -> None:
    done = cli("incidents", "approve", incident, "--plan", "0123456789ab", "--yes")
    assert done.exit_code == 1
    assert f"incidents show {incident}" in one_line(done.stderr)


@pytest.mark.parametrize("prefix", ["", "0", "1234567", "abc", "nothexat", "%%%%%%%%", "0" * 65])
def test_a_plan_is_named_by_eight_hexadecimal_characters_or_more(cli: Cli, incident: str, plan: Plan, engine: Engine, prefix: str) -> None:
    for verb in ("approve", "reject"):
        done = cli("incidents", verb, incident, "--plan", prefix, "--yes")
        assert done.exit_code == 1
        assert "8 characters or more" in one_line(done.stderr)
    assert cli("incidents", "approve", incident, "--plan", plan.digest[:8].upper(), "--yes").exit_code == 0


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_only_what_waits_is_offered_and_of_two_one_is_chosen(cli: Cli, incident: str, plan: Plan, engine: Engine, verb: str) -> None:
    def stop(kind: PlanKind, rule: str | None = None) -> Plan:
        made = Plan(incident, kind, plan.model, (Scale(plan.model, 0),), ("dangerous",), rule=rule)
        with transaction(engine) as conn:
            plans.propose(conn, made, now=datetime.now(UTC))
            if rule:
                approve_by_rule(conn, made, now=datetime.now(UTC))
        return made

    stop(PlanKind.CONTAINMENT, rule="containment.critical.stop_serving")
    offered = stop(PlanKind.MITIGATION)
    done = cli("incidents", verb, incident, "--yes")
    assert done.exit_code == 1
    said = one_line(done.stderr)
    assert "2 plans" in said
    assert "--plan" in said
    assert plan.digest[:12] in said
    assert offered.digest[:12] in said
    assert cli("incidents", "reject", incident, "--plan", offered.digest[:8], "--yes").exit_code == 0
    assert cli("incidents", verb, incident, "--yes").exit_code == 0, "one is left"
    done = cli("incidents", verb, incident, "--yes")
    assert done.exit_code == 1
    said = one_line(done.stderr)
    assert "no plan" in said
    assert "rejected the plan" in said, "and each with the reason"
    assert "Decide:" not in cli("incidents", "show", incident).stdout


def test_without_a_plan_there_is_nothing_to_decide(cli: Cli, incident: str) -> None:
    done = cli("incidents", "approve", incident, "--yes")
    assert done.exit_code == 1
    assert "no plan" in one_line(done.stderr)


def test_a_token_without_the_scope_says_how_to_create_one(
    cli: Cli, incident: str, plan: Plan, token: Callable[..., str], tmp_path: Path
) -> None:
    mine = tmp_path / "my.token"
    mine.write_text(token("the operator", Scope.READ, Scope.OPERATE) + "\n")
    done = cli("incidents", "approve", incident, "--yes", "--token-file", str(mine))
    assert done.exit_code == 1
    said = one_line(done.stderr)
    assert "the operator lacks the scope approve" in said
    assert 'mlrunbook token create "Your Name" --scope approve --scope read --role ml_team_lead' in said


def test_a_role_that_may_not_decide_is_told_who_may(cli: Cli, incident: str, plan: Plan, token: Callable[..., str]) -> None:
    done = cli("incidents", "approve", incident, "--yes", MLRUNBOOK_GATEWAY_TOKEN=token("an intern", role="oncall_ml_engineer"))
    assert done.exit_code == 1
    assert "ml_team_lead" in one_line(done.stderr)


def test_a_human_may_say_that_it_is_fixed(cli: Cli, incident: str) -> None:
    assert cli("incidents", "resolve", incident, "--what", "restored the sensor feed", "--root-cause", "a cut cable").exit_code == 0
    said = shown(cli, incident)["humanResolution"]
    assert isinstance(said, dict)
    assert (said["what"], said["rootCause"], said["by"]) == ("restored the sensor feed", "a cut cable", "the lead")


def test_closing_what_is_not_resolved_needs_a_reason(cli: Cli, incident: str) -> None:
    done = cli("incidents", "close", incident)
    assert done.exit_code == 1
    assert "reason" in one_line(done.stderr)
    assert cli("incidents", "close", incident, "--reason", "documentation corrected").stdout == f"{incident} is closed\n"


def test_a_review_that_is_not_drafted_says_when_it_will_be(cli: Cli, incident: str) -> None:
    done = cli("incidents", "review", incident)
    assert done.exit_code == 1
    assert "draft" in one_line(done.stderr)


def test_a_decision_is_shown_with_who_took_it_by_which_door_and_why(cli: Cli, incident: str, plan: Plan) -> None:
    cli("incidents", "approve", incident, "--yes", "--reason", "seen")
    said = " ".join(cli("incidents", "show", incident).stdout.split())
    assert f"{plan.digest[:12]} approved by the lead (ml_team_lead, by cli): seen" in said
    assert "incidents approve" not in said


def test_what_is_unknown_is_said_with_its_reason_and_long_lists_end() -> None:
    findings = [{"state": "unknown", "sentence": f"source {n} does not answer"} for n in (1, 2, 2, 3, 4, 5)]
    said = list(render._investigation({"id": "incident_1", "diagnosis": None, "findings": findings}))
    assert said[1:4] == [f"unknown: source {n} does not answer" for n in (1, 2, 3)]
    assert said[4:] == ["and 2 more unknown; all of them: mlrunbook incidents show incident_1 --json"]


def test_a_wrong_severity_is_explained_in_plain_words(cli: Cli) -> None:
    done = cli("report", "--model", "m", "--severity", "x", "--type", "infrastructure", "--description", "d")
    assert done.exit_code == 2
    assert "Invalid value for '--severity': 'x' is not one of" in one_line(done.stderr)


REPORT = ("--severity", "high", "--type", "infrastructure", "--description", "it is slow")


def test_a_report_on_a_model_that_nobody_knows_names_what_was_probably_meant(cli: Cli) -> None:
    done = cli("report", "--model", "predictive_maintenence", *REPORT)
    assert done.exit_code == 1
    said = one_line(done.stderr)
    assert "did you mean predictive_maintenance?" in said
    assert "--unknown-model" in said


def test_who_insists_sees_why_nothing_happens_at_once_and_later(cli: Cli) -> None:
    done = cli("report", "--model", "predictive_maintenence", *REPORT, "--unknown-model")
    assert done.exit_code == 0, done.stderr
    assert "did you mean predictive_maintenance?" in done.stdout
    said = " ".join(cli("incidents", "show", done.stdout.split()[0]).stdout.split())
    assert "Unknown model: no model 'predictive_maintenence' is registered" in said


def test_a_false_alarm_needs_a_reason(cli: Cli, incident: str) -> None:
    assert "reason" in one_line(cli("incidents", "close", incident, "--false-alarm").stderr)
    done = cli("incidents", "close", incident, "--false-alarm", "--reason", "the planner had the wrong week")
    assert done.stdout == f"{incident} is false alarm\n"


def test_long_lists_go_on_where_they_say(cli: Cli, model: str) -> None:
    kinds = ("performance_degradation", "security", "infrastructure")
    ids = [report(cli, model, type=kind).split()[0] for kind in kinds]
    shown = cli("incidents", "list", "--model", model, "--limit", "2", "--json")
    assert [one["id"] for one in json.loads(shown.stdout)] == ids[:0:-1]
    before = shown.stderr.split("--before ")[1].split()[0]
    rest = cli("incidents", "list", "--model", model, "--before", before, "--json")
    assert [one["id"] for one in json.loads(rest.stdout)] == ids[:1]

    whole, seen, goes_on = json.loads(cli("incidents", "timeline", ids[0], "--json").stdout), [], []
    while True:
        page = cli("incidents", "timeline", ids[0], "--json", "--limit", "1", *goes_on)
        seen = json.loads(page.stdout) + seen
        if "--before" not in page.stderr:
            break
        goes_on = ["--before", page.stderr.split("--before ")[1].split()[0]]
    assert seen == whole


@pytest.mark.parametrize("value", ["x", "0", "-3", "1.5", str(2**70), ""])
@pytest.mark.parametrize(
    "command", [("quarantine", "list"), ("incidents", "list"), ("incidents", "timeline", "incident_1"), ("incidents", "silenced")]
)
def test_a_page_that_cannot_be_is_refused_in_plain_words(cli: Cli, command: tuple[str, ...], value: str) -> None:
    done = cli(*command, "--before", value)
    assert done.exit_code == 2
    assert "--before" in done.stderr
    assert "Input should" not in done.stderr
