"""What a model has of its own of the policy, from the narrowest pattern to the top."""

from __future__ import annotations

import pytest

from mlrunbook.base.policy_file import parse
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role

FILE = """
mode: propose
channels: {churn: "#churn", churn_page: a pager}
models:
  "*": {costs: {currency: EUR}}
  "churn_*":
    owner: Customer ML
    channels: {page: churn_page}
    alerts: {f1_drop_warning: 0.3, f1_drop_critical: 0.4}
    escalation: {ml_team_lead: {name: Kim}}
    features: {max_age_s: 60.0}
  churn_eu: {alerts: {f1_drop_critical: 0.5}, mode: act, feature_views: [eu], channels: {incidents: churn}}
"""


def test_what_a_pattern_leaves_out_comes_from_the_next_wider_one_and_then_from_the_top() -> None:
    found = parse(FILE).for_model("churn_eu")
    assert (found.alerts.f1_drop_warning, found.alerts.f1_drop_critical, found.alerts.null_rate_warning) == (0.3, 0.5, 0.05)
    assert (found.costs.currency, found.mode, found.features.max_age_s, found.features.views) == ("EUR", Mode.ACT, 60.0, ("eu",))
    lead = found.escalation.of(Role.ML_TEAM_LEAD)
    assert (lead.name, lead.after_min, lead.channels) == ("Kim", 30, ("churn_page",))
    assert found.communication.fallback_channels == ("churn", "email")
    assert parse(FILE).rules_of("churn_eu").owner == "Customer ML"


def test_of_another_model_only_what_holds_for_all() -> None:
    policy = parse(FILE)
    fraud = policy.for_model("fraud")
    assert fraud.model_dump(exclude={"costs"}) == policy.model_dump(exclude={"costs"})
    assert policy.mode_of("fraud") is Mode.PROPOSE
    assert policy.mode_of("churn_eu") is Mode.ACT


def test_the_policy_of_one_model_is_asked_about_another_as_the_whole_is() -> None:
    policy = parse(FILE)
    eu = policy.for_model("churn_eu")
    assert eu.for_model("fraud") == policy.for_model("fraud")
    assert eu.for_model("churn_eu") == eu
    assert eu.mode_of("fraud") is Mode.PROPOSE


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("alerts: {f1: 0.1}", "models.churn.alerts.f1"),
        ("alerts: {f1_drop_warning: 0.3}", "models.churn.alerts"),  # above the critical one of all models
        ("alerts: {f1_drop_warning: often}", "models.churn.alerts.f1_drop_warning"),
        ("approvals: {resolution: {count: 0}}", "models.churn.approvals.resolution.count"),
        ("approvals: {resolution: {roles: [chief]}}", "models.churn.approvals.resolution.roles[0]"),
        ("escalation: {ml_team_lead: {channels: [nowhere]}}", "models.churn.escalation.ml_team_lead.channels"),
        ("channels: {page: nowhere}", "models.churn.channels.page"),
        ("channels: {pager: page}", "models.churn.channels.pager"),
        ("training: {command: train.sh}", "models.churn.training.command"),
        ("mode: watch", "models.churn.mode"),
        ("moods: {}", "models.churn.moods"),
    ],
)
def test_what_cannot_be_is_an_error_with_the_whole_path_of_its_key_and_its_line(entry: str, named: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"models:\n  churn:\n    {entry}\n")
    [said] = str(caught.value).splitlines()
    assert said.startswith("runbook.yaml:3: ")
    assert named in said


def test_no_feature_view_at_all_is_not_left_out() -> None:
    policy = parse("models: {'*': {feature_views: [sensors]}, churn: {feature_views: []}, fraud: {costs: {}}}")
    assert policy.feature_views_of("churn") == ()
    assert policy.feature_views_of("fraud") == ("sensors",)


def test_an_empty_section_takes_nothing_away() -> None:
    found = parse("models: {'*': {escalation: {ml_team_lead: {name: Kim}}}, churn: {escalation: {}}}").for_model("churn")
    assert found.escalation.of(Role.ML_TEAM_LEAD).name == "Kim"


def test_where_patterns_overlap_the_most_specific_one_holds_with_what_is_wider() -> None:
    """It cannot hold alone: its warning is above the critical limit of the top."""
    own = {"f1_drop_warning": 0.3}
    wide, across = ModelRules(alerts={"f1_drop_critical": 0.5}), ModelRules(alerts={"f1_drop_critical": 0.25})
    policy = Policy(models={"*": wide, "*_eu": across, "churn_*": ModelRules(alerts=own)})
    found = policy.for_model("churn_eu")
    assert (found.alerts.f1_drop_warning, found.alerts.f1_drop_critical) == (0.3, 0.5)


def test_patterns_that_only_overlap_and_do_not_fit_together_leave_the_most_specific_one() -> None:
    """Pages go out also then."""
    narrow = ModelRules(alerts={"f1_drop_critical": 0.25})
    policy = Policy(models={"*_europe": narrow, "churn_*": ModelRules(alerts={"f1_drop_warning": 0.3, "f1_drop_critical": 0.5})})
    found = policy.for_model("churn_europe")
    assert found.alerts.f1_drop_critical == 0.25
    assert found.alerts.f1_drop_warning == 0.1
