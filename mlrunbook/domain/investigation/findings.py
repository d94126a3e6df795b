"""Step 3: the runbook's investigation checklist, one finding an item.

Evaluators take what was read, or `Missing` when the source is absent or failed; that always gives `unknown`, never `ok`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import Any

from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.outcomes import span
from mlrunbook.domain.evaluation.performance import (
    Confusion,
    ModelMetrics,
    Verdict,
    grade_drop,
    percent,
    wilson,
    z_value,
)
from mlrunbook.domain.evaluation.prediction_rows import confusion_of, drift_between, feature_columns, in_time_order
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.observed import Change, FeatureServerAnswer, Instance, Missing, Prediction, Resources
from mlrunbook.domain.policy.judging import F1, DriftPolicy, DropPolicy, SeverityPolicy
from mlrunbook.domain.records import Record, Recorded


class State(StrEnum):
    OK = "ok"
    SUSPECT = "suspect"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ChecklistItem:
    key: str
    group: str
    title: str  # the runbook's words


CHECKLIST: tuple[ChecklistItem, ...] = tuple(
    ChecklistItem(f"{group.lower().replace(' ', '_')}.{key}", group, title)
    for group, items in {
        "Recent Changes": {
            "model_deployment": "Model deployment in last 7 days?",
            "feature_store_updates": "Feature store updates?",
            "infrastructure_changes": "Infrastructure changes?",
            "data_pipeline_changes": "Data pipeline changes?",
        },
        "Model Performance": {
            "metrics_dashboard": "Check metrics dashboard",
            "current_vs_historical": "Compare current vs historical performance",
            "accuracy_by_risk_level": "Check accuracy by risk level",
            "confusion_matrix": "Review confusion matrix",
        },
        "Data Quality": {
            "feature_distributions": "Check feature distributions (data drift)",
            "feature_store_connectivity": "Verify feature store connectivity",
            "missing_features": "Check for missing/null features",
            "data_freshness": "Validate data freshness",
        },
        "Infrastructure": {
            "server_logs": "Check model server logs",
            "resource_utilization": "Verify resource utilization (CPU, memory)",
            "inference_latency": "Check inference latency metrics",
            "feature_store_availability": "Verify Feast feature store availability",
        },
        "Ground Truth": {
            "predictions_vs_outcomes": "Review recent predictions vs actual outcomes",
            "error_patterns": "Check for pattern in false positives/negatives",
            "affected_asset_types": "Identify affected asset types",
        },
    }.items()
    for key, title in items.items()
)
KEYS = frozenset(item.key for item in CHECKLIST)
AHEAD = timedelta(minutes=5)  # no two clocks differ by more
UNEXPECTED = "unexpected"  # in the value of a finding: the kind of the error that stopped its check


@dataclass(frozen=True)
class Finding:
    """One item's answer. `source` says where it was read; `value` is JSON-able."""

    key: str
    state: State
    source: str
    value: Any
    sentence: str

    def __post_init__(self) -> None:
        if self.key not in KEYS:
            raise ValueError(f"not an item of the checklist: {self.key}")


@dataclass(frozen=True)
class Findings(Recorded, key=Record.FINDINGS):
    """What one source has answered."""

    findings: tuple[Finding, ...]

    @property
    def sentences(self) -> list[str]:
        return [f"{one.state}: {one.sentence}" for one in self.findings]

    @property
    def failed(self) -> list[str]:
        """The checks that an error nobody expected has stopped, with their findings."""
        broken = {one.key: one.sentence for one in self.findings if isinstance(one.value, dict) and UNEXPECTED in one.value}
        return [f"{item.title} ({broken[item.key]})" for item in CHECKLIST if item.key in broken]


def finding(key: str, source: str, suspect: bool | None, value: Any, sentence: str) -> Finding:
    """`suspect` None: the source answered, but not enough to say."""
    state = State.UNKNOWN if suspect is None else State.SUSPECT if suspect else State.OK
    return Finding(key, state, source, value, sentence)


def unknown(key: str, source: str, missing: Missing) -> Finding:
    value = {UNEXPECTED: missing.unexpected} if missing.unexpected else None
    return Finding(key, State.UNKNOWN, source, value, f"not known: {missing.reason}")


# --- Recent Changes ---------------------------------------------------------------------------------------------------------

