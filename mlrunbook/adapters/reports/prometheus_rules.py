"""The automated alerts as Prometheus rules, from the same rules and the same policy as the product's own evaluation.

Prometheus scrapes the platform's `/metrics` (`mlrunbook/local/platform/prometheus_metrics.py`). What an alert needs more than a glance at
one gauge is a recording rule, named level:metric:operation (https://prometheus.io/docs/practices/rules/). A rule of `alert_rules.RULES`
without an expression here is judged by the figure the platform exports for every rule, so that none is left out.
"""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.detection.alert_rules import NOW, RULES, Least, Rule
from mlrunbook.domain.policy.policy import Policy

INTERVAL = "15s"
_VERSION = "max by (model, model_version)"
_MODEL = "max by (model)"

_COUNTS = "model:window_predictions:max"


def _count(outcome: str) -> str:
    return f'{_COUNTS}{{outcome="{outcome}"}}'


def _ratio(part: str, *others: str) -> str:
    """part / (part + others). Without a denominator it is NaN, and no comparison with NaN holds."""
    whole = " + ignoring (outcome) ".join(map(_count, (part, *others)))
    return f"{_count(part)} / ignoring (outcome) ({whole})"


def _fell(metric: str) -> str:
    """1 - current/baseline, with the current version's labels."""
    return f'1 - model:{metric}:ratio{{window="current"}} / on (model) group_left () model:{metric}:ratio{{window="baseline"}}'


def _recording(policy: Policy) -> dict[str, str]:
    limits, by = policy.alerts, "sum by (model, model_version, window)"
    enough = f"(model:labelled:sum >= bool {limits.min_labelled}) * (model:positives:sum >= bool {limits.min_positives})"
    tp, fp, fn = map(_count, ("tp", "fp", "fn"))
    return {
        # Several processes of the platform export the same: `max` takes one of them.
        _COUNTS: "max by (model, model_version, window, outcome) (model_window_predictions)",
        "model:predictions:sum": f"{by} ({_COUNTS})",
        "model:labelled:sum": f'{by} ({_COUNTS}{{outcome!="unknown"}})',
        "model:positives:sum": f'{by} ({_COUNTS}{{outcome=~"tp|fn"}})',
        "model:precision:ratio": _ratio("tp", "fp"),
        "model:recall:ratio": _ratio("tp", "fn"),
        "model:f1:ratio": f"2 * {tp} / ignoring (outcome) (2 * {tp} + ignoring (outcome) {fp} + ignoring (outcome) {fn})",
        "model:f1_drop:ratio": _fell("f1"),
        "model:precision_drop:ratio": _fell("precision"),
        "model:recall_drop:ratio": _fell("recall"),
        "model:enough_outcomes:bool": f"min by (model) ({enough}) and on (model) count by (model) (model:labelled:sum) == 2",
    }


