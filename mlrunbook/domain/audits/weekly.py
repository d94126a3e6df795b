"""Weekly: "Review performance metrics dashboard"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlrunbook.domain.audits.records import action_items, incidents_section
from mlrunbook.domain.audits.section import (
    Bars,
    Estimate,
    Intervals,
    Lines,
    Matrix,
    Opens,
    Section,
    Table,
    Verdict,
    at_most,
    difference,
    figure,
    listed,
    missing,
    seconds,
    share,
)
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.evaluation.drift import DriftVerdict
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.outcomes import judge_feed
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, ModelMetrics, f1_interval, percent, wilson, z_value
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.incident import Incident, IncidentType, Severity
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.tally import all_binary

DEGRADED = IncidentType.PERFORMANCE_DEGRADATION


@dataclass(frozen=True)
class FiringAlert:
    name: str
    level: str
    since: datetime
    summary: str


@dataclass(frozen=True)
class WeeklyFacts:
    """`metrics`: the period against the model's baseline. `history` by day, the period's days included. `drift`: its inputs against the
    baseline's."""

    now: datetime
    metrics: ModelMetrics | Missing
    history: Sequence[DayFigures] | Missing
    drift: DriftVerdict | Missing
    alerts: Sequence[FiringAlert] | Missing
    incidents: Sequence[Incident] = ()
    items: Sequence[Item] = ()
    causes: Mapping[str, str] = field(default_factory=dict)  # by incident id


def weekly(facts: WeeklyFacts, policy: Policy) -> tuple[Section, ...]:
    return (
        performance(facts.metrics, facts.history, policy),
        *_rates(facts, policy),
        _outcomes(facts.metrics),
        _risk_levels(facts.metrics, policy),
        _segments(facts.metrics, policy),
        _drift(facts.drift, policy),
        _alerts(facts.alerts, facts.now, policy),
        incidents_section(facts.incidents, facts.causes, facts.now, policy, "week"),
        action_items(facts.items, facts.now),
    )


def performance(metrics: ModelMetrics | Missing, history: Sequence[DayFigures] | Missing, policy: Policy) -> Section:
    key, title = "performance", "F1, precision and recall"
    if isinstance(metrics, Missing):
        return missing(key, title, metrics)
    alerts, now, before = policy.alerts, metrics.current.confusion, metrics.baseline.confusion
    graded = grade_metrics(metrics, policy.severity)
    verdict = _of_evidence(graded.evidence)
    charts: list[Lines | Matrix] = []
    if not isinstance(history, Missing) and history:
        # A day below the least counts says nothing; drawn, it would look like a fall.
        shown = [d if d.confusion.positives >= alerts.min_positives else None for d in history]
        series = {
            "F1": tuple(d.confusion.f1 if d else None for d in shown),
            "precision": tuple(d.confusion.precision if d else None for d in shown),
            "recall": tuple(d.confusion.recall if d else None for d in shown),
        }
        limit = before.f1 * (1 - alerts.f1_drop_warning) if before.f1 else None
        charts.append(
            Lines(
                "F1, precision and recall by day",
                tuple(d.day for d in history),
                series,
                limit=limit,
                limit_name="F1 limit",
                since=metrics.current.since.date(),
            )
        )
    if now.n:
        charts.append(Matrix("Predictions against outcomes", now))
    return Section(
        key,
        title,
        verdict,
        graded.reason,
        tuple(charts),
        (_ratios(now, before, policy.severity.drops.confidence),) if now.n else (),
        opens=Opens(DEGRADED, graded.severity) if graded.severity else None,
    )


def _of_evidence(evidence: Evidence) -> Verdict:
    return {Evidence.REAL: Verdict.FAIL, Evidence.FALSE_ALARM: Verdict.PASS}.get(evidence, Verdict.NOT_ENOUGH_DATA)


def _ratios(now: Confusion, before: Confusion, confidence: float) -> Table:
    z = z_value(confidence)
    intervals = {
        "F1": f1_interval(now, confidence),
        "Precision": wilson(now.tp, now.tp + now.fp, z),
        "Recall": wilson(now.tp, now.positives, z),
    }
    values = {"F1": (now.f1, before.f1), "Precision": (now.precision, before.precision), "Recall": (now.recall, before.recall)}
    rows = tuple(
        (name, figure(is_), "-" if is_ is None else f"{intervals[name][0]:.2f} to {intervals[name][1]:.2f}", figure(was))
        for name, (is_, was) in values.items()
    )
    return Table("In figures", ("Metric", "Period", f"{percent(confidence)} interval", "Baseline"), rows)