_KINDS = {
    "recent_changes.model_deployment": ("deployment", "rollback"),
    "recent_changes.feature_store_updates": ("feature_store",),
    "recent_changes.infrastructure_changes": ("infrastructure", "config"),
    "recent_changes.data_pipeline_changes": ("data_pipeline",),
}
_PLATFORM_RECORDS = frozenset({"deployment", "rollback", "config"})


def recent_changes(
    changes: Sequence[Change] | Missing, now: datetime, *, recorded: frozenset[str] = _PLATFORM_RECORDS, days: int = 7
) -> list[Finding]:
    """The four items of Recent Changes. `recorded` names the kinds the source writes down: silence about any other kind is unknown."""
    source = "change history of the model platform, and what other systems told"
    if isinstance(changes, Missing):
        return [unknown(key, source, changes) for key in _KINDS]
    since = now - timedelta(days=days)
    findings = []
    for key, kinds in _KINDS.items():
        hits = sorted((c for c in changes if c.kind in kinds and since <= c.at <= now), key=lambda c: c.at, reverse=True)
        value = [{"kind": c.kind, "ref": c.ref, "author": c.author, "at": c.at.isoformat()} for c in hits]
        name = kinds[0].replace("_", " ")
        if hits:
            newest = hits[0]
            latest = f"{newest.kind} {newest.ref} by {newest.author}, {ago(now - newest.at)} ago"
            sentence = f"{len(hits)} in the last {days} days, the newest: {latest}"
            findings.append(finding(key, source, True, value, sentence))
        elif recorded.intersection(kinds):
            findings.append(finding(key, source, False, value, f"no {name} change in the last {days} days"))
        else:
            findings.append(unknown(key, source, Missing(f"{name} changes are not recorded")))
    return findings


# --- Model Performance ------------------------------------------------------------------------------------------------------


def model_performance(metrics: ModelMetrics | Missing, severity: SeverityPolicy | None = None) -> list[Finding]:
    """The four items of Model Performance."""
    source, group = "metrics dashboard", "model_performance."
    if isinstance(metrics, Missing):
        return [unknown(i.key, source, metrics) for i in CHECKLIST if i.key.startswith(group)]
    severity = severity or SeverityPolicy()
    now, policy = metrics.current.tally, severity.drops
    verdict = grade_metrics(metrics, severity)
    suspect = _suspect(verdict)
    figures = {rule.name: now.figure(rule.name) for rule in policy.rules_for(now.metrics)}
    words = ", ".join(f"{name} {now.shown(value)}" if value is not None else f"{name} undefined" for name, value in figures.items())
    counts = f"{metrics.current.predictions} predictions, {now.n} with known outcome"
    value = figures | {"predictions": metrics.current.predictions, "labelled": metrics.current.labelled}
    drop = {"f1_drop": verdict.drop, "severity": verdict.severity}
    return [
        finding(group + "metrics_dashboard", source, suspect, value, f"{words} ({counts})"),
        finding(group + "current_vs_historical", source, suspect, drop, verdict.reason),
        _accuracy_by_risk_level(source, metrics, policy),
        _confusion_matrix(source, metrics, suspect),
    ]


def _confusion_matrix(source: str, metrics: ModelMetrics, suspect: bool | None) -> Finding:
    key, now = "model_performance.confusion_matrix", metrics.current.tally
    if not isinstance(now, Confusion):
        return unknown(key, source, Missing(f"a {now.task} model has none"))
    matrix = {"tp": now.tp, "fp": now.fp, "fn": now.fn, "tn": now.tn}
    missed = f"of {now.positives} failures {now.tp} were caught and {now.fn} missed; of {now.tp + now.fp} alarms {now.fp} were false"
    return finding(key, source, suspect, matrix, missed)


