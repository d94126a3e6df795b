"""Step 1: is the incident real, how severe is it, and what kind is it.

Four principles. A person's report is taken at its word unless it is a claim about measured performance that the measurement
contradicts, and its severity is never lowered. An alert's level is not a severity: the measured metric is, and where nothing measures
what an alert claims, the severity is not below what that alert alone would have. When nothing can be measured, people are told (pages
fail open) and nothing is changed automatically (changes fail closed); the same holds for what the outcomes do not prove yet, which is
unproven and not real. A missed critical failure waits for no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from mlrunbook.domain.detection.signals import (
    Signal,
    enough_requests,
    hints_at_worse,
    signals,
    unfair,
)
from mlrunbook.domain.evaluation.fairness import Fairness, FairnessVerdict, judge_asset_type_gap
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.outcomes import judge_feed, lag_of
from mlrunbook.domain.evaluation.performance import Evidence, ModelMetrics, Verdict
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
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
    few to prove, or the platform did not answer: real, but worth another look before the severity stands.

    `unproven`: only alerts claim it, and the outcomes neither prove it nor rule it out; `real` is True so that people hear of it, and it
    counts apart from what is proven. `undecided_until`: when outcomes that decide will have come; None where nobody can say."""

    real: bool | None
    severity: Severity
    type: IncidentType
    reasons: tuple[str, ...]
    dangerous: bool = False
    safety_risk: bool = False
    excessive_false_positives: bool = False
    insufficient: bool = False
    may_be_worse: bool = False
    unproven: bool = False
    undecided_until: datetime | None = None

    @property
    def is_ticket(self) -> bool:
        """People need not be woken: it will be decided, and is no high incident even if it is true."""
        return self.waits_for_outcomes and not self.severity.at_least(Severity.HIGH)

    @property
    def waits_for_outcomes(self) -> bool:
        return self.unproven and self.undecided_until is not None


@dataclass(frozen=True)
class Claims:
    """What was reported. `severity` and `type` are people's: None for incidents that only alerts opened."""

    severity: Severity | None = None
    type: IncidentType | None = None
    alerts: Sequence[AlertSignal] = ()


@dataclass(frozen=True)
class Measurements:
    """What the model platform says at this look; None: nothing."""

    metrics: ModelMetrics | None
    status: ServingStatus | None
    platform_reachable: bool = True


@dataclass(frozen=True)
class _Seen:
    """What can be measured at this look. `groups` None: the incident is not about fairness, or nothing is known by group."""

    metrics: ModelMetrics | None
    status: ServingStatus | None
    policy: SeverityPolicy
    groups: FairnessVerdict | None

    @cached_property
    def performance(self) -> Verdict | None:
        """Judged once a look, however many alerts ask: a history is hundreds of blocks."""
        return grade_metrics(self.metrics, self.policy) if self.metrics else None


def assess(
    claims: Claims,
    measured: Measurements,
    policy: SeverityPolicy | None = None,
    fairness: FairnessPolicy | None = None,
    *,
    final_look: bool = False,
) -> Assessment:
    """Judge the incident from what was reported and what can be measured.

    Call with `final_look` once waiting for more outcomes is over: what is still undecided is then real, without automatic changes.
    Incidents of type bias/fairness are judged by group of assets, by `fairness`.
    """
    policy, metrics = policy or SeverityPolicy(), measured.metrics
    # In which order the alerts came says nothing.
    alerts = sorted(claims.alerts, key=lambda a: (not a.is_critical, a.name, str(a.type), a.summary))
    kind = claims.type or next((a.type for a in alerts if a.type), None)
    missed = [_missed(a) for a in alerts if a.name == MISSED_FAILURE_ALERT]
    if not measured.platform_reachable and not missed:
        return _unmeasurable(claims.severity, kind)

    seen = _Seen(metrics, measured.status, policy, _by_group(metrics, fairness) if kind is IncidentType.BIAS_FAIRNESS else None)
    apart = unfair(metrics, policy, seen.groups) if metrics and seen.groups else ()
    found = sorted([*missed, *apart, *signals(metrics, measured.status, policy)], key=lambda s: -s.severity.rank)
    if found:
        return _from_signals(found, claims.severity, kind, alerts, seen)

    kind = kind or IncidentType.PERFORMANCE_DEGRADATION
    said = seen.groups.sentence if seen.groups else _performance_words(seen)
    if claims.severity is not None:
        return _from_a_report(claims.severity, kind, seen, said)
    return _from_alerts_alone(alerts, kind, seen, said, final_look)