# alert -> the figure it compares with its limit
FIGURES: dict[str, str] = {
    "AllAssetsHighRisk": f"{_VERSION} (model_window_flagged_ratio)",
    "ModelServerDown": f"1 - {_MODEL} (model_server_up) * on (model) {_MODEL} (model_server_wanted == 1)",
    "FeatureStoreUnavailable": f"1 - {_MODEL} (model_feature_store_up)",
    "ModelF1Drop": "model:f1_drop:ratio",
    "ModelPrecisionDrop": "model:precision_drop:ratio",
    "ModelRecallDrop": "model:recall_drop:ratio",
    "FeatureNullRateHigh": f"{_VERSION} (model_window_null_rise_ratio)",
    "FeatureDrift": f"{_MODEL} (model_features_drifted)",
    "InferenceLatencyHigh": f"{_VERSION} (model_window_latency_p95_seconds)",
    "ModelErrorRateHigh": f"{_VERSION} (model_window_error_ratio)",
    # Models that were watched within the last hour and are not now.
    "ModelPlatformDown": "count by (model) (last_over_time(model_server_wanted[1h]) unless on (model) model_server_wanted)",
}
_LEAST = {
    Least.NOTHING: "",
    Least.PREDICTIONS: ' and on (model) model:predictions:sum{{window="current"}} >= {limits.min_predictions}',
    Least.OUTCOMES: " and on (model) model:enough_outcomes:bool == 1",
}
_SUMMARY = {
    "AllAssetsHighRisk": "{{ $labels.model }} flags {{ $value | humanizePercentage }} of its predictions as high-risk",
    "ModelServerDown": "the model server of {{ $labels.model }} does not answer",
    "FeatureStoreUnavailable": "the model server of {{ $labels.model }} cannot read features",
    "ModelF1Drop": "{{ $labels.model }} F1 fell {{ $value | humanizePercentage }}",
    "ModelPrecisionDrop": "{{ $labels.model }} precision fell {{ $value | humanizePercentage }}",
    "ModelRecallDrop": "{{ $labels.model }} recall fell {{ $value | humanizePercentage }}",
    "FeatureNullRateHigh": "{{ $value | humanizePercentage }} more of a feature of {{ $labels.model }} is null than in the baseline",
    "FeatureDrift": "the feature distributions of {{ $labels.model }} moved",
    "InferenceLatencyHigh": "{{ $labels.model }} inference takes {{ $value | humanizeDuration }} (p95)",
    "ModelErrorRateHigh": "{{ $value | humanizePercentage }} of the predictions asked of {{ $labels.model }} failed",
    "ModelPlatformDown": "the model platform does not answer Prometheus: nobody watches {{ $labels.model }}",
}


def expression(rule: Rule, policy: Policy) -> str:
    """The PromQL that holds while the rule's condition does."""
    limits = policy.alerts
    figure = FIGURES.get(rule.alert) or f'{_MODEL} (model_alert_reading{{alert="{rule.alert}",level="{rule.level}"}})'
    least = _LEAST[rule.least].format(limits=limits) if rule.alert in FIGURES else ""  # the exported figure is there only when it may be
    beyond = f"{figure} {'>=' if rule.at_limit else '>'} {rule.limit(limits):g}{least}"
    if rule.clears_at is None:
        return beyond
    fires = f'ALERTS{{alertname="{rule.alert}",severity="{rule.level}",alertstate="firing"}}'
    return f"({beyond}) or ({figure} > {rule.clears_at(limits):g}{least} and on (model) {fires})"


def rules(policy: Policy) -> dict[str, Any]:
    """A rule file of Prometheus 2.42 or later (`keep_firing_for`)."""
    recording = [{"record": name, "expr": expr} for name, expr in _recording(policy).items()]
    alerting = [_alert(rule, policy) for rule in RULES]
    return {"groups": [{"name": "mlrunbook", "interval": INTERVAL, "rules": recording + alerting}]}  # in turn: alerts read the figures


def as_yaml(policy: Policy) -> str:
    import yaml

    head = "# Made by `mlrunbook policy prometheus` from the policy (runbook.yaml): change the policy, not this file.\n"
    if own := [name for name, said in policy.models.items() if said.alerts]:
        head += (
            f"# These rules compare every model with the limits at the top of the policy. Write rules of your own for {', '.join(own)}:\n"
        )
        head += "# Prometheus does not know the limits that models.NAME.alerts sets.\n"
    return head + yaml.safe_dump(rules(policy), sort_keys=False, width=140, allow_unicode=True)


def _alert(rule: Rule, policy: Policy) -> dict[str, Any]:
    limits = policy.alerts
    fires_after_s, over = rule.fires_after_s(limits), "" if rule.window == NOW else f" in {rule.window}"
    made: dict[str, Any] = {"alert": rule.alert, "expr": expression(rule, policy)}
    if fires_after_s:
        made["for"] = _duration(fires_after_s)
    if limits.clears_after_s:
        made["keep_firing_for"] = _duration(limits.clears_after_s)
    made["labels"] = {"severity": rule.level.value}
    limit = f"{rule.title} {'>=' if rule.at_limit else '>'} {rule.limit(limits):g}" if rule.limit(limits) else rule.title
    made["annotations"] = {
        "summary": _SUMMARY.get(rule.alert, f"{{{{ $labels.model }}}}: {rule.title}"),
        "description": f"{limit}{over}; least data: {rule.least.words(limits)}",
    }
    return made


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"