def _accuracy_by_risk_level(source: str, metrics: ModelMetrics, policy: DropPolicy) -> Finding:
    """A level is worse when its accuracy fell by more than the F1 limit and its Wilson upper bound is below the baseline's."""
    accuracies: dict[str, float] = {}
    worse = []
    for level, now in sorted(metrics.current.by_risk_level.items()):
        before = metrics.baseline.by_risk_level.get(level, Confusion())
        if min(now.n, before.n) < policy.min_positives:
            continue
        right, was = now.tp + now.tn, (before.tp + before.tn) / before.n
        accuracies[level] = right / now.n
        if right / now.n < was * (1 - policy.most(F1)) and wilson(right, now.n, z_value(policy.confidence))[1] < was:
            worse.append(f"{level} {was:.2f} -> {right / now.n:.2f}")
    if not accuracies:
        sentence = f"no risk level has {policy.min_positives} known outcomes now and in the baseline"
        return finding("model_performance.accuracy_by_risk_level", source, None, {}, sentence)
    listed = ", ".join(f"{level} {value:.2f}" for level, value in accuracies.items())
    sentence = f"accuracy fell at risk level {'; '.join(worse)}" if worse else f"accuracy by risk level as in the baseline: {listed}"
    return finding("model_performance.accuracy_by_risk_level", source, bool(worse), accuracies, sentence)


def _suspect(verdict: Verdict) -> bool | None:
    return verdict.is_real if verdict.is_decided else None


# --- Data Quality -----------------------------------------------------------------------------------------------------------


def feature_distributions(
    recent: Sequence[Prediction] | Missing, reference: Sequence[Prediction] | Missing, policy: DriftPolicy | None = None
) -> Finding:
    """Drift of recent features against a reference sample (`drift.Reference`). Value: what was found, a column."""
    key, source = "data_quality.feature_distributions", "prediction log"
    for sample in (recent, reference):
        if isinstance(sample, Missing):
            return unknown(key, source, sample)
    assert not isinstance(recent, Missing)
    assert not isinstance(reference, Missing)
    if not recent or not reference:  # a column of no rows is not gone
        return finding(key, source, None, {}, f"{len(recent)} recent and {len(reference)} reference rows: nothing to compare")
    verdict = drift_between(in_time_order(reference), in_time_order(recent), policy)
    return finding(key, source, verdict.drifted, verdict.as_dict(), verdict.sentence)


def missing_features(
    recent: Sequence[Prediction] | Missing,
    reference: Sequence[Prediction] | Missing = (),
    *,
    limit: float = 0.05,
    min_rows: int = 20,
) -> Finding:
    """The share of nulls a feature, infinite numbers among them; suspect over 5 % ("Automated Alerts"), and that much more than in the
    `reference`: what was always missing in a third of the rows is no trouble. Without enough rows of it the share alone counts."""
    key, source = "data_quality.missing_features", "prediction log"
    if isinstance(recent, Missing):
        return unknown(key, source, recent)
    if len(recent) < min_rows:
        return finding(key, source, None, {}, f"only {len(recent)} recent predictions, {min_rows} needed")
    before = {} if isinstance(reference, Missing) or len(reference) < min_rows else _null_shares(reference)
    shares = _null_shares(recent)
    bad = sorted((n for n, share in shares.items() if share > limit and share - before.get(n, 0.0) > limit), key=lambda n: -shares[n])
    was = {name: f", {percent(before[name])} in the baseline" if name in before else "" for name in shares}
    if bad:
        listed = ", ".join(f"{name} {percent(shares[name])}{was[name]}" for name in bad)
        return finding(key, source, True, shares, f"missing values over {percent(limit)}: {listed}")
    usual = ", ".join(f"{name} {percent(share)}{was[name]}" for name, share in shares.items() if share > limit)
    if usual:
        return finding(key, source, False, shares, f"missing values as in the baseline: {usual}")
    return finding(key, source, False, shares, f"no feature has over {percent(limit)} missing values in {len(recent)} predictions")


def _null_shares(rows: Sequence[Prediction]) -> dict[str, float]:
    return {name: sum(_is_null(v) for v in values) / len(rows) for name, values in feature_columns(rows).items()}


def data_freshness(recent: Sequence[Prediction] | Missing, now: datetime, *, limit: timedelta = timedelta(hours=1)) -> Finding:
    """The age of the newest prediction."""
    key, source = "data_quality.data_freshness", "prediction log"
    if isinstance(recent, Missing):
        return unknown(key, source, recent)
    if not recent:
        return finding(key, source, None, None, "the prediction log is empty: no data to date")
    age = now - max(p.at for p in recent)
    if age < -AHEAD:
        ahead = f"the newest prediction is dated {ago(-age)} in the future: whoever logs it has another time zone, or a clock that is wrong"
        return finding(key, source, True, {"age_s": round(age.total_seconds(), 1)}, ahead)
    return finding(key, source, age > limit, {"age_s": round(age.total_seconds(), 1)}, f"the newest prediction is {ago(age)} old")


