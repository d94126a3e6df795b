"""runbook.yaml: the shipped file is the default policy, and every mistake in one is explained by path and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlrunbook.adapters.local.serving_state import DEFAULT_MODEL
from mlrunbook.base.policy_file import load, parse
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.drills import exercise
from mlrunbook.drills.simulator import cluster_node

ROOT = Path(__file__).parents[2]


def errors(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse(text)
    return str(caught.value).splitlines()


def test_the_shipped_file_equals_the_built_in_policy_and_leaves_nothing_out() -> None:
    built_in = _values(Policy().model_dump())
    assert _values(load(ROOT / "runbook.yaml").model_dump()) == built_in
    assert _values(yaml.safe_load((ROOT / "runbook.yaml").read_text())).keys() == built_in.keys()


def _values(section: object, at: str = "") -> dict[str, object]:
    """By their path in the file, so that a failure names the line that differs."""
    if not isinstance(section, dict) or not section:
        return {at: section}
    return {path: value for key, inner in section.items() for path, value in _values(inner, f"{at}.{key}".lstrip(".")).items()}


def test_a_file_says_only_what_differs() -> None:
    policy = parse("escalation:\n  ml_team_lead:\n    at_once_from: medium\nchannels:\n  page_lead: the lead's pager\n")
    assert policy.escalation.of(Role.ML_TEAM_LEAD).at_once_from is Severity.MEDIUM
    assert policy.escalation.of(Role.ML_TEAM_LEAD).after_min == 30
    assert policy.channels["incidents"] == "#ml-incidents"


@pytest.mark.parametrize("text", ["", "# nothing\n", "triage:\n  # looks: 5\n"])
def test_an_empty_file_or_section_is_the_default(text: str) -> None:
    assert parse(text) == Policy()


def test_a_null_takes_a_value_away() -> None:
    assert parse("escalation: {vp_engineering: {after_min: null}}").escalation.of(Role.VP_ENGINEERING).after_min is None


def test_errors_name_the_file_the_line_the_path_and_what_to_write(tmp_path: Path) -> None:
    file = tmp_path / "team.yaml"
    file.write_text("# ours\napprovals:\n  resolution:\n    count: 0\n")
    with pytest.raises(Invalid, match=r"^team\.yaml:4: approvals\.resolution\.count: must be at least 1$"):
        load(file)


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = "tirage: {}\nresponse_min:\n  critical: soon\napprovals:\n  undo:\n    roles: [ml_teem_lead]\n"
    assert errors(text) == [
        "runbook.yaml:1: tirage: unknown key; did you mean triage?",
        'runbook.yaml:3: response_min.critical: must be a whole number, not "soon"',
        "runbook.yaml:6: approvals.undo.roles[0]: must be one of oncall_ml_engineer, ml_team_lead, engineering_manager, "
        'vp_engineering, compliance_officer, security_officer, not "ml_teem_lead"; did you mean ml_team_lead?',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("approvals:\n  undo:\n    cuont: 2", "3: approvals.undo.cuont: unknown key; did you mean count?"),
        ("severity:\n  drops:\n    metricss: []", "3: severity.drops.metricss: unknown key; did you mean metrics?"),
        (
            "triage:\n  zzz: 1",
            "2: triage.zzz: unknown key; known here: looks, seconds_between_looks, page_anyway_after_s, doubt_false_alarm_after_min",
        ),
        ("triage: 5", "1: triage: must be a section of keys and values, not 5"),
        ("severity: [1]", "1: severity: must be a section of keys and values, not [1]"),
        ("approvals:\n  undo:\n    count: true", "3: approvals.undo.count: must be a whole number, not true"),
        ('approvals:\n  undo:\n    count: "2"', '3: approvals.undo.count: must be a whole number, not "2"'),
        ("approvals:\n  undo:\n    roles: []", "3: approvals.undo.roles: needs at least 1 item(s)"),
        (
            "approvals:\n  undo:\n    accept_prefect_form: maybe",
            '3: approvals.undo.accept_prefect_form: must be true or false, not "maybe"',
        ),
        ("severity: {all_flagged: 1.5}", "1: severity.all_flagged: must be less than 1"),
        ("severity:\n  drops:\n    f1_medium: 2", "3: severity.drops.f1_medium: must be less than 1"),
        ("severity:\n  drops:\n    metrics: []", "3: severity.drops.metrics: needs at least 1 item(s)"),
        (
            "severity:\n  drops:\n    metrics:\n      - {name: f2, worse: lower, medium: 0.1}",
            "4: severity.drops.metrics[0].name: no metric is called f2; write one of f1, precision, recall, false_positive_rate",
        ),
        (
            "severity:\n  drops:\n    metrics:\n      - {name: f1, medium: 0.1}",
            "4: severity.drops.metrics[0].worse: is required",
        ),
        (
            "severity:\n  drops:\n    metrics:\n      - {name: f1, worse: lower, medium: 1.5}",
            "4: severity.drops.metrics[0].medium: must be less than 1: nothing falls by more than all of it",
        ),
        (
            "severity:\n  drops:\n    metrics: [{name: f1, worse: lower, medium: 0.1}, {name: f1, worse: lower, medium: 0.2}]",
            "3: severity.drops.metrics: f1 has two rules; keep one",
        ),
        (
            "severity:\n  drops:\n    recall: 0.2\n    metrics:\n      - {name: f1, worse: lower, medium: 0.1}",
            "3: severity.drops.recall: belongs into `metrics`, which is given too; keep `metrics` alone",
        ),
        ("severity: {all_flagged: .nan}", "1: severity.all_flagged: must be a finite number"),
        ("costs: {currency: ''}", "1: costs.currency: must not be empty"),
        ("costs: {per_unnecessary_work_order: -1}", "1: costs.per_unnecessary_work_order: must be at least 0"),
        (
            "guardrails:\n  freeze_windows:\n    - {start: 2026-12-24T00:00:00Z, reason: x}",
            "3: guardrails.freeze_windows[0].end: is required",
        ),
        (
            "guardrails:\n  freeze_windows:\n    - {start: 2026-12-24T00:00:00, end: 2026-12-25T00:00:00Z, reason: x}",
            "3: guardrails.freeze_windows[0].start: needs a time zone, as in 2026-12-24T00:00:00Z",
        ),
        (
            "guardrails:\n  freeze_windows:\n    - {start: 2026-12-24T00:00:00Z, end: 2026-12-23T00:00:00Z, reason: x}",
            "3: guardrails.freeze_windows[0]: end must be after start",
        ),
        ("channels: {Bad Name: x}", "1: channels.Bad Name: must start with a small letter and hold only small letters, digits, - and _"),
        (
            "escalation:\n  ml_team_lead:\n    channels: [pagre]",
            "3: escalation.ml_team_lead.channels: there is no channel 'pagre'; name it under channels",
        ),
        (
            "escalation:\n  oncall_ml_engineer:\n    after_min: null",
            "3: escalation.oncall_ml_engineer.after_min: must be a number of minutes, or nobody is paged first",
        ),
        ("families:\n  a: [security]\n  b: [security]", "1: families: security is in a and in b; a type belongs to one family"),
        ("triage:\n  looks: 2\n  looks: 3", "3: triage.looks: given twice, first on line 2; keep one"),
        ("- a", "1: must hold keys and values, as in `triage:`; see the runbook.yaml of the repository"),
        ("1: 2", "1: the file: a key must be text; put it in quotes"),
        ("a: &x 1\nb: *x", "2: write the value out instead of the alias *x"),
        ("triage:\n  looks: [", "2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\n---\nb: 2", "2: not valid YAML: but found another document"),
    ],
)
def test_a_mistake_is_explained(text: str, said: str) -> None:
    assert errors(text) == [f"runbook.yaml:{said}"]


@pytest.mark.parametrize("text", ["window: {most_days: 100000000}", "run_length: {within_days: 100000000}"])
@pytest.mark.parametrize("section", ["severity: {%s}", "models: {pumps: {severity: {%s}}}"])
def test_days_that_no_calendar_holds_are_refused(section: str, text: str) -> None:
    with pytest.raises(Invalid, match="3650"):
        parse(section % text)


@pytest.mark.parametrize(
    "text", ["x: \x01", "x: !!python/object:os.system {}", "x: 2026-02-31", "[" * 1500, "\x00", "? {a: 1}\n: 2", "<<: 3"]
)
def test_whatever_the_file_holds_the_error_is_one_line(text: str) -> None:
    assert len(errors(text)) == 1
    assert errors(text)[0].startswith("runbook.yaml:1: ")


def test_a_missing_or_unreadable_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="MLRUNBOOK_POLICY"):
        load(tmp_path / "none.yaml")
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(Invalid, match="UTF-8"):
        load(tmp_path / "latin.yaml")


def test_the_demo_on_a_cluster_names_whose_its_objects_are() -> None:
    policy = parse(exercise.POLICY + cluster_node.POLICY)
    assert policy.objects.of(DEFAULT_MODEL) == cluster_node.OBJECTS


def test_limits_of_an_older_file_are_the_rules_of_their_names() -> None:
    old = parse("severity: {drops: {f1_medium: 0.05, f1_high: 0.3, precision: 0.2, recall: 0.25, min_positives: 40}}").severity.drops
    assert [(rule.name, rule.medium, rule.high) for rule in old.metrics] == [
        ("f1", 0.05, 0.3),
        ("precision", 0.2, None),
        ("recall", 0.25, None),
    ]
    assert old.min_positives == 40
    some = parse("severity: {drops: {recall: 0.25}}").severity.drops
    assert [rule.medium for rule in some.metrics] == [0.10, 0.15, 0.25]


def test_a_list_of_rules_replaces_the_shipped_ones() -> None:
    drops = parse("severity: {drops: {metrics: [{name: false_positive_rate, worse: higher, medium: 0.5, high: 2.0}]}}").severity.drops
    assert [rule.name for rule in drops.metrics] == ["false_positive_rate"]
