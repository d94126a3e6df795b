"""What the measurements of one look show past a limit of the policy, each with its severity and the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlrunbook.domain.evaluation.fairness import Fairness, FairnessVerdict
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.outcomes import judge_feed
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics, percent, wilson, z_value
from mlrunbook.domain.evaluation.rewritten import as_first_reported, judge_rewrites
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.judging import SeverityPolicy

FEATURES_OK = "ok"


@dataclass(frozen=True)
class Signal:
    severity: Severity
    type: IncidentType
    reason: str
    dangerous: bool = False
    safety_risk: bool = False
    excessive_false_positives: bool = False
    by_outcomes: bool = False  # worth no more than the outcomes it rests on


def signals(metrics: ModelMetrics | None, status: ServingStatus | None, policy: SeverityPolicy) -> Iterator[Signal]:
    """Everything measured that is past a limit."""
    if status is not None:
        yield from _of_serving(status)
    if metrics is not None:
        yield from _of_dangerous_predictions(metrics, policy)
        yield from _of_performance(metrics, policy)
        yield from _of_service_level(metrics, policy)
        yield from _of_rewritten_outcomes(metrics, policy)


def unfair(metrics: ModelMetrics, policy: SeverityPolicy, groups: FairnessVerdict) -> Iterator[Signal]:
    """Groups further apart than allowed are medium; a group that fell as far as a high incident does, beyond chance, is one."""
    if groups.verdict is Fairness.UNFAIR:
        yield Signal(Severity.MEDIUM, IncidentType.BIAS_FAIRNESS, f"{groups.sentence}: medium", by_outcomes=True)
    segments = judge_asset_types(metrics, policy.drops)
    for fallen in segments.fallen:
        if fallen.verdict and fallen.verdict.severity:
            yield Signal(fallen.verdict.severity, IncidentType.BIAS_FAIRNESS, fallen.sentence, by_outcomes=True)


def hints_at_worse(metrics: ModelMetrics, policy: SeverityPolicy, worst: Signal) -> bool:
    """The counts hint at more than the worst signal, and are too few to prove it."""
    if worst.type is IncidentType.BIAS_FAIRNESS and not worst.severity.at_least(Severity.HIGH):
        segments = judge_asset_types(metrics, policy.drops)
        rules = policy.drops.rules_for(metrics.current.tally.metrics)
        drops = (s.verdict.drop for s in segments.segments if s.verdict and not s.fell)
        return any(drop is not None and rules[0].severity(drop) is Severity.HIGH for drop in drops)
    return _hints_at_danger(metrics, policy)


def enough_requests(now: WindowMetrics, policy: SeverityPolicy) -> bool:
    """A server that fails every request makes no prediction: what failed counts too. Not one answer is enough where nobody counts."""
    return now.requests is None or now.requests >= policy.min_predictions


def _of_serving(status: ServingStatus) -> Iterator[Signal]:
    if not status.server_healthy:
        lost = (
            f"cannot load the version that traffic is routed to ({status.unloadable_route})"
            if status.unloadable_route
            else "does not answer"
        )
        yield Signal(Severity.CRITICAL, IncidentType.INFRASTRUCTURE, f"the model server {lost}: critical, service outage")
    if status.features not in (None, FEATURES_OK):
        reason = f"the model server cannot read features, so it cannot predict: critical, service outage ({status.features})"
        yield Signal(Severity.CRITICAL, IncidentType.INFRASTRUCTURE, reason)
    if status.not_loaded and status.server_healthy:
        instead = f"{status.server_version or 'the version before'} goes on serving"
        reason = f"the model server cannot load {status.serving_version}, {instead}: medium, the next start would leave nothing to serve"
        yield Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"{reason} ({status.not_loaded})")
    if status.unloadable_route and status.server_healthy:
        reason = "traffic is routed to a version that the model server cannot load: medium, the next start would leave nothing to serve"
        yield Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"{reason} ({status.unloadable_route})")


def _of_dangerous_predictions(metrics: ModelMetrics, policy: SeverityPolicy) -> Iterator[Signal]:
    now, counts = metrics.current, metrics.current.confusion
    if _enough_predictions(now, policy) and now.flagged_share is not None and now.flagged_share >= policy.all_flagged:
        reason = (
            f"the model predicts nearly all assets as high-risk ({percent(now.flagged_share)} of {now.predictions} predictions): "
            "critical, every one would be acted on"
        )
        yield Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, dangerous=True)
    if _misses_nearly_all(counts, policy):
        reason = f"the model caught {counts.tp} of {counts.positives} failures: critical, it misses nearly every one"
        yield Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, dangerous=True, by_outcomes=True)


def _of_performance(metrics: ModelMetrics, policy: SeverityPolicy) -> Iterator[Signal]:
    """Not where outcomes no longer arrive: those that came before say nothing of now."""
    counts, feed, verdict = metrics.current.confusion, judge_feed(metrics), grade_metrics(metrics, policy)
    if feed.stalled:
        yield Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"outcomes no longer arrive: medium, {feed.sentence}")
    elif verdict.is_real and verdict.severity is not None:
        # Fewer caught failures AND more false alarms is a bad model, which a higher threshold would make miss even more.
        excessive = verdict.precision_fell and not verdict.recall_fell
        reason = verdict.reason
        if excessive:
            reason += f"; precision fell while recall held: {counts.fp} of {counts.tp + counts.fp} alarms were false"
        kind = IncidentType.PERFORMANCE_DEGRADATION
        yield Signal(verdict.severity, kind, reason, excessive_false_positives=excessive, by_outcomes=True)


def _of_rewritten_outcomes(metrics: ModelMetrics, policy: SeverityPolicy) -> Iterator[Signal]:
    """Whoever rewrites outcomes may hide a failure as well as feign one: what was first reported is judged too."""
    found = judge_rewrites(metrics, policy.outcomes)
    if not found.beyond:
        return
    yield Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"{found.sentence}: medium, nothing is changed on what they say")
    first = grade_metrics(as_first_reported(metrics), policy)
    if first.is_real and first.severity is not None:
        kind, reason = IncidentType.PERFORMANCE_DEGRADATION, f"on the first-reported outcomes {first.reason}"
        yield Signal(first.severity, kind, reason, by_outcomes=True)


def _of_service_level(metrics: ModelMetrics, policy: SeverityPolicy) -> Iterator[Signal]:
    now = metrics.current
    enough = _enough_predictions(now, policy)
    if enough and now.latency_p95_ms is not None and now.latency_p95_ms > policy.latency_p95_ms:
        reason = f"95 % of predictions took up to {now.latency_p95_ms:.0f} ms, over the SLA of {policy.latency_p95_ms:.0f} ms: medium"
        yield Signal(Severity.MEDIUM, IncidentType.PERFORMANCE_DEGRADATION, reason)
    if enough_requests(now, policy) and now.error_rate is not None and now.error_rate > policy.error_rate:
        severity = Severity.CRITICAL if now.error_rate >= policy.outage_error_rate else Severity.MEDIUM
        reason = f"{percent(now.error_rate)} of requests failed, over {percent(policy.error_rate)}: {severity}"
        yield Signal(severity, IncidentType.INFRASTRUCTURE, reason)
    if enough and (rise := metrics.null_rise) is not None and rise > policy.null_rate:
        reason = f"{percent(now.null_rate or 0)} of a feature's values are missing, {percent(rise)} more than in the baseline: low"
        yield Signal(Severity.LOW, IncidentType.PERFORMANCE_DEGRADATION, reason)


def _enough_predictions(now: WindowMetrics, policy: SeverityPolicy) -> bool:
    return now.predictions >= policy.min_predictions


def _misses_nearly_all(counts: Confusion, policy: SeverityPolicy) -> bool:
    if counts.positives < policy.drops.min_positives:
        return False
    return wilson(counts.tp, counts.positives, z_value(policy.drops.confidence))[1] < policy.missed_recall


def _hints_at_danger(metrics: ModelMetrics, policy: SeverityPolicy) -> bool:
    """Nearly every failure is missed, on a handful of failures."""
    recall = metrics.current.confusion.recall
    return recall is not None and recall < policy.missed_recall