def _unmeasurable(reported: Severity | None, kind: IncidentType | None) -> Assessment:
    severity = _worst([Severity.HIGH, reported])
    reason = f"the model platform cannot be reached, so nothing can be measured: treated as real, {severity}, until it answers"
    stays = kind in _BREACHES  # a breach is no outage, whatever answers
    judged = kind if stays and kind else IncidentType.INFRASTRUCTURE
    return Assessment(True, severity, judged, (reason,), insufficient=True, may_be_worse=not stays)


def _from_a_report(reported: Severity, kind: IncidentType, seen: _Seen, said: str) -> Assessment:
    """A person reports it, and no limit is measured as passed."""
    claim = kind is IncidentType.PERFORMANCE_DEGRADATION and reported.at_least(Severity.HIGH)
    if claim and _performance_is_fine(seen):
        return Assessment(False, reported, kind, (f"reported as {reported}, but the measurement says otherwise: {said}",))
    # One missed critical failure does not show in F1, so a reported prediction error stands whatever the averages say.
    risk = kind is IncidentType.PREDICTION_ERROR and reported is Severity.CRITICAL
    reasons = [f"reported as {reported}: taken at its word", said]
    if risk:
        reasons.append("a person reports dangerous predictions: treated as a safety risk until someone has looked")
    return Assessment(True, reported, kind, tuple(reasons), safety_risk=risk)


def on_a_persons_word(found: Assessment, metrics: ModelMetrics | None) -> Assessment:
    """A person is never overruled by a measurement: it argues, with its numbers, and nothing is changed by itself on what it disputes."""
    if found.real and found.unproven:
        return replace(found, unproven=False, undecided_until=None, reasons=("a person reported it", *found.reasons))
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
    named = _listed([f"{a.name} ({a.level.lower()})" for a in alerts]) or "no alert"
    covers = [_measured(a.name, a.type or kind, seen) for a in alerts or (AlertSignal("", ""),)]
    # What is measured and refuted grades nothing, while something else is still open.
    critical = any(a.is_critical for a in [a for a, known in zip(alerts, covers, strict=False) if not known] or alerts)
    severity = seen.policy.unmeasured_critical_alert if critical else seen.policy.unmeasured_alert
    if all(covers):
        found = "; ".join(dict.fromkeys(_refuted_words(a.name, said) for a in alerts)) or said
        return Assessment(False, severity, kind, (f"false alarm: {named} fired, but {found}",))
    if undecided := _undecided([a for a, known in zip(alerts, covers, strict=False) if not known], kind, seen):
        fired = f"{named} fired, but the outcomes have not confirmed {'them' if len(alerts) > 1 else 'it'} yet"
        reason = f"{fired}: {undecided.reason}; handled as {severity}, nothing is changed until then"
        until = undecided.undecided_until
        return Assessment(True, severity, kind, (reason,), insufficient=True, unproven=True, undecided_until=until)
    never = None in covers
    if never or final_look or (seen.metrics is None and critical):
        why = "what it claims cannot be measured here" if never else said
        reason = f"{named} fired and {why}: treated as real, {severity}" + ("" if kind in _BREACHES else ", without automatic changes")
        return Assessment(True, severity, kind, (reason,), insufficient=True, unproven=not never and seen.metrics is not None)
    reason = f"{named} fired, but {said}: look again when more outcomes are known"
    return Assessment(None, severity, kind, (reason,), insufficient=True)