def feature_store(answer: FeatureServerAnswer | Missing) -> list[Finding]:
    """Connectivity (a read works) and availability (the server says it is up)."""
    source = "Feast feature server"
    connectivity, availability = "data_quality.feature_store_connectivity", "infrastructure.feature_store_availability"
    if isinstance(answer, Missing):
        return [unknown(connectivity, source, answer), unknown(availability, source, answer)]
    detail = f": {answer.detail}" if answer.detail else ""
    words = {True: "a feature read works", False: "a feature read fails", None: "no feature read was tried"}[answer.read_ok]
    read = finding(
        connectivity, source, None if answer.read_ok is None else not answer.read_ok, {"read_ok": answer.read_ok}, words + detail
    )
    up = "answers its health check" if answer.healthy else "fails its health check"
    down = not answer.healthy or answer.read_ok is False  # a store that fails reads is not available, whatever its health check says
    return [read, finding(availability, source, down, {"healthy": answer.healthy}, f"the feature server {up}{detail}")]


# --- Infrastructure ---------------------------------------------------------------------------------------------------------

# A line's level word, or an exception's closing line; "0 errors" and paths such as /errors.log are no match.
_BAD_LINE = re.compile(r"(?<![\w/.])(?:ERROR|CRITICAL|FATAL|Traceback \(most recent call last\))(?![\w/.])")


def server_logs(text: str | Missing, instances: Sequence[Instance] = (), since: datetime | None = None) -> Finding:
    """Error and traceback lines in the tail of the model server's log (`since`: none older was read), and why instances of it do not
    serve. A server that has written nothing since then has no error there."""
    key, source = "infrastructure.server_logs", "model server log"
    began = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
    troubled = [i for i in instances if i.problem]
    if troubled:
        lines = [] if isinstance(text, Missing) else _lines(text)
        value = {
            "lines": len(lines),
            "errors": sum(bool(_BAD_LINE.search(line)) for line in lines),
            "problems": [i.problem for i in troubled],
        }
        first = f"{troubled[0].name}: {troubled[0].problem}"
        return finding(key, source, True, value, f"{len(troubled)} of {len(instances)} servers have trouble, {first[:200]}")
    if isinstance(text, Missing):
        return unknown(key, source, text)
    lines = _lines(text)
    if not lines:
        empty = f"the model server has logged nothing{began}" if since else "the model server's log is empty"
        return finding(key, source, False if since else None, {"lines": 0, "errors": 0, "last": None} if since else None, empty)
    bad = [line for line in lines if _BAD_LINE.search(line)]
    value = {"lines": len(lines), "errors": len(bad), "last": bad[-1][:300] if bad else None}
    sentence = f"{len(bad)} error lines in the last {len(lines)}{began}" + (f", the last: {bad[-1].strip()[:120]}" if bad else "")
    return finding(key, source, bool(bad), value, sentence)


def _lines(text: str) -> list[str]:
    """Without the titles that tell the logs of several servers apart."""
    return [line for line in text.splitlines() if not line.startswith("==> ")]


def resource_utilization(resources: Resources | Missing, *, limit: float = 0.9) -> Finding:
    key, source = "infrastructure.resource_utilization", "serving runtime"
    if isinstance(resources, Missing):
        return unknown(key, source, resources)
    value = {"cpu": resources.cpu, "memory": resources.memory}
    known = [(name, share) for name, share in (("CPU", resources.cpu), ("memory", resources.memory)) if share is not None]
    if not known:
        return unknown(key, source, Missing("the server has no limit of CPU or memory that its use could be compared with"))
    sentence = ", ".join(f"{name} {percent(share)}" for name, share in known) + " of what the server may use"
    return finding(key, source, max(share for _, share in known) > limit, value, sentence)