def _rates(facts: WeeklyFacts, policy: Policy) -> tuple[Section, ...]:
    """Latency, errors and nulls: each with its alert's limit."""
    titles = {"latency": "Inference latency", "errors": "Error rate", "nulls": "Feature null rate"}
    if isinstance(facts.metrics, Missing):
        return tuple(missing(key, title, facts.metrics) for key, title in titles.items())
    now, alerts = facts.metrics.current, policy.alerts
    history = () if isinstance(facts.history, Missing) else facts.history
    at = tuple(d.day for d in history)
    n, least = now.predictions, alerts.min_predictions
    asked = least if now.requests is None else now.requests  # a server that fails every request makes no prediction
    latency_s = None if now.latency_p95_ms is None else now.latency_p95_ms / 1000
    judged = {
        "latency": at_most("latency (p95)", latency_s, alerts.latency_warning_s, n, least, seconds),
        "errors": at_most("error rate", now.error_rate, alerts.error_rate_warning, asked, least, share),
        "nulls": at_most("worst feature's null rate", now.null_rate, alerts.null_rate_warning, n, least, share),
    }
    series = {
        "latency": ("p95 latency by day", " s", tuple(_thousandth(d.latency_p95_ms) for d in history), alerts.latency_warning_s),
        "errors": ("Error rate by day", " %", tuple(_hundred(d.error_rate) for d in history), 100 * alerts.error_rate_warning),
        "nulls": ("Null rate by day", " %", tuple(_hundred(d.null_rate) for d in history), 100 * alerts.null_rate_warning),
    }
    opens = {
        "latency": Opens(DEGRADED, Severity.MEDIUM),
        "errors": Opens(IncidentType.INFRASTRUCTURE, Severity.MEDIUM),
        "nulls": Opens(DEGRADED, Severity.LOW),
    }
    made = []
    since = now.since.date()
    for key, title in titles.items():
        chart_title, unit, values, limit = series[key]
        charts = (Lines(chart_title, at, {title: values}, unit, limit, since=since),) if any(v is not None for v in values) else ()
        made.append(Section(key, title, *judged[key], charts=charts, opens=opens[key]))
    return tuple(made)


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _hundred(value: float | None) -> float | None:
    return None if value is None else value * 100


def _outcomes(metrics: ModelMetrics | Missing) -> Section:
    key, title = "outcomes", "Ground truth"
    if isinstance(metrics, Missing):
        return missing(key, title, metrics)
    feed = judge_feed(metrics)
    verdict = {True: Verdict.FAIL, False: Verdict.PASS, None: Verdict.NOT_ENOUGH_DATA}[feed.stalled]
    return Section(key, title, verdict, feed.sentence, opens=Opens(IncidentType.INFRASTRUCTURE, Severity.MEDIUM))


def _risk_levels(metrics: ModelMetrics | Missing, policy: Policy) -> Section:
    """Accuracy by risk level. A fall counts when it is over the limit and its interval (Newcombe 1998) excludes 0, at a confidence
    divided by the number of levels (Bonferroni)."""
    key, title = "risk_levels", "Accuracy by risk level"
    if isinstance(metrics, Missing):
        return missing(key, title, metrics)
    confidence, limit = policy.severity.drops.confidence, policy.audits.accuracy_drop
    levels = sorted(metrics.current.by_risk_level)
    known = {name: (metrics.baseline.by_risk_level.get(name, Confusion()), metrics.current.by_risk_level[name]) for name in levels}
    judged = {name: pair for name, pair in known.items() if min(pair[0].n, pair[1].n) >= policy.alerts.min_labelled}
    z = z_value(confidence)
    rows, estimates, fallen, doubtful = [], [], list[str](), list[str]()
    for name, (before, now) in known.items():
        right, was_right = now.tp + now.tn, before.tp + before.tn
        value, was = (right / now.n if now.n else None), (was_right / before.n if before.n else None)
        low, high = wilson(right, now.n, z)
        rows.append((name, str(now.n), share(value), f"{share(low)} to {share(high)}" if now.n else "-", share(was)))
        estimates.append(Estimate(name, value if name in judged else None, low, high, was))
        if name in judged:
            level = 1 - (1 - confidence) / len(judged)
            size, least, _ = difference((was_right, before.n), (right, now.n), level)
            if size > limit:
                (fallen if least > 0 else doubtful).append(f"{name} fell from {share(was)} to {share(value)}")
    table = Table("Accuracy", ("Risk level", "Outcomes", "Accuracy", f"{percent(confidence)} interval", "Baseline"), tuple(rows))
    charts = (Intervals("Accuracy by risk level", tuple(estimates), "baseline"),) if judged else ()
    tables = (table,) if rows else ()
    if fallen:
        sentence = f"accuracy of {', '.join(fallen)}, by more than {share(limit)}, beyond chance"
        return Section(key, title, Verdict.FAIL, sentence, charts, tables, Opens(DEGRADED, Severity.MEDIUM))
    if doubtful:
        sentence = f"accuracy of {', '.join(doubtful)}, by more than {share(limit)}, but chance may explain it"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables)
    if not judged:
        sentence = f"no risk level has {policy.alerts.min_labelled} known outcomes in the period and in the baseline"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables)
    left = [name for name in levels if name not in judged]
    sentence = f"no accuracy fell by more than {share(limit)} ({', '.join(judged)})" + (f"; not judged: {listed(left)}" if left else "")
    return Section(key, title, Verdict.PASS, sentence, charts, tables)


