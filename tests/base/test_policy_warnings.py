"""`policy check` warns of what is probably a mistake: the file is valid, and somebody will be surprised."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrunbook.base.policy_file import parse, warnings, warnings_of

ROOT = Path(__file__).parents[2]


def one(text: str) -> str:
    """The only warning, and the file is valid."""
    parse(text)
    (said,) = warnings_of(text)
    return said


def test_the_shipped_policy_and_the_defaults_give_no_warning() -> None:
    assert warnings(ROOT / "runbook.yaml") == []
    assert warnings_of("") == []


@pytest.mark.parametrize(
    ("text", "where", "so"),
    [
        ("severity:\n  drops:\n    f1_medium: 0.3", "3: severity.drops.f1_medium", "no drop of f1 is ever graded medium"),
        (
            "severity:\n  drops:\n    f1_medium: 0.08\n    f1_high: 0.05\nalerts: {f1_drop_critical: 0.05, f1_drop_warning: 0.05}",
            "3: severity.drops.f1_medium",
            "severity.drops.metrics[0].high (0.05)",
        ),
        (
            "severity:\n  drops:\n    metrics:\n      - {name: recall, worse: lower, medium: 0.3, high: 0.2}",
            "4: severity.drops.metrics[0].medium",
            "no drop of recall is ever graded medium",
        ),
        ("severity:\n  outage_error_rate: 0.005", "1: severity.error_rate", "every error rate that counts is an outage"),
        ("recovery:\n  tolerance: 0.15", "2: recovery.tolerance", "counts as recovered while it still counts as fallen"),
        ("alerts:\n  drift_effect: 0.01", "1: drift.effect_floor", "too small to matter"),
        ("alerts:\n  f1_drop_warning: 0.15", "2: alerts.f1_drop_warning", "raises no alert"),
        ("alerts:\n  f1_drop_critical: 0.4", "2: alerts.f1_drop_critical", "raises no critical alert"),
        ("alerts:\n  precision_drop_warning: 0.5", "2: alerts.precision_drop_warning", "raises no alert"),
        ("alerts:\n  recall_drop_warning: 0.5", "2: alerts.recall_drop_warning", "raises no alert"),
        ("alerts:\n  null_rate_warning: 0.5", "2: alerts.null_rate_warning", "raises no alert"),
        ("alerts:\n  error_rate_warning: 0.5", "2: alerts.error_rate_warning", "raises no alert"),
        ("alerts:\n  latency_warning_s: 5", "2: alerts.latency_warning_s", "raises no alert"),
        ("alerts:\n  flagged_share_critical: 0.99", "2: alerts.flagged_share_critical", "raises no alert"),
        ("triage:\n  looks: 30", "1: triage.page_anyway_after_s", "before triage has looked 30 times"),
        ("communication:\n  review_due_h: 12", "1: communication.review_remind_before_h", "before the review can be"),
        ("recovery_watch:\n  confirm_after_min: 20000", "2: recovery_watch.confirm_after_min", "given up before it is confirmed"),
        ("audits:\n  token_max_age_days: 30", "1: audits.token_unused_days", "too old before it is called unused"),
        ("escalation:\n  ml_team_lead:\n    after_min: 90", "1: escalation.engineering_manager.after_min", "is paged before ML Team Lead"),
        (
            "escalation:\n  engineering_manager:\n    at_once_from: medium",
            "3: escalation.engineering_manager.at_once_from",
            "only from high",
        ),
    ],
)
def test_limits_that_are_the_wrong_way_round(text: str, where: str, so: str) -> None:
    said = one(text)
    assert said.startswith(f"runbook.yaml:{where}: ")
    assert so in said


@pytest.mark.parametrize("text", ["severity: {drops: {f1_medium: 0.2}}", "alerts: {f1_drop_warning: 0.05}", "triage: {looks: 13}"])
def test_limits_that_are_equal_or_the_right_way_round_are_fine(text: str) -> None:
    assert warnings_of(text) == []


@pytest.mark.parametrize(
    ("text", "where", "who"),
    [
        ("escalation:\n  oncall_ml_engineer:\n    channels: []", "3: escalation.oncall_ml_engineer.channels", "is to be paged"),
        ("escalation: {ml_team_lead: {channels: []}}", "1: escalation.ml_team_lead.channels", "is to be paged"),
        ("escalation: {vp_engineering: {channels: []}}", "1: escalation.vp_engineering.channels", "is to be paged"),
        (
            "escalation: {security_officer: {channels: []}}",
            "1: escalation.security_officer.channels",
            "asked to decide (approvals.isolation)",
        ),
        (
            "escalation: {compliance_officer: {channels: [], at_once_from: critical}}",
            "1: escalation.compliance_officer.channels",
            "set after_min and at_once_from to null",
        ),
        ("contacts: {supervisors: {channels: []}}", "1: contacts.supervisors.channels", "supervisors is told"),
        ("communication: {fallback_channels: []}", "1: communication.fallback_channels", "goes nowhere"),
    ],
)
def test_a_page_that_leads_nowhere(text: str, where: str, who: str) -> None:
    said = one(text)
    assert said.startswith(f"runbook.yaml:{where}: ")
    assert who in said


COMMAND = "training: {{command: [python, train.py, '{{start_date}}', '{{end_date}}', '{{model_name}}', '{}']}}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{verison}", "did you mean {version}?"),
        ("{Version}", "did you mean {version}?"),
        ("{model}", "did you mean {model_name}?"),
        ("{}", "the known ones are {start_date}, {end_date}, {model_name}, {version}"),
        ("{ version }", "did you mean {version}?"),
        ("--out={output_dir}", "{output_dir} is no placeholder"),
        ("{{version}}", "{{ is taken as it stands"),
        ("${version}", "${version} is taken as it stands, no shell reads it"),
        ("{version", "{ is taken as it stands"),
        ("v1", "nothing tells the command {version}"),
    ],
)
def test_a_placeholder_that_is_none(given: str, said: str) -> None:
    assert said in one(COMMAND.format(given))


@pytest.mark.parametrize("given", ["{version}", "--tag={version}-nightly", '{"lr": 0.1, "tag": "{version}"}'])
def test_a_placeholder_or_json_is_fine(given: str) -> None:
    assert warnings_of(COMMAND.format(given)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("audits: {model_card: 'cards/{model_name}.md'}", "did you mean {model}?"),
        ("audits: {model_card: 'cards/$MODEL.md'}", "$MODEL is taken as it stands"),
        ("audits: {documents: ['docs/{model}.md']}", "there are no placeholders here"),
        ("channels: {incidents: '#ml-{severity}'}", "there are no placeholders here"),
    ],
)
def test_placeholders_of_other_texts(text: str, said: str) -> None:
    assert said in one(text)


@pytest.mark.parametrize(
    "text",
    [
        "channels: {{incidents: '{}'}}",
        "channels: {{page_lead: '{}'}}",
        "escalation: {{ml_team_lead: {{name: '{}'}}}}",
        "contacts: {{security: {{name: '{}'}}}}",
        "models: {{churn: {{owner: '{}'}}}}",
    ],
)
@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("ops@example.com", "an e-mail address"),
        ("mailto:ops@example.com", "a URL"),
        ("https://chat.example.com/room/7", "a URL"),
        ("pagerduty://page", "a URL"),
        ("call +49 170 1234567", "a phone number"),
        ("(030) 555-0199", "a phone number"),
        ("alerts.example.com:587", "a host"),
    ],
)
def test_an_address_where_a_name_belongs(text: str, given: str, what: str) -> None:
    said = one(text.format(given))
    assert what in said
    assert "a name belongs here" in said


NAMES = ("#ml-incidents", "stakeholders by email", "paging service 24/7", "[Name]", "Customer ML (3rd floor)", "@oncall")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(name: str) -> None:
    assert warnings_of(f"channels: {{incidents: '{name}'}}\nmodels: {{churn: {{owner: '{name}'}}}}") == []


@pytest.mark.parametrize(
    "secret",
    [
        "xoxb-000000000000-abcdefghijkl",
        "slack://TokenA/hooks.slack.com/services/T0",
        "https://user:hunter22@hooks.example.com/1",
        "0123456789abcdef0123456789abcdef",
        "mlrb_abcdefgh12345678",
        "token=abcdef123456",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        "channels: {{page: '{}'}}",
        "escalation: {{vp_engineering: {{name: '{}'}}}}",
        "training: {{command: [t, '{{start_date}}{{end_date}}{{model_name}}{{version}}', '{}']}}",
    ],
)
def test_a_secret_in_the_file(text: str, secret: str) -> None:
    said = one(text.format(secret))
    assert "looks like a secret" in said
    assert secret not in said, "a log of the check is no place for it either"


@pytest.mark.parametrize("email", ["ml-lead", "https://example.com", "+49 170 1234567"])
def test_an_e_mail_that_is_none(email: str) -> None:
    assert "is no e-mail address" in one(f"escalation: {{ml_team_lead: {{email: '{email}'}}}}")


WINDOW = "start: 2026-03-01T00:00:00Z, end: 2026-03-02T00:00:00Z, reason: new sensors, created_by: ml_team_lead"


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("intake: {models: {'service: Pump API': pump}}", "1: intake.models.service: Pump API", "without spaces around the colon"),
        ("intake: {models: {'service:': pump}}", "1: intake.models.service:", "never fits"),
        ("intake: {models: {':Pump API': pump}}", "1: intake.models.:Pump API", "never fits"),
        (
            "intake:\n  models:\n    'service:*': all\n    'service:Pump*': pump",
            "4: intake.models.service:Pump*",
            "takes what it says",
        ),
        ("intake:\n  models:\n    '*:Pump?': all\n    'service:Pump1': pump", "4: intake.models.service:Pump1", "put it first"),
        ("models:\n  'churn_*': {owner: A}\n  'churn_**': {owner: B}", "3: models.churn_**", "the same models as churn_*"),
        (f"silences:\n  - {{models: ['pump failure'], {WINDOW}}}", "2: silences[0].models[0]", "no model id looks like that"),
        (f"silences:\n  - {{models: ['pump_[12]'], {WINDOW}}}", "2: silences[0].models[0]", "no model id looks like that"),
        (f"maintenance:\n  - {{models: [ok, '/pump'], {WINDOW}}}", "2: maintenance[0].models[1]", "no model id looks like that"),
        (f"silences:\n  - {{alerts: [FeatureDrfit], {WINDOW}}}", "2: silences[0].alerts[0]", "did you mean FeatureDrift?"),
        (f"silences:\n  - {{alerts: ['ModelF1Drop '], {WINDOW}}}", "2: silences[0].alerts[0]", "no space around it"),
        (
            f"silences:\n  - {{alerts: [ModelF1Drop], types: [security], {WINDOW}}}",
            "2: silences[0].alerts[0]",
            "of type performance_degradation",
        ),
        ("safety: {critical_assets: ['press_*']}", "1: safety.critical_assets[0]", "* and ? are not wild here"),
        ("intake: {models: {'service:Pump.*': pump}}", "1: intake.models.service:Pump.*", ".* is taken as it stands"),
        ("intake: {models: {'service:[a-z]+-pump': pump}}", "1: intake.models.service:[a-z]+-pump", "[a-z] is taken as it stands"),
        ("intake: {models: {'title:^Pump *': pump}}", "1: intake.models.title:^Pump *", "no regular expression"),
        ("intake: {models: {'service:pump$': pump}}", "1: intake.models.service:pump$", "no regular expression"),
        ("intake: {models: {'service:(pump|press)': pump}}", "1: intake.models.service:(pump|press)", "no regular expression"),
        ("intake: {models: {'service:{pump,press}': pump}}", "1: intake.models.service:{pump,press}", "no regular expression"),
        (r"intake: {models: {'service:pump-\d': pump}}", r"1: intake.models.service:pump-\d", "no regular expression"),
        ("intake:\n  models:\n    'a:?*': all\n    'a:x*': pump", "4: intake.models.a:x*", "put it first"),
        (
            "models: {pump_wear: {owner: A}}\nintake: {models: {'service:Pump': pump_waer}}",
            "2: intake.models.service:Pump",
            "did you mean pump_wear?",
        ),
        ("models: {'pump_*': {owner: A}}\nintake: {models: {'service:Press': press}}", "2: intake.models.service:Press", "does not name"),
        ("intake: {levels: {warning: []}}", "1: intake.levels.warning", "no word leads to warning"),
        ("intake: {levels: {info: [nothing, '--']}}", "1: intake.levels.info[1]", "neither a letter nor a digit"),
        ("intake: {levels: {info: [calm, CALM]}}", "1: intake.levels.info[1]", "keep one"),
        ("intake: {levels: {critical: [sev-1, howling], warning: [SEV1]}}", "1: intake.levels.critical[0]", "warning lists 'SEV1' too"),
        ("intake: {states: {firing: [lit, 'up'], resolved: ['UP!']}}", "1: intake.states.firing[1]", "resolved lists 'UP!' too"),
        ("intake: {states: {ignored: ['']}}", "1: intake.states.ignored[0]", "never fits"),
        ("alert_types: {'*odd*': security, '*Odd*': security}", "1: alert_types.*Odd*", "never counts: *odd*"),
        ("alert_types: {'* ModelF1Drop *': security}", "1: alert_types.* ModelF1Drop *", "never counts: ModelF1Drop"),
        ("alert_types: {'Model.*Drop': security}", "1: alert_types.Model.*Drop", "no regular expression"),
        ("alert_types: {' Odd': security}", "1: alert_types. Odd", "space around it"),
        ("intake: {cloudevents: {alerts: ['*drift*', 'com.DRIFT.*']}}", "1: intake.cloudevents.alerts[1]", "takes what it says"),
        ("intake: {cloudevents: {alerts: ['*drift*'], ignored: ['*.drift.log']}}", "1: intake.cloudevents.ignored[0]", "is asked before"),
        ("intake: {cloudevents: {alerts: ['com.drift.v1']}}", "1: intake.cloudevents.alerts[0]", "without the version"),
        ("intake: {cloudevents: {alerts: ['com.(drift|alarm)']}}", "1: intake.cloudevents.alerts[0]", "no regular expression"),
        ("breach: {alert_subtypes: {'Probe?': adversarial_attack}}", "1: breach.alert_subtypes.Probe?", "* and ? are not wild here"),
        ("intake: {generic: {model: name}}", "1: intake.generic", "put them under `default:`"),
        ("cluster:\n  default: {scaled_deployment: churn-server}", "2: cluster.default", "belong to no model"),
        ("intake: {production_aliases: ['prod*']}", "1: intake.production_aliases[0]", "* and ? are not wild here"),
    ],
)
def test_what_can_never_match(text: str, where: str, why: str) -> None:
    said = one(text)
    assert said.startswith(f"runbook.yaml:{where}: ")
    assert why in said


@pytest.mark.parametrize(
    "text",
    [
        "intake: {models: {'service:Pump API': pump, 'service:*': all, 'tags:a:b': other}}",
        "models: {churn: {owner: A}, 'churn_*': {owner: B}, '*': {owner: C}}",
        f"silences: [{{models: ['pump_*', 'pump-?'], alerts: [FeatureDrift, 'My*', OurOwnAlert], {WINDOW}}}]",
        "cluster: {default: {scaled_deployment: pumps}, default_model: pumps}",
        "cluster: {default_model: null, models: {pumps: {scaled_deployment: pumps}}}",
        "safety: {critical_assets: [press_1]}\nalert_types: {OurOwnAlert: security}",
        "alert_types: {'Model*': security, 'odd*': security, '*odder': security}",
        "intake: {models: {'title:[PROD] pumps (EU) *': pump, 'service:x': pump, 'service:*': all}}",
        "models: {'pump_*': {owner: A}}\nintake: {models: {'service:Pump': pump_wear}}",
        "intake: {cloudevents: {alerts: ['com.example.*', '*drift*']}}",
        "intake: {levels: {info: [calm]}, states: {ignored: [snoozed]}}",
    ],
)
def test_what_matches_is_fine(text: str) -> None:
    assert warnings_of(text) == []