def inference_latency(metrics: ModelMetrics | Missing, *, limit_ms: float = 2000.0) -> Finding:
    """p95 against the SLA ("Inference latency > 2s")."""
    key, source = "infrastructure.inference_latency", "metrics dashboard"
    if isinstance(metrics, Missing):
        return unknown(key, source, metrics)
    p95 = metrics.current.latency_p95_ms
    if p95 is None or not metrics.current.predictions:
        return finding(key, source, None, None, "no latency was measured in this window")
    sentence = f"95 % of {metrics.current.predictions} predictions took at most {p95:.0f} ms (SLA {limit_ms:.0f} ms)"
    return finding(key, source, p95 > limit_ms, {"p95_ms": p95}, sentence)


# --- Ground Truth -----------------------------------------------------------------------------------------------------------


def predictions_vs_outcomes(
    recent: Sequence[Prediction] | Missing, baseline: Confusion | Missing, policy: DropPolicy | None = None
) -> Finding:
    """The logged predictions with a known outcome, graded against the baseline."""
    key, source = "ground_truth.predictions_vs_outcomes", "prediction log and outcomes"
    if isinstance(recent, Missing):
        return unknown(key, source, recent)
    counts = confusion_of(recent)
    if counts.n == 0:
        return finding(key, source, None, {"labelled": 0}, f"none of {len(recent)} recent predictions has a known outcome yet")
    wrong = counts.fp + counts.fn
    value = {"labelled": counts.n, "wrong": wrong}
    sentence = f"{wrong} of {counts.n} recent predictions with a known outcome were wrong"
    if isinstance(baseline, Missing):
        return finding(key, source, None, value, f"{sentence}; no baseline: {baseline.reason}")
    verdict = grade_drop(baseline, counts, policy or DropPolicy())
    return finding(key, source, _suspect(verdict), value, f"{sentence}; {verdict.reason}")


def error_patterns(recent: Sequence[Prediction] | Missing, *, min_errors: int = 30, confidence: float = 0.95) -> Finding:
    """Do the errors gather at an asset type, or on one side (false positives or negatives)?

    A type stands out when the Wilson lower bound of its error rate is above the overall rate, Bonferroni-corrected for the
    number of types. Which side dominates is told, not judged.
    """
    key, source = "ground_truth.error_patterns", "prediction log and outcomes"
    if isinstance(recent, Missing):
        return unknown(key, source, recent)
    by_type = _by_asset_type(recent)
    total = sum(by_type.values(), Confusion())
    wrong = total.fp + total.fn
    value = {name: {"fp": c.fp, "fn": c.fn, "labelled": c.n} for name, c in sorted(by_type.items())}
    sides = f"{total.fp} false positives and {total.fn} false negatives"
    if wrong < min_errors:
        return finding(key, source, None, value, f"{sides} in {total.n} known outcomes: too few for a pattern ({min_errors} needed)")
    z = z_value(1 - (1 - confidence) / len(by_type))
    worst = [name for name, c in sorted(by_type.items()) if wilson(c.fp + c.fn, c.n, z)[0] > wrong / total.n]
    listed = ", ".join(f"{name} ({value[name]['fp']} FP, {value[name]['fn']} FN of {value[name]['labelled']})" for name in worst)
    if worst:
        return finding(key, source, True, value, f"{sides}; errors gather at asset type {listed}")
    return finding(key, source, False, value, f"{sides}, spread evenly over {len(by_type)} asset types")


def affected_asset_types(metrics: ModelMetrics | Missing, policy: DropPolicy | None = None) -> Finding:
    """Which asset types lost performance (`segments.judge_asset_types`). Overall F1 often hides one."""
    key, source = "ground_truth.affected_asset_types", "metrics dashboard"
    if isinstance(metrics, Missing):
        return unknown(key, source, metrics)
    verdict = judge_asset_types(metrics, policy or DropPolicy())
    value = {
        s.name: {"evidence": s.verdict.evidence, "f1_drop": s.verdict.drop, "adjusted_p": s.adjusted_p} if s.verdict else None
        for s in verdict.segments
    }
    return finding(key, source, verdict.fell, value, verdict.sentence)


# --- helpers ----------------------------------------------------------------------------------------------------------------


def _by_asset_type(predictions: Sequence[Prediction]) -> dict[str, Confusion]:
    groups: dict[str, list[Prediction]] = {}
    for p in predictions:
        if p.outcome is not None:
            groups.setdefault(p.asset_type, []).append(p)
    return {name: confusion_of(group) for name, group in groups.items()}


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not isfinite(value))


def ago(age: timedelta) -> str:
    return span(max(age.total_seconds(), 0))
