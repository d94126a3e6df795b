"""Whose a model is, and what of the world belongs to it: nothing belongs to two, and there is no default to fall back to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.base.policy_file import parse
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.policy.cluster import ClusterObjects, ClusterPolicy
from mlrunbook.domain.policy.owned import ModelRules, did_you_mean, unknown_words
from mlrunbook.domain.policy.patterns import fits, most_specific
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.known_models import refusal

CHURN = ClusterObjects(
    scaled_deployment="churn", restarted_deployment="churn", service="churn", config_map="churn", pod_selector={"app": "churn"}
)


def test_a_model_that_policy_does_not_map_has_no_cluster_objects() -> None:
    with pytest.raises(Refused, match="maps no cluster objects to churn"):
        Policy().objects.of("churn")
    assert Policy().objects.of("predictive_maintenance") == ClusterObjects()


def test_objects_named_without_their_model_belong_to_nobody() -> None:
    policy = parse("cluster: {default: {scaled_deployment: churn}}")
    with pytest.raises(Refused):
        policy.objects.of("predictive_maintenance")


def test_each_model_has_the_objects_that_policy_gives_it() -> None:
    policy = Policy(models={"churn": ModelRules(cluster=CHURN)})
    assert policy.objects.of("churn") == CHURN
    assert policy.objects.of("predictive_maintenance") == ClusterObjects()


@pytest.mark.parametrize(
    "text",
    [
        "models: {churn: {cluster: {scaled_deployment: model-server, restarted_deployment: a, service: a, config_map: a}}}",
        "models: {churn: {cluster: {scaled_deployment: a, restarted_deployment: a, service: model-service, config_map: a}}}",
        "models: {churn: {cluster: {scaled_deployment: a, restarted_deployment: a, service: a, config_map: a}}}",
        "models: {churn: {cluster: {scaled_deployment: a, restarted_deployment: a, service: a, config_map: a, "
        "pod_selector: {app: model-server, tier: x}}}}",
        "models: {'churn*': {cluster: {scaled_deployment: a, restarted_deployment: a, service: a, config_map: a}}}",
        "models: {'a b': {owner: x}}",
    ],
    ids=["shared Deployment", "shared Service", "shared pods", "pods among those of the other", "objects under a pattern", "no name"],
)
def test_an_object_of_two_models_is_an_error_of_the_policy(text: str) -> None:
    with pytest.raises(Invalid, match="models"):
        parse(text)


def test_the_exact_name_counts_before_a_pattern_and_the_longer_pattern_before_the_shorter() -> None:
    patterns = ["*", "churn_*", "churn_eu"]
    assert most_specific("churn_eu", patterns) == "churn_eu"
    assert most_specific("churn_us", patterns) == "churn_*"
    assert most_specific("fraud", patterns) == "*"
    assert most_specific("fraud", ["churn_*"]) is None


def test_only_star_and_question_mark_are_special() -> None:
    assert not fits("churn1", "churn[1]")
    assert fits("churn.1", "churn.?")


@given(name=st.text("ab:", max_size=12), pattern=st.text("ab:*?", max_size=8))
def test_a_pattern_fits_what_a_shell_says_it_fits(name: str, pattern: str) -> None:
    assert fits(name, pattern) == fnmatchcase(name, pattern)


@pytest.mark.parametrize(("name", "pattern"), [("ab" * 2000, "*a*b*c*"), ("a" * 4000, "?*?*?*x"), (":" * 4000, "*:*pump*eu*")])
def test_a_text_that_is_made_for_a_pattern_keeps_nobody_waiting(name: str, pattern: str) -> None:
    begun_s = time.process_time()
    assert not any(fits(name, pattern) for _ in range(20))
    assert time.process_time() - begun_s < 2


def test_policy_knows_the_models_it_speaks_of() -> None:
    policy = parse("{models: {'churn_*': {owner: x}}, intake: {models: {'service:Fraud API': fraud}}}")
    assert policy.names("churn_eu")
    assert policy.names("fraud")
    assert policy.names("predictive_maintenance")
    assert not policy.names("predictive-maintenance")


def test_a_name_that_is_nearly_right_is_told_which_one_was_meant() -> None:
    assert did_you_mean("Predictive-Maintenance", ["predictive_maintenance", "churn"]) == "did you mean predictive_maintenance?"
    assert did_you_mean("zzz", ["churn", "churn_*"]) == "known models: churn"
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize("hint", ["did you mean churn?", "known models: churn, fraud", ""])
@pytest.mark.parametrize("say", [unknown_words, refusal])
def test_the_sentence_about_an_unknown_name_ends_once_whatever_it_hints_at(say: Callable[[str, str], str], hint: str) -> None:
    said = say("chrun", hint)
    assert hint in said
    assert not re.search(r"[?.:,;][?.:,;]", said)


def test_a_cluster_policy_that_names_no_model_maps_nothing() -> None:
    assert ClusterPolicy().by_model == {}


def test_a_model_has_the_limits_that_are_its_own_and_the_common_ones_for_all_else() -> None:
    policy = parse("severity: {error_rate: 0.02}\nmodels: {pumps: {severity: {window: {min_outcomes: 400}, null_rate: 0.2}}, 'fan*': {}}")
    own = policy.for_model("pumps").severity
    assert (own.window.min_outcomes, own.window.min_positives, own.null_rate, own.error_rate) == (400, 30, 0.2, 0.02)
    assert own.drops == policy.severity.drops
    assert policy.for_model("fans") is policy
    assert policy.severity.window.min_outcomes == 100


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ("{windw: {min_outcomes: 400}}", r"models.pumps.severity.windw: unknown key; known here: .*window"),
        ("{window: {min_outcome: 400}}", r"models.pumps.severity.window.min_outcome: unknown key; known here: .*min_outcomes"),
        ("{window: {min_outcomes: 0}}", r"models.pumps.severity.window.min_outcomes: .*greater than or equal to 1"),
        ("{window: {min_outcomes: '400'}}", r"models.pumps.severity.window.min_outcomes: "),
        ("{null_rate: 2}", r"models.pumps.severity.null_rate: "),
        ("{drops: {metrics: [{name: f2, worse: lower, medium: 0.1}]}}", r"no metric is called f2"),
        ("[window]", r"models.pumps.severity: "),
    ],
)
def test_limits_of_a_model_that_cannot_be_are_refused_by_name(own: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse(f"models:\n  pumps:\n    owner: me\n    severity: {own}\n")
