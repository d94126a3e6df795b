"""docs/runbooks/ml-model-incident.md says what the code does: steps, checklist, numbers, templates, commands."""

from __future__ import annotations

import ast
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.messages import IncidentSnapshot, ResolutionFacts
from mlrunbook.domain.detection.alert_rules import RULES
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.investigation.findings import CHECKLIST
from mlrunbook.domain.policy.changes import Rule
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review import review
from mlrunbook.domain.review.review import ReviewFacts
from mlrunbook.domain.roles import Role
from mlrunbook.local.features.definitions import VIEWS
from tests.docs.pages import ROOT, RUNBOOK, Page

STEPS = [
    "Step 1: Incident Detection and Triage",
    "Step 2: Immediate Containment",
    "Step 3: Investigation",
    "Step 4: Resolution",
    "Step 5: Communication",
    "Step 6: Post-Incident Review",
]
PATHS = ["Path A: Model Rollback", "Path B: Feature Store Issue", "Path C: Data Drift", "Path D: Threshold Adjustment"]
# What the runbook's appendix did by hand, and the start of what does it now.
QUICK_REFERENCE = {
    "curl -X GET /api/v1/ml/models/predictive_maintenance/status": "curl ",
    "curl -X GET /api/v1/model-performance/metrics/predictive_maintenance": "curl ",
    "curl -X GET /api/v1/model-performance/alerts": "curl ",
    "POST /api/v1/ml/models/predictive_maintenance/rollback": "prefect deployment run rollback/rollback ",
    "POST /api/v1/model-governance/{modelId}/incidents": "mlrunbook report ",
    "kubectl logs -l app=model-server --tail=100": "tail ",
    "kubectl scale deployment/model-server --replicas=0": "mlrunbook incidents contain ",
    "feast feature-views list": "mlrunbook incidents show ",
}


