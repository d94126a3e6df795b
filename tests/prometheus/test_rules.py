"""The Prometheus rules: made from the policy, checked and unit-tested by promtool, firing and ending as the product's own rules do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlrunbook.adapters.reports import prometheus_rules
from mlrunbook.domain.detection.alert_rules import RULES, Least, Rule
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform.prometheus_metrics import FAMILIES

NEEDS_PROMTOOL: Any = {
    "condition": shutil.which("promtool") is None and "CI" not in os.environ,
    "reason": "no promtool: apt-get install prometheus prometheus-alertmanager",
}
DEPLOYMENTS = Path(__file__).parents[2] / "deployments/prometheus"
POLICY = Policy()
STEP_S = 15
BAD_FROM_S, BAD_UNTIL_S, END_S = 60, 1500, 1620
M, V = 'model="m"', 'model="m",model_version="v2"'

Series = dict[str, float]
# A model that does well: 1,000 outcomes now, 10,000 in the baseline, precision, recall and F1 .8.
WELL: Series = {
    f'model_window_flagged_ratio{{{V}}}': 0.1,
    f'model_window_null_rise_ratio{{{V}}}': 0.0,
    f'model_window_latency_p95_seconds{{{V}}}': 0.04,
    f'model_window_error_ratio{{{V}}}': 0.0,
    f'model_features_drifted{{{M}}}': 0,
    f'model_feature_store_up{{{M}}}': 1,
    f'model_server_up{{{M}}}': 1,
    f'model_server_wanted{{{M}}}': 1,
}  # fmt: skip


def outcomes(tp: float, fp: float, fn: float, tn: float = 8800, unknown: float = 0, *, window: str = "current") -> Series:
    version = "v2" if window == "current" else ""
    counts = {"tp": tp, "fp": fp, "fn": fn, "tn": tn, "unknown": unknown}
    labels = f'{M},model_version="{version}",window="{window}"'
    return {f'model_window_predictions{{{labels},outcome="{outcome}"}}': count for outcome, count in counts.items()}


WELL |= outcomes(800, 200, 200) | outcomes(8000, 2000, 2000, 88000, window="baseline")


def f1(per_mille: int) -> Series:
    """As many false alarms as missed failures: precision, recall and F1 are all this."""
    return outcomes(per_mille, 1000 - per_mille, 1000 - per_mille)


# rule -> what makes it fire, what only just does not
CASES: dict[str, tuple[Series, Series]] = {
    "AllAssetsHighRisk:critical": (
        {f'model_window_flagged_ratio{{{V}}}': 0.90},
        {f'model_window_flagged_ratio{{{V}}}': 0.89},
    ),
    "ModelServerDown:critical": (
        {f'model_server_up{{{M}}}': 0},
        {f'model_server_up{{{M}}}': 0, f'model_server_wanted{{{M}}}': 0},  # stopped on purpose
    ),
    "FeatureStoreUnavailable:critical": ({f'model_feature_store_up{{{M}}}': 0}, {f'model_feature_store_up{{{M}}}': 1}),
    "ModelF1Drop:critical": (f1(630), f1(650)),
    "ModelF1Drop:warning": (f1(710), f1(730)),
    "ModelPrecisionDrop:warning": (outcomes(800, 400, 200), outcomes(800, 370, 200)),
    "ModelRecallDrop:warning": (outcomes(670, 100, 330), outcomes(690, 100, 310)),
    "FeatureNullRateHigh:warning": ({f'model_window_null_rise_ratio{{{V}}}': 0.051}, {f'model_window_null_rise_ratio{{{V}}}': 0.05}),
    "FeatureDrift:warning": ({f'model_features_drifted{{{M}}}': 1}, {f'model_features_drifted{{{M}}}': 0}),
    "InferenceLatencyHigh:warning": (
        {f'model_window_latency_p95_seconds{{{V}}}': 2.1},
        {f'model_window_latency_p95_seconds{{{V}}}': 2.0},
    ),
    "ModelErrorRateHigh:warning": ({f'model_window_error_ratio{{{V}}}': 0.011}, {f'model_window_error_ratio{{{V}}}': 0.01}),
    "ModelPlatformDown:warning": (dict.fromkeys(WELL, float("nan")), {f'model_server_wanted{{{M}}}': 0}),
}  # fmt: skip
FEW = outcomes(0, 2, 4, 90)  # 96 outcomes, 4 failures


def readings(rule: Rule) -> tuple[Series, Series]:
    """For a rule that is judged by the figure the platform exports."""
    limit, of = rule.limit(POLICY.alerts), f'model_alert_reading{{{M},alert="{rule.alert}",level="{rule.level}"}}'
    return {of: limit + 1}, {of: limit - 1 if rule.at_limit else limit}


def values(well: float, bad: float) -> str:
    """Well, bad, well again. NaN: no sample."""

    def repeated(value: float, seconds: int) -> str:
        count = seconds // STEP_S - 1
        return f"stale _x{count}" if value != value else f"{value:g}+0x{count}"  # as after a scrape that failed

    return f"{repeated(well, BAD_FROM_S)} {repeated(bad, BAD_UNTIL_S - BAD_FROM_S)} {repeated(well, END_S - BAD_UNTIL_S)}"


class Cases:
    """One promtool test with a model a case: it evaluates all rules at each step, which takes its time."""

    def __init__(self) -> None:
        self.series: dict[str, str] = {}
        self.expected: list[dict[str, Any]] = []

    def add(self, rule: Rule, bad: Series, expected: dict[int, bool], shape: Callable[[str, float, float], str] | None = None) -> str:
        """Whether the rule fires, at seconds since the series became bad; returns the case's model."""
        model = f"m{len(self.expected)}"
        for name in sorted({**WELL, **bad}):
            well = WELL.get(name, 0)
            given = shape(name, well, bad.get(name, well)) if shape else values(well, bad.get(name, well))
            self.series[name.replace(M, f'model="{model}"')] = given
        firing = f'count by (alertname) (ALERTS{{alertname="{rule.alert}",severity="{rule.level}",alertstate="firing",model="{model}"}})'
        sample = [{"labels": f'{{alertname="{rule.alert}"}}', "value": 1}]
        for after_s, fires in sorted(expected.items()):
            self.expected.append({"expr": firing, "eval_time": f"{BAD_FROM_S + after_s}s", "exp_samples": sample if fires else []})
        return model

    def as_test(self) -> dict[str, Any]:
        series = [{"series": name, "values": given} for name, given in self.series.items()]
        return {"interval": f"{STEP_S}s", "input_series": series, "promql_expr_test": self.expected}