def _listed(names: Sequence[str]) -> str:
    """Each once: "A, B and C"."""
    *most, last = dict.fromkeys(names) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _undecided(claims: Sequence[AlertSignal], kind: IncidentType, seen: _Seen) -> Verdict | None:
    """The verdict where all that is left open is whether performance fell, and outcomes that come will say."""
    if not claims or not all(_claims_performance(a.name, a.type or kind) for a in claims):
        return None
    verdict = seen.performance
    return verdict if verdict and verdict.evidence is Evidence.UNPROVEN else None


_BREACHES = (IncidentType.SECURITY, IncidentType.COMPLIANCE)
_MEASURABLE = frozenset({IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION, IncidentType.INFRASTRUCTURE})


def _from_signals(
    found: list[Signal],
    reported: Severity | None,
    kind: IncidentType | None,
    alerts: Sequence[AlertSignal],
    seen: _Seen,
) -> Assessment:
    worst = found[0]
    claims = alerts if alerts or reported is not None else (AlertSignal("whatever opened the incident", ""),)
    floor, unmeasured = _unmeasured_severity(claims, kind, seen)
    severity = _worst([worst.severity, reported, floor])
    reasons = [s.reason for s in found]
    if floor is not None and floor.rank > worst.severity.rank:
        reasons.append(f"{unmeasured} fired too and what it claims is not measured: {floor}")
    if reported is not None and reported.rank > worst.severity.rank:
        reasons.append(f"reported as {reported}: kept, a person's severity is never lowered")
    rewritten = _are_rewritten(seen.metrics, seen.policy)
    trusted = [s for s in found if not (rewritten and s.by_outcomes)]  # people hear of the others, and nothing is changed on their word
    dangerous = any(s.dangerous for s in trusted)
    # Security and compliance incidents stay what they are, whatever else is wrong at the same time.
    stays = kind is not None and kind not in _MEASURABLE
    reported_danger = kind is IncidentType.PREDICTION_ERROR and reported is Severity.CRITICAL
    missed = any(s.safety_risk for s in trusted)
    doubtful = reported is None and severity.rank > worst.severity.rank
    look_again = (
        not dangerous and not missed and (doubtful or (seen.metrics is not None and hints_at_worse(seen.metrics, seen.policy, worst)))
    )
    return Assessment(
        True,
        severity,
        kind if stays and kind else worst.type,
        (*reasons, *_lag(seen.metrics)),
        dangerous=dangerous,
        safety_risk=dangerous or missed or reported_danger,
        excessive_false_positives=any(s.excessive_false_positives for s in trusted),
        insufficient=rewritten and not any(s.severity.at_least(Severity.HIGH) for s in trusted),
        may_be_worse=look_again,
    )


def _are_rewritten(metrics: ModelMetrics | None, policy: SeverityPolicy) -> bool:
    return metrics is not None and judge_rewrites(metrics, policy.outcomes).beyond is True


def _by_group(metrics: ModelMetrics | None, fairness: FairnessPolicy | None) -> FairnessVerdict | None:
    return judge_asset_type_gap(metrics, fairness) if metrics and metrics.current.by_asset_type else None


def _missed(alert: AlertSignal) -> Signal:
    """One critical asset that failed after a low score is enough: no count of others makes it chance."""
    reason = f"{alert.summary or f'{alert.name} fired: a critical asset failed after a low score'}: critical, it never waits for statistics"
    return Signal(Severity.CRITICAL, IncidentType.PREDICTION_ERROR, reason, safety_risk=True, by_outcomes=True)


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


_RATE_ALERTS = {"FeatureNullRateHigh": "null_rate", "InferenceLatencyHigh": "latency_p95_ms", "ModelErrorRateHigh": "error_rate"}
_NOT_IN_METRICS = frozenset({"FeatureDrift"})
_OF_A_SYSTEM = frozenset({"ModelServerDown", "DeploymentFailed", "FeatureStoreUnavailable", "OutcomesMissing", "OutcomesRewritten"})