def flows() -> dict[str, tuple[str, str]]:
    """Flow name -> (file, first line of the module's docstring)."""
    found = {}
    for path in sorted((ROOT / "flows").glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            for decorator in getattr(node, "decorator_list", []):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "flow":
                    name = next(k.value.value for k in decorator.keywords if k.arg == "name")  # type: ignore[attr-defined]
                    found[str(name)] = (path.name, (ast.get_docstring(tree) or "").splitlines()[0])
    return found


def test_feast_takes_the_commands_by_hand() -> None:
    from feast.cli.cli import cli

    typed = re.sub(r"\$\(date[^)]*\)", "2025-03-01T12:00:00", RUNBOOK.text)
    commands = [line.split("#")[0].split() for line in re.findall(r"^feast (.+)$", typed, re.MULTILINE)]
    assert {words[0] for words in commands} == {"feature-views", "materialize-incremental", "get-online-features"}
    for words in commands:
        group, context = cli, cli.make_context("feast", [], resilient_parsing=True)
        while words:
            name, command, words = group.resolve_command(context, words)
            assert command is not None
            if not hasattr(command, "resolve_command"):
                asked = command.make_context(name, words, parent=context).params
                for feature in asked.get("features", ()):
                    view, _, column = feature.partition(":")
                    assert column in VIEWS[view]
                break
            group = command


def test_the_steps_are_those_of_the_runbook_in_order() -> None:
    assert [title for level, title in RUNBOOK.headings if level == 3 and title.startswith("Step ")] == STEPS
    assert [title for level, title in RUNBOOK.headings if level == 4 and title.startswith("Path ")] == PATHS


def test_each_flow_file_names_its_step_as_the_runbook_does() -> None:
    named = {}
    for file, docstring in flows().values():
        if found := re.match(r"(Step \d)(?:, (Path [A-D]))?: ([^.,]+)", docstring):
            named[file] = f"{found[2] or found[1]}: {found[3]}"
    assert set(named.values()) == {*STEPS, *PATHS}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_names_its_flow_and_its_people(step: str) -> None:
    section = RUNBOOK.section(step)
    ours = {name for name, (_, docstring) in flows().items() if docstring.startswith(f"{step.partition(':')[0]}:")}
    for name in ours:
        assert f"flow `{name}` in `flows/{flows()[name][0]}`" in section
    assert ours
    assert "**Who:**" in section
    assert "**You:**" in section


def test_every_flow_that_is_named_exists() -> None:
    named = dict(re.findall(r"flow `([\w-]+)` in `flows/(\w+\.py)`", RUNBOOK.text))
    assert {name: flows()[name][0] for name in named} == named


def test_the_checklist_is_the_one_that_is_answered() -> None:
    assert [(group, title) for group, title, _ in RUNBOOK.table("Step 3: Investigation")] == [(i.group, i.title) for i in CHECKLIST]
    assert len(CHECKLIST) == 19


def test_response_times_are_the_policys() -> None:
    times = {row[0].strip("*").lower(): row[2] for row in RUNBOOK.table("Severity Levels")}
    assert times == {str(s): f"{getattr(Policy().response_min, s)} minutes" for s in Severity}


def test_severity_limits_are_the_policys() -> None:
    measured = {row[0].strip("*").lower(): row[3] for row in RUNBOOK.table("Severity Levels")}
    limits = Policy().severity
    assert f"{limits.all_flagged:.0%}".replace("%", " %") in measured["critical"]
    assert f"below {limits.missed_recall:.0%}".replace("%", " %") in measured["critical"]
    assert f"more than {limits.drops.metrics[0].high:.0%}".replace("%", " %") in measured["high"]
    assert f"F1 fell by {100 * limits.drops.metrics[0].medium:.0f}-{100 * limits.drops.metrics[0].high:.0f} %" in measured["medium"]
    assert limits.drops.most("precision") == limits.drops.most("recall")
    assert f"recall by more than {limits.drops.most('recall'):.0%}".replace("%", " %") in measured["medium"]
    assert f"over {limits.latency_p95_ms / 1000:g} s" in measured["medium"]
    assert f"{limits.error_rate:.0%}".replace("%", " %") in measured["medium"]
    assert f"{limits.null_rate:.0%}".replace("%", " %") in measured["low"]


def test_types_and_statuses_are_the_codes() -> None:
    assert [row[0].strip("`") for row in RUNBOOK.table("Incident Types")] == [str(t) for t in IncidentType]
    assert set(re.findall(r"`(\w+)`", RUNBOOK.section("Status"))) == {str(s) for s in Status}


def test_the_escalation_matrix_is_the_policys() -> None:
    rows = {row[0].strip("*"): row[1:] for row in RUNBOOK.table("Escalation Matrix")}
    for role in Role:
        responder = Policy().escalation.of(role)
        after = "as needed" if responder.after_min is None else f"{responder.after_min} minutes"
        assert rows.pop(role.words) == [responder.email, after, str(responder.at_once_from or "-")]
    assert not rows
    assert f"up to {Policy().triage.page_anyway_after_s:.0f} seconds" in RUNBOOK.section("Escalation Matrix")


def test_every_automatic_rule_is_told() -> None:
    assert set(re.findall(r"`(containment\.(?:critical|high|security)\.\w+)`", RUNBOOK.text)) == set(Rule)
    section = RUNBOOK.section("Step 2: Immediate Containment")
    rails = Policy().guardrails
    assert f"at most {Policy().containment.max_threshold_step:.2f}" in section
    assert f"{rails.changes_per_model_and_hour} per\nmodel and hour" in section
    assert f"at least {rails.min_replicas} replica" in section


def test_the_alerts_and_their_limits_are_the_policys() -> None:
    limits = Policy().alerts
    expected = {
        ("ModelF1Drop", "WARNING"): limits.f1_drop_warning,
        ("ModelF1Drop", "CRITICAL"): limits.f1_drop_critical,
        ("ModelPrecisionDrop", "WARNING"): limits.precision_drop_warning,
        ("ModelRecallDrop", "WARNING"): limits.recall_drop_warning,
        ("FeatureNullRateHigh", "WARNING"): limits.null_rate_warning,
        ("ModelErrorRateHigh", "WARNING"): limits.error_rate_warning,
        ("AllAssetsHighRisk", "CRITICAL"): limits.flagged_share_critical,
    }
    rows = {(row[0].strip("`"), row[2]): row[1] for row in RUNBOOK.table("Automated Alerts")}
    for key, share in expected.items():
        assert f"{100 * share:g} %" in rows.pop(key)
    assert f"> {limits.latency_warning_s:g} s" in rows.pop(("InferenceLatencyHigh", "WARNING"))
    assert set(rows) >= {("FeatureDrift", "WARNING"), ("FeatureStoreUnavailable", "CRITICAL"), ("ModelServerDown", "CRITICAL")}
    told = {row[0].strip("`") for row in RUNBOOK.table("Automated Alerts")}
    assert told == set(Policy().alert_types) - {"ModelAccuracyDrop"}
    assert told == {rule.alert for rule in RULES}
    down = (ROOT / "docs/how-to/operate.md").read_text()
    assert f"`ModelServerDown` after {limits.server_down_after_s:.0f} s" in down
    assert f"`FeatureStoreUnavailable` after {limits.feature_store_down_after_s:.0f} s" in down


def test_the_monitoring_page_says_of_every_rule_what_the_policy_does() -> None:
    limits, rows = Policy().alerts, Page(ROOT / "docs/how-to/monitoring.md").table("The rules")
    told = {(row[0].strip("`"), row[1]): row for row in rows}
    assert set(told) == {(rule.alert, rule.level.upper()) for rule in RULES}
    for rule in RULES:
        _, _, condition, window, least, after = told[rule.alert, rule.level.upper()]
        assert condition.startswith(rule.title)
        if limit := rule.limit(limits):
            assert f"{'>=' if rule.at_limit else '>'} {limit:g}" in condition
        if rule.clears_at:
            assert f"at most {rule.clears_at(limits):g}" in condition
        assert (window, least, after) == (rule.window, rule.least.words(limits), f"{rule.fires_after_s(limits):g} s")
    assert f"for {limits.clears_after_s:g} s (`clears_after_s`)" in Page(ROOT / "docs/how-to/monitoring.md").text


def test_times_and_limits_of_steps_4_to_6_are_the_policys() -> None:
    policy = Policy()
    assert f"within {policy.communication.initial_within_min} minutes" in RUNBOOK.section(STEPS[4])
    assert f"every {policy.communication.update_every_min} minutes" in RUNBOOK.section(STEPS[4])
    assert f"within {policy.communication.review_due_h} hours" in RUNBOOK.section(STEPS[5])
    resolution = RUNBOOK.section(STEPS[3])
    assert f"within {policy.recovery.tolerance:.0%}".replace("%", " %") in resolution
    assert f"{policy.recovery.min_labelled} known outcomes and {policy.recovery.min_positives} failures" in resolution
    assert f"escalate after {policy.approvals.resolution.expires_after_min} minutes" in resolution
    looks = f"up to {policy.triage.looks} looks, {policy.triage.seconds_between_looks:g} seconds apart"
    assert looks in RUNBOOK.section(STEPS[0])


def test_who_may_approve_is_the_policys() -> None:
    short = {"on-call engineer": Role.ONCALL_ML_ENGINEER, "team lead": Role.ML_TEAM_LEAD, "engineering manager": Role.ENGINEERING_MANAGER}
    short |= {"VP": Role.VP_ENGINEERING, "security officer": Role.SECURITY_OFFICER, "compliance officer": Role.COMPLIANCE_OFFICER}
    page = Page(ROOT / "docs/how-to/approve.md")
    rows = page.table("Who may")
    assert [re.findall(r"`(\w+)`", row[0])[0] for row in rows] == list(type(Policy().approvals).model_fields)
    for plan, who, count, expires in rows:
        rule = getattr(Policy().approvals, re.findall(r"`(\w+)`", plan)[0])
        assert tuple(short[name] for name in who.split(", ")) == rule.roles
        assert (count, expires) == (str(rule.count), f"{rule.expires_after_min} minutes")
        assert not rule.accept_prefect_form


INCIDENT: dict[str, Any] = {
    "id": "incident_1",
    "model": "predictive_maintenance",
    "type": IncidentType.PERFORMANCE_DEGRADATION,
    "family": "performance",
    "severity": Severity.HIGH,
    "status": Status.CLOSED,
    "description": "F1 fell",
    "impact": "",
    "reported_by": "alertmanager",
}


def labels(text: str) -> list[str]:
    """Subject, headings and labels in order, values gone."""
    found = re.findall(r"^(Subject: \[\w+\])|^([A-Z][\w ]+:)|^(Updates will .*|Incident closed\.)$", text, re.MULTILINE)
    return ["".join(parts) for parts in found]


def test_the_templates_are_those_that_go_out() -> None:
    initial, resolution = RUNBOOK.blocks("text")
    told = IncidentSnapshot("incident_1", "predictive_maintenance", "v2.0.0", Severity.HIGH, Status.INVESTIGATING, "F1 fell")
    over = ResolutionFacts("incident_1", "predictive_maintenance", Severity.HIGH, timedelta(minutes=3), "a bad release", ["rolled back"])
    assert labels(initial) == labels(messages.initial_notification(told).text)
    assert labels(resolution) == labels(messages.resolution_notification(over).text)


def test_the_headings_of_the_review_are_those_of_the_draft() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    incident = Incident(**INCIDENT, detected_at=now, resolved_at=now + timedelta(minutes=3))
    draft = review.draft(ReviewFacts(incident, events=[]), [], Policy())
    headings = re.findall(r"^##+ (.+)$", draft, re.MULTILINE)
    section = " ".join(RUNBOOK.section(STEPS[5]).split())
    listed = re.search(r"Its headings: (.*?)\. \*\*You", section)
    assert listed
    assert re.findall(r"[^,()]+", listed[1].replace(" (", ",").replace("),", ",").replace(", ", ",")) == headings


def test_the_quick_reference_maps_every_command_of_the_appendix() -> None:
    rows = {row[1].strip("`"): row[2].strip("`") for row in RUNBOOK.table("Quick Reference Commands") if row[1] != "-"}
    assert list(rows) == list(QUICK_REFERENCE)
    assert all(rows[theirs].startswith(ours) for theirs, ours in QUICK_REFERENCE.items())


def test_it_has_an_owner_a_review_frequency_and_a_history() -> None:
    section = RUNBOOK.section("Runbook Maintenance")
    assert "**Owner:** ML Team Lead" in section
    assert "**Review Frequency:** Quarterly" in section
    head = next(line for line in RUNBOOK.section("Runbook Version History").splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["Version", "Date", "Changes", "Author"]
    for version, day, changes, author in RUNBOOK.table("Runbook Version History"):
        assert (bool(version), bool(changes), author) == (True, True, "ML Team")
        date.fromisoformat(day)