def all_rules() -> Cases:
    cases, bad_s = Cases(), BAD_UNTIL_S - BAD_FROM_S
    quiet = {0: False, bad_s - STEP_S: False}
    for rule in RULES:
        fires, well = CASES.get(rule.key) or readings(rule)
        wait_s = -(-int(rule.fires_after_s(POLICY.alerts)) // STEP_S) * STEP_S
        expected = {-STEP_S: False, wait_s: True, bad_s: True, bad_s + STEP_S: True, bad_s + 60: False}
        cases.add(rule, fires, expected | ({wait_s - STEP_S: False} if wait_s else {}))
        cases.add(rule, well, quiet)
        if rule.least is Least.OUTCOMES and rule.key in CASES:
            cases.add(rule, FEW, quiet)
        if rule.least is Least.PREDICTIONS and rule.key in CASES:
            cases.add(rule, fires | outcomes(1, 1, 1, 100, 96), quiet)
    return cases


def critical_until_below_the_warning_level(cases: Cases) -> None:
    bad, around = f1(600), f1(650)  # down 25 %, then 18.75 %

    def shape(name: str, well: float, _: float) -> str:
        return f"{well:g}+0x3 {bad.get(name, well):g}+0x7 {around.get(name, well):g}+0x10 {well:g}+0x80"

    rule = next(r for r in RULES if r.key == "ModelF1Drop:critical")
    cases.add(rule, {}, {60: True, 240: True, 400: False}, shape)


def words(model: str) -> list[dict[str, Any]]:
    """What the gateway and people read."""
    labels = {"severity": "critical", "model": model, "model_version": "v2", "window": "current"}
    annotations = {
        "summary": f"{model} F1 fell 50%",
        "description": "F1 score drop > 0.2 in the last 60 min against the baseline's 7 days; "
        "least data: 100 known outcomes with 5 failures, in both windows",
    }
    warning = annotations | {"description": annotations["description"].replace("0.2", "0.1")}
    alerts = [
        {"exp_labels": labels, "exp_annotations": annotations},
        {"exp_labels": labels | {"severity": "warning"}, "exp_annotations": warning},
    ]
    return [{"eval_time": "5m", "alertname": "ModelF1Drop", "exp_alerts": alerts}]


def promtool(*arguments: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rule_file_is_what_the_policy_makes() -> None:
    made = prometheus_rules.as_yaml(POLICY)
    assert (DEPLOYMENTS / "rules.yml").read_text() == made, "run: mlrunbook policy prometheus > deployments/prometheus/rules.yml"


@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_the_rules_and_the_configuration_are_valid() -> None:
    promtool("check", "rules", DEPLOYMENTS / "rules.yml")
    promtool("check", "config", "--syntax-only", DEPLOYMENTS / "prometheus.yml")  # the token's file is each team's own


@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_every_rule_fires_ends_and_keeps_quiet_as_the_products_own_does(tmp_path: Path) -> None:
    cases, worded = all_rules(), Cases()
    critical_until_below_the_warning_level(cases)
    model = worded.add(RULES[0], f1(400), {})
    tests = [cases.as_test(), worded.as_test() | {"alert_rule_test": words(model)}]
    file = tmp_path / "rules_test.yml"
    (tmp_path / "rules.yml").write_text(prometheus_rules.as_yaml(POLICY))
    given = {"rule_files": ["rules.yml"], "evaluation_interval": f"{STEP_S}s", "tests": tests}
    file.write_text(yaml.safe_dump(given))
    promtool("test", "rules", file)


def test_a_rule_of_another_policy_has_its_limits() -> None:
    strict = POLICY.model_copy(update={"alerts": POLICY.alerts.model_copy(update={"latency_warning_s": 0.5, "clears_after_s": 0.5})})
    (latency,) = (r for r in prometheus_rules.rules(strict)["groups"][0]["rules"] if r.get("alert") == "InferenceLatencyHigh")
    assert "> 0.5 and" in latency["expr"]
    assert latency["keep_firing_for"] == "500ms"


def test_a_rule_reads_only_what_the_platform_exports() -> None:
    recorded = {r["record"] for r in prometheus_rules.rules(POLICY)["groups"][0]["rules"] if "record" in r}
    for rule in prometheus_rules.rules(POLICY)["groups"][0]["rules"]:
        assert set(re.findall(r"model_[a-z0-9_]+", rule["expr"])) - {"model_version"} <= set(FAMILIES)
        assert set(re.findall(r"model:[a-z0-9_:]+", rule["expr"])) <= recorded


@pytest.mark.parametrize("name", FAMILIES)
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    help_, labels = FAMILIES[name]
    assert help_
    assert not name.endswith(("_ms", "_percent", "_total", "_count"))
    assert "asset_id" not in labels


def test_the_file_says_whose_own_limits_prometheus_does_not_know() -> None:
    own = Policy(models={"churn": ModelRules(alerts={"f1_drop_warning": 0.05}), "fraud": ModelRules(owner="Fraud")})
    head = [line for line in prometheus_rules.as_yaml(own).splitlines() if line.startswith("#")]
    assert any("churn" in line for line in head)
    assert not any("fraud" in line for line in head)
    assert yaml.safe_load(prometheus_rules.as_yaml(own)) == yaml.safe_load(prometheus_rules.as_yaml(Policy()))