def _segments(metrics: ModelMetrics | Missing, policy: Policy) -> Section:
    key, title = "segments", "F1 by asset type"
    if isinstance(metrics, Missing):
        return missing(key, title, metrics)
    drop, now, before = policy.severity.drops, all_binary(metrics.current.by_asset_type), all_binary(metrics.baseline.by_asset_type)
    if not now:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, "the platform knows no outcome by asset type in this period")
    found = judge_asset_types(metrics, drop)
    verdict = {True: Verdict.FAIL, False: Verdict.PASS, None: Verdict.NOT_ENOUGH_DATA}[found.fell]
    estimates = tuple(
        Estimate(name, c.f1 if c.positives >= drop.min_positives else None, *f1_interval(c, drop.confidence), _f1(before.get(name)))
        for name, c in sorted(now.items())
    )
    said = {s.name: s.sentence.removeprefix(f"{s.name}: ") for s in found.segments}
    rows = tuple((name, str(c.n), str(c.positives), figure(c.f1), said.get(name, "")) for name, c in sorted(now.items()))
    severities = [s.verdict.severity for s in found.fallen if s.verdict and s.verdict.severity]
    worst = max(severities, key=lambda s: s.rank, default=Severity.MEDIUM)
    return Section(
        key,
        title,
        verdict,
        found.sentence,
        (Intervals("F1 by asset type", estimates, "baseline"),),
        (Table("Asset types", ("Type", "Outcomes", "Failures", "F1", "Judgement"), rows),),
        Opens(DEGRADED, worst),
    )


def _f1(counts: Confusion | None) -> float | None:
    return counts.f1 if counts else None


def _drift(drift: DriftVerdict | Missing, policy: Policy) -> Section:
    key, title = "drift", "Feature drift"
    if isinstance(drift, Missing):
        return missing(key, title, drift)
    verdict = {True: Verdict.FAIL, False: Verdict.PASS, None: Verdict.NOT_ENOUGH_DATA}[drift.drifted]
    columns = sorted(drift.columns.items(), key=lambda item: -(item[1].effect or 0.0))
    judged = [(name, c) for name, c in columns if c.effect is not None]
    charts: tuple[Bars, ...] = ()
    if judged:
        parts = {"distance": tuple(c.effect or 0.0 for _, c in judged)}
        names = tuple(name for name, _ in judged)
        charts = (Bars("Distance from the baseline, by feature", names, parts, limit=policy.alerts.drift_effect),)
    rows = tuple((name, figure(c.effect), _signed(c.shift_sd), c.sentence) for name, c in columns)
    tables = (Table("Features", ("Feature", "KS or JS distance", "Shift, sd", "Judgement"), rows),) if rows else ()
    return Section(key, title, verdict, drift.sentence, charts, tables, Opens(DEGRADED, Severity.MEDIUM))


def _signed(value: float | None) -> str:
    """With its sign; nothing is written -0.0."""
    return "-" if value is None else f"{round(value, 1) + 0.0:+.1f}"


def _alerts(alerts: Sequence[FiringAlert] | Missing, now: datetime, policy: Policy) -> Section:
    """No incident of its own: an alert opens one when it fires."""
    key, title = "alerts", "Open alerts"
    if isinstance(alerts, Missing):
        return missing(key, title, alerts)
    if not alerts:
        return Section(key, title, Verdict.PASS, "no alert fires")
    limit = timedelta(hours=policy.audits.alert_open_max_h)
    ordered = sorted(alerts, key=lambda a: a.since)
    old = [a for a in ordered if now - a.since > limit]
    rows = tuple((a.name, a.level, f"{a.since:%Y-%m-%d %H:%M}", in_words(now - a.since), a.summary) for a in ordered)
    table = Table("Alerts that fire now", ("Alert", "Level", "Since, UTC", "For", "Summary"), rows)
    if old:
        sentence = f"{listed([a.name for a in old])} fires for more than {policy.audits.alert_open_max_h} h"
        return Section(key, title, Verdict.FAIL, sentence, tables=(table,))
    return Section(key, title, Verdict.PASS, f"{len(alerts)} fire, none for more than {policy.audits.alert_open_max_h} h", tables=(table,))
