"""Step 1: is the incident real, how severe is it, and what kind is it.

Four principles. A person's report is taken at its word unless it is a claim about measured performance that the measurement
contradicts, and its severity is never lowered. An alert's level is not a severity: the measured metric is, and where nothing measures
what an alert claims, the severity is not below what that alert alone would have. When nothing can be measured, people are told (pages
fail open) and nothing is changed automatically (changes fail closed). A missed critical failure waits for no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mlrunbook.domain.evaluation.fairness import Fairness, FairnessVerdict, judge_groups
from mlrunbook.domain.evaluation.outcomes import judge_feed, lag_of
from mlrunbook.domain.evaluation.performance import (
    Confusion,
    Evidence,
    ModelMetrics,
    Verdict,
    WindowMetrics,
    grade_metrics,
    percent,
    wilson,
    z_value,
)
from mlrunbook.domain.evaluation.segments import judge_segments
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.judging import FairnessPolicy, SeverityPolicy


@dataclass(frozen=True)
class AlertSignal:
    """One alert behind the incident. `level` is its own word (WARNING, CRITICAL), any case; `summary` its sentence."""

    name: str
    level: str
    type: IncidentType | None = None
    summary: str = ""

    @property
    def is_critical(self) -> bool:
        return self.level.upper() == "CRITICAL"


@dataclass(frozen=True)
class Assessment:
    """`real` is None when the evidence does not say yet: look again. `insufficient` means no measurement backs the severity:
    nothing may be changed automatically on it, also when `real` is True. `may_be_worse`: the counts hint at danger that they are too
    few to prove: real, but worth another look before the severity stands."""

    real: bool | None
    severity: Severity
    type: IncidentType
    reasons: tuple[str, ...]
    dangerous: bool = False
    safety_risk: bool = False
    excessive_false_positives: bool = False
    insufficient: bool = False
    may_be_worse: bool = False


@dataclass(frozen=True)
class _Signal:
    severity: Severity
    type: IncidentType
    reason: str
    dangerous: bool = False
    safety_risk: bool = False
    excessive_false_positives: bool = False


@dataclass(frozen=True)
class _Seen:
    """What can be measured at this look. `groups` None: the incident is not about fairness, or nothing is known by group."""

    metrics: ModelMetrics | None
    status: ServingStatus | None
    policy: SeverityPolicy
    groups: FairnessVerdict | None


def assess(
    *,
    reported_severity: Severity | None,
    reported_type: IncidentType | None,
    alerts: Sequence[AlertSignal] = (),
    metrics: ModelMetrics | None,
    status: ServingStatus | None,
    platform_reachable: bool = True,
    policy: SeverityPolicy | None = None,
    fairness: FairnessPolicy | None = None,
    final_look: bool = False,
) -> Assessment:
    """Judge the incident from what was reported and what can be measured.

    `reported_severity` is None for incidents that only alerts opened. Call with `final_look` once waiting for more outcomes is
    over: what is still undecided is then real, without automatic changes. Incidents of type bias/fairness are judged by group of
    assets, by `fairness`.
    """
    policy = policy or SeverityPolicy()
    alerts = sorted(alerts, key=lambda a: (not a.is_critical, a.name, str(a.type), a.summary))  # in which order they came says nothing
    kind = reported_type or next((a.type for a in alerts if a.type), None)
    missed = [_missed(a) for a in alerts if a.name == MISSED_FAILURE_ALERT]

    if not platform_reachable and not missed:
        severity = _worst([Severity.HIGH, reported_severity])
        reason = f"the model platform cannot be reached, so nothing can be measured: treated as real, {severity}, until it answers"
        stays = kind in _BREACHES  # a breach is no outage, whatever answers
        return Assessment(True, severity, kind if stays and kind else IncidentType.INFRASTRUCTURE, (reason,), insufficient=True)

    seen = _Seen(metrics, status, policy, _by_group(metrics, fairness) if kind is IncidentType.BIAS_FAIRNESS else None)
    unfair = _unfair(metrics, policy, seen.groups) if metrics and seen.groups else ()
    signals = sorted([*missed, *unfair, *_signals(metrics, status, policy)], key=lambda s: -s.severity.rank)
    if signals:
        return _from_signals(signals, reported_severity, kind, alerts, seen)

    kind = kind or IncidentType.PERFORMANCE_DEGRADATION
    said = seen.groups.sentence if seen.groups else _performance_words(metrics, policy)
    if reported_severity is not None:
        claim = kind is IncidentType.PERFORMANCE_DEGRADATION and reported_severity.at_least(Severity.HIGH)
        if claim and _performance_is_fine(metrics, policy):
            reason = f"reported as {reported_severity}, but the measurement says otherwise: {said}"
            return Assessment(False, reported_severity, kind, (reason,))
        # One missed critical failure does not show in F1, so a reported prediction error stands whatever the averages say.
        risk = kind is IncidentType.PREDICTION_ERROR and reported_severity is Severity.CRITICAL
        reasons = [f"reported as {reported_severity}: taken at its word", said]
        if risk:
            reasons.append("a person reports dangerous predictions: treated as a safety risk until someone has looked")
        return Assessment(True, reported_severity, kind, tuple(reasons), safety_risk=risk)
    return _from_alerts_alone(alerts, kind, seen, said, final_look)


def on_a_persons_word(found: Assessment, metrics: ModelMetrics | None) -> Assessment:
    """A person is never overruled by a measurement: it argues, with its numbers, and nothing is changed by itself on what it disputes."""
    if found.real:
        return found
    before, now = (metrics.baseline.confusion.f1, metrics.current.confusion.f1) if metrics else (None, None)
    argues: tuple[str, ...] = ()
    if before is not None and now is not None:
        argues = (f"F1 is {now:.2f} against {before:.2f} at baseline: the overall figures do not show it",)
    reasons = ("a person reported it, so only a person ends it", *argues, *found.reasons)
    return replace(found, real=True, insufficient=True, reasons=reasons)


def _from_alerts_alone(
    alerts: Sequence[AlertSignal],
    kind: IncidentType,
    seen: _Seen,
    said: str,
    final_look: bool,
) -> Assessment:
    """No limit is measured as passed and no person has reported anything: do the measurements cover what the alerts claim?"""
    named = ", ".join(f"{a.name} ({a.level.lower()})" for a in alerts) or "no alert"
    covers = [_measured(a.name, a.type or kind, seen) for a in alerts or (AlertSignal("", ""),)]
    # What is measured and refuted grades nothing, while something else is still open.
    critical = any(a.is_critical for a in [a for a, known in zip(alerts, covers, strict=False) if not known] or alerts)
    severity = seen.policy.unmeasured_critical_alert if critical else seen.policy.unmeasured_alert
    if all(covers):
        found = "; ".join(dict.fromkeys(_refuted_words(a.name, said) for a in alerts)) or said
        return Assessment(False, severity, kind, (f"false alarm: {named} fired, but {found}",))
    never = None in covers
    if never or final_look or (seen.metrics is None and critical):
        why = "what it claims cannot be measured here" if never else said
        reason = f"{named} fired and {why}: treated as real, {severity}" + ("" if kind in _BREACHES else ", without automatic changes")
        return Assessment(True, severity, kind, (reason,), insufficient=True)
    reason = f"{named} fired, but {said}: look again when more outcomes are known"
    return Assessment(None, severity, kind, (reason,), insufficient=True)


_BREACHES = (IncidentType.SECURITY, IncidentType.COMPLIANCE)
_MEASURABLE = frozenset({IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION, IncidentType.INFRASTRUCTURE})


def _from_signals(
    signals: list[_Signal],
    reported: Severity | None,
    kind: IncidentType | None,
    alerts: Sequence[AlertSignal],
    seen: _Seen,
) -> Assessment:
    worst = signals[0]
    claims = alerts if alerts or reported is not None else (AlertSignal("whatever opened the incident", ""),)
    floor, unmeasured = _unmeasured_severity(claims, kind, seen)
    severity = _worst([worst.severity, reported, floor])
    reasons = [s.reason for s in signals]
    if floor is not None and floor.rank > worst.severity.rank:
        reasons.append(f"{unmeasured} fired too and what it claims is not measured: {floor}")
    if reported is not None and reported.rank > worst.severity.rank:
        reasons.append(f"reported as {reported}: kept, a person's severity is never lowered")
    dangerous = any(s.dangerous for s in signals)
    # Security and compliance incidents stay what they are, whatever else is wrong at the same time.
    stays = kind is not None and kind not in _MEASURABLE
    reported_danger = kind is IncidentType.PREDICTION_ERROR and reported is Severity.CRITICAL
    missed = any(s.safety_risk for s in signals)
    doubtful = reported is None and severity.rank > worst.severity.rank
    look_again = (
        not dangerous and not missed and (doubtful or (seen.metrics is not None and _hints_at_worse(seen.metrics, seen.policy, worst)))
    )
    return Assessment(
        True,
        severity,
        kind if stays and kind else worst.type,
        (*reasons, *_lag(seen.metrics)),
        dangerous=dangerous,
        safety_risk=dangerous or missed or reported_danger,
        excessive_false_positives=any(s.excessive_false_positives for s in signals),
        may_be_worse=look_again,
    )


def _by_group(metrics: ModelMetrics | None, fairness: FairnessPolicy | None) -> FairnessVerdict | None:
    if metrics is None or not metrics.current.by_asset_type:
        return None
    return judge_groups(metrics.current.by_asset_type, fairness, metrics.baseline.by_asset_type or None)


def _unfair(metrics: ModelMetrics, policy: SeverityPolicy, groups: FairnessVerdict) -> Iterator[_Signal]:
    """Groups further apart than allowed are medium; a group that fell as far as a high incident does, beyond chance, is one."""
    if groups.verdict is Fairness.UNFAIR:
        yield _Signal(Severity.MEDIUM, IncidentType.BIAS_FAIRNESS, f"{groups.sentence}: medium")
    segments = judge_segments(metrics.baseline.by_asset_type, metrics.current.by_asset_type, policy.drops, kind="asset type")
    for fallen in segments.fallen:
        if fallen.verdict and fallen.verdict.severity:
            yield _Signal(fallen.verdict.severity, IncidentType.BIAS_FAIRNESS, fallen.sentence)


def _missed(alert: AlertSignal) -> _Signal:
    """One critical asset that failed after a low score is enough: no count of others makes it chance."""
    reason = f"{alert.summary or f'{alert.name} fired: a critical asset failed after a low score'}: critical, it never waits for statistics"
    return _Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, safety_risk=True)


def _unmeasured_severity(
    alerts: Sequence[AlertSignal],
    kind: IncidentType | None,
    seen: _Seen,
) -> tuple[Severity | None, str]:
    """What the alerts that nothing measures would be graded by themselves, and the name of the worst of them."""
    default = kind or IncidentType.PERFORMANCE_DEGRADATION
    open_ = [a for a in alerts if a.name != MISSED_FAILURE_ALERT and not _measured(a.name, a.type or default, seen)]
    if not open_:
        return None, ""
    return (seen.policy.unmeasured_critical_alert if open_[0].is_critical else seen.policy.unmeasured_alert), open_[0].name


def _hints_at_worse(metrics: ModelMetrics, policy: SeverityPolicy, worst: _Signal) -> bool:
    if worst.type is IncidentType.BIAS_FAIRNESS and not worst.severity.at_least(Severity.HIGH):
        segments = judge_segments(metrics.baseline.by_asset_type, metrics.current.by_asset_type, policy.drops)
        drops = (s.verdict.f1_drop for s in segments.segments if s.verdict and not s.fell)
        return any(drop is not None and drop > policy.drops.f1_high for drop in drops)
    return _hints_at_danger(metrics, policy)


def _hints_at_danger(metrics: ModelMetrics, policy: SeverityPolicy) -> bool:
    """Nearly every failure is missed, on a handful of failures."""
    recall = metrics.current.confusion.recall
    return recall is not None and recall < policy.missed_recall


def _signals(metrics: ModelMetrics | None, status: ServingStatus | None, policy: SeverityPolicy) -> Iterator[_Signal]:
    """Everything measured that is past a limit."""
    if status is not None and not status.server_healthy:
        lost = (
            f"cannot load the version that traffic is routed to ({status.unloadable_route})"
            if status.unloadable_route
            else "does not answer"
        )
        yield _Signal(Severity.CRITICAL, IncidentType.INFRASTRUCTURE, f"the model server {lost}: critical, service outage")
    if status is not None and status.features not in (None, FEATURES_OK):
        reason = f"the model server cannot read features, so it cannot predict: critical, service outage ({status.features})"
        yield _Signal(Severity.CRITICAL, IncidentType.INFRASTRUCTURE, reason)
    if status is not None and status.not_loaded and status.server_healthy:
        instead = f"{status.server_version or 'the version before'} goes on serving"
        reason = f"the model server cannot load {status.serving_version}, {instead}: medium, the next start would leave nothing to serve"
        yield _Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"{reason} ({status.not_loaded})")
    if status is not None and status.unloadable_route and status.server_healthy:
        reason = "traffic is routed to a version that the model server cannot load: medium, the next start would leave nothing to serve"
        yield _Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"{reason} ({status.unloadable_route})")
    if metrics is None:
        return
    now, counts = metrics.current, metrics.current.confusion
    enough = now.predictions >= policy.min_predictions
    if enough and now.flagged_share is not None and now.flagged_share >= policy.all_flagged:
        reason = (
            f"the model predicts nearly all assets as high-risk ({percent(now.flagged_share)} of {now.predictions} predictions): "
            "critical, every one would become a work order"
        )
        yield _Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, dangerous=True)
    if _misses_nearly_all(counts, policy):
        reason = f"the model caught {counts.tp} of {counts.positives} failures: critical, it misses nearly every one"
        yield _Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, dangerous=True)

    feed, verdict = judge_feed(metrics), _graded(metrics, policy)
    if feed.stalled:
        yield _Signal(Severity.MEDIUM, IncidentType.INFRASTRUCTURE, f"outcomes no longer arrive: medium, {feed.sentence}")
    elif verdict.is_real and verdict.severity is not None:
        # Fewer caught failures AND more false alarms is a bad model, which a higher threshold would make miss even more.
        excessive = verdict.precision_fell and not verdict.recall_fell
        reason = verdict.reason
        if excessive:
            reason += f"; precision fell while recall held: {counts.fp} of {counts.tp + counts.fp} alarms were false"
        yield _Signal(verdict.severity, IncidentType.PERFORMANCE_DEGRADATION, reason, excessive_false_positives=excessive)

    if enough and now.latency_p95_ms is not None and now.latency_p95_ms > policy.latency_p95_ms:
        reason = f"95 % of predictions took up to {now.latency_p95_ms:.0f} ms, over the SLA of {policy.latency_p95_ms:.0f} ms: medium"
        yield _Signal(Severity.MEDIUM, IncidentType.PERFORMANCE_DEGRADATION, reason)
    if _enough_requests(now, policy) and now.error_rate is not None and now.error_rate > policy.error_rate:
        severity = Severity.CRITICAL if now.error_rate >= policy.outage_error_rate else Severity.MEDIUM
        reason = f"{percent(now.error_rate)} of requests failed, over {percent(policy.error_rate)}: {severity}"
        yield _Signal(severity, IncidentType.INFRASTRUCTURE, reason)
    if enough and now.null_rate is not None and now.null_rate > policy.null_rate:
        reason = f"{percent(now.null_rate)} of a feature's values are missing, over {percent(policy.null_rate)}: low"
        yield _Signal(Severity.LOW, IncidentType.PERFORMANCE_DEGRADATION, reason)


def _enough_requests(now: WindowMetrics, policy: SeverityPolicy) -> bool:
    """A server that fails every request makes no prediction: what failed counts too. Not one answer is enough where nobody counts."""
    return now.requests is None or now.requests >= policy.min_predictions


def _misses_nearly_all(counts: Confusion, policy: SeverityPolicy) -> bool:
    if counts.positives < policy.drops.min_positives:
        return False
    return wilson(counts.tp, counts.positives, z_value(policy.drops.confidence))[1] < policy.missed_recall


_RATE_ALERTS = {"FeatureNullRateHigh": "null_rate", "InferenceLatencyHigh": "latency_p95_ms", "ModelErrorRateHigh": "error_rate"}
_NOT_IN_METRICS = frozenset({"FeatureDrift"})
FEATURES_OK = "ok"


def _measured(alert: str, kind: IncidentType, seen: _Seen) -> bool | None:
    """Whether what this alert claims was measured: with no limit passed it is then untrue. None: it never can be here."""
    metrics, status, policy = seen.metrics, seen.status, seen.policy
    if kind is IncidentType.BIAS_FAIRNESS and seen.groups:
        return seen.groups.verdict is not Fairness.INSUFFICIENT
    if alert in ("ModelServerDown", "DeploymentFailed"):
        return status is not None
    if alert == "FeatureStoreUnavailable":
        return None if status is None or status.features is None else True
    if alert == "OutcomesMissing":
        return metrics is not None and judge_feed(metrics).stalled is not None
    if alert in _NOT_IN_METRICS or kind not in _MEASURABLE:
        return None
    enough = metrics is not None and metrics.current.predictions >= policy.min_predictions
    if alert == "ModelErrorRateHigh" and metrics is not None:
        enough = _enough_requests(metrics.current, policy)
    if alert in _RATE_ALERTS:
        return enough and getattr(metrics and metrics.current, _RATE_ALERTS[alert]) is not None
    if kind is IncidentType.INFRASTRUCTURE:
        return None
    if alert == "AllAssetsHighRisk" and enough and metrics is not None and metrics.current.flagged_share is not None:
        return True
    return _performance_is_measured(metrics, policy)


def _refuted_words(alert: str, said: str) -> str:
    if alert == "ModelServerDown":
        return "the model server answers"
    if alert == "DeploymentFailed":
        return "the model server has loaded what the registry names"
    if alert == "FeatureStoreUnavailable":
        return "the model server reads features"
    if alert == "OutcomesMissing":
        return "outcomes arrive"
    return f"{_RATE_ALERTS[alert].replace('_', ' ')} is within its limit" if alert in _RATE_ALERTS else said


def _performance_is_fine(metrics: ModelMetrics | None, policy: SeverityPolicy) -> bool:
    return metrics is not None and _graded(metrics, policy).evidence is Evidence.FALSE_ALARM


def _performance_is_measured(metrics: ModelMetrics | None, policy: SeverityPolicy) -> bool:
    """On a handful of failures a drop may be proven, but not how far it goes."""
    if metrics is None or metrics.current.confusion.positives < policy.drops.min_positives:
        return False
    return _graded(metrics, policy).evidence is not Evidence.INSUFFICIENT


def _performance_words(metrics: ModelMetrics | None, policy: SeverityPolicy) -> str:
    if metrics is None:
        return "the platform gave no metrics to check it against"
    return "; ".join((_graded(metrics, policy).reason, *_lag(metrics)))


def _lag(metrics: ModelMetrics | None) -> tuple[str, ...]:
    """What of the window is not known yet, in words; nothing where nearly all of it is."""
    words = lag_of(metrics.current) if metrics else ""
    return (words,) if words else ()


def _graded(metrics: ModelMetrics, policy: SeverityPolicy) -> Verdict:
    return grade_metrics(metrics, policy.drops)


def _worst(severities: Sequence[Severity | None]) -> Severity:
    return max((s for s in severities if s is not None), key=lambda s: s.rank)