def _claims_performance(alert: str, kind: IncidentType) -> bool:
    """What it claims would show in F1, precision or recall."""
    elsewhere = alert in _OF_A_SYSTEM or alert in _RATE_ALERTS or alert in _NOT_IN_METRICS
    return not elsewhere and kind in (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION)


def _measured(alert: str, kind: IncidentType, seen: _Seen) -> bool | None:
    """Whether what this alert claims was measured: with no limit passed it is then untrue. None: it never can be here."""
    metrics, status, policy = seen.metrics, seen.status, seen.policy
    if kind is IncidentType.BIAS_FAIRNESS and seen.groups:
        return seen.groups.verdict is not Fairness.INSUFFICIENT
    if alert in ("ModelServerDown", "DeploymentFailed"):
        return status is not None
    if alert == "FeatureStoreUnavailable":
        return None if status is None or status.features is None else True
    if alert in ("OutcomesMissing", "OutcomesRewritten"):
        return metrics is not None and _outcomes_are_known(alert, metrics, policy)
    if alert in _NOT_IN_METRICS or kind not in _MEASURABLE:
        return None
    enough = metrics is not None and metrics.current.predictions >= policy.min_predictions
    if alert == "ModelErrorRateHigh" and metrics is not None:
        enough = enough_requests(metrics.current, policy)
    if alert in _RATE_ALERTS:
        return enough and getattr(metrics and metrics.current, _RATE_ALERTS[alert]) is not None
    if kind is IncidentType.INFRASTRUCTURE:
        return None
    if alert == "AllAssetsHighRisk" and enough and metrics is not None and metrics.current.flagged_share is not None:
        return True
    return _performance_is_measured(seen)


def _outcomes_are_known(alert: str, metrics: ModelMetrics, policy: SeverityPolicy) -> bool:
    if alert == "OutcomesMissing":
        return judge_feed(metrics).stalled is not None
    return judge_rewrites(metrics, policy.outcomes).beyond is not None


def _refuted_words(alert: str, said: str) -> str:
    if alert == "ModelServerDown":
        return "the model server answers"
    if alert == "DeploymentFailed":
        return "the model server has loaded what the registry names"
    if alert == "FeatureStoreUnavailable":
        return "the model server reads features"
    if alert == "OutcomesMissing":
        return "outcomes arrive"
    if alert == "OutcomesRewritten":
        return "outcomes stand as first reported, but for a few"
    return f"{_RATE_ALERTS[alert].replace('_', ' ')} is within its limit" if alert in _RATE_ALERTS else said


def _performance_is_fine(seen: _Seen) -> bool:
    return seen.performance is not None and seen.performance.evidence is Evidence.FALSE_ALARM


def _performance_is_measured(seen: _Seen) -> bool:
    """On a handful of failures a drop may be proven, but not how far it goes."""
    metrics = seen.metrics
    if metrics is None or seen.performance is None:
        return False
    since = metrics.history.since.tally if metrics.history else None
    if max(metrics.current.tally.cases, since.cases if since else 0) < seen.policy.drops.min_positives:
        return False
    return seen.performance.is_decided


def _performance_words(seen: _Seen) -> str:
    if seen.performance is None:
        return "the platform gave no metrics to check it against"
    return "; ".join((seen.performance.reason, *_lag(seen.metrics)))


def _lag(metrics: ModelMetrics | None) -> tuple[str, ...]:
    """What of the window is not known yet, in words; nothing where nearly all of it is."""
    words = lag_of(metrics.current) if metrics else ""
    return (words,) if words else ()


def _worst(severities: Sequence[Severity | None]) -> Severity:
    return max((s for s in severities if s is not None), key=lambda s: s.rank)
