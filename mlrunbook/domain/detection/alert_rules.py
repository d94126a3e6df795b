"""The runbook's "Automated Alerts" as rules, the one place that says what fires, when, and when it ends again.

A rule is an entry of `RULES`: it measures one figure of what an evaluation saw and compares it with a limit of the policy. The model
platform, `flows/monitor.py` and the rules generated for Prometheus all read this list. A figure that too few data support is None: an
alert then neither starts nor ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from mlrunbook.domain.detection.critical_assets import MissedFailure, missed_words
from mlrunbook.domain.evaluation.fairness import Fairness, judge_asset_type_gap
from mlrunbook.domain.evaluation.outcomes import judge_feed
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, relative_drop
from mlrunbook.domain.evaluation.probing import Probing
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.judging import DriftPolicy, FairnessPolicy, OutcomesPolicy
from mlrunbook.domain.policy.policy import AlertThresholds

Row = TypeVar("Row")
NOW = "now"
WINDOW = "the last 60 min"
BOTH_WINDOWS = "the last 60 min against the baseline's 7 days"
DRIFT_PARTS, DRIFT_ROWS = 8, 250  # rows of each part of a window that drift is judged on: 2,000 spread over it

ROUNDING = 1e-9  # 1 - 0.72/0.80 is a hair over 0.1 in floating point: at the limit is not past it


class Level(StrEnum):
    """An alert's level, which is not the incident's severity."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class ServerSeen:
    """What is known of the model server. `down_for` is None while it answers, or is stopped on purpose.

    `features_down_for`: how long it has not been able to read features; None while it can, or needs no feature store.
    `features_known` False: nobody can tell, because it does not answer or still loads the feature store.
    `not_loaded`: why it cannot load the version that shall serve, and how long it has not been able to.
    """

    down_for: timedelta | None = None
    features_down_for: timedelta | None = None
    features_known: bool = True
    not_loaded: str | None = None
    not_loaded_for: timedelta = timedelta(0)


@dataclass(frozen=True)
class Seen:
    """What one evaluation sees of a model. A part that could not be read is None: the rules that need it say nothing.

    `drift` is the checklist's finding on feature distributions, `drift_for` how long it is known to have stood so. `platform_answers` is
    None where the platform itself evaluates. `probing` is what the newest rows of the prediction log show; `missed` are the failures of
    critical assets that the model called safe.
    """

    model: str
    metrics: ModelMetrics | None = None
    server: ServerSeen | None = None
    drift: Finding | None = None
    drift_for: timedelta = timedelta(0)
    platform_answers: bool | None = None
    probing: Probing | None = None
    missed: tuple[MissedFailure, ...] | None = None
    fairness: FairnessPolicy = field(default_factory=FairnessPolicy)
    outcomes: OutcomesPolicy = field(default_factory=OutcomesPolicy)


@dataclass(frozen=True)
class Measured:
    """A rule's figure, the sentence that explains it, and how long it is known to have been so."""

    value: float
    sentence: str
    lasted: timedelta = timedelta(0)


class Least(StrEnum):
    """How much a window must hold before a rule may speak; the counts are the policy's."""

    NOTHING = "nothing"
    PREDICTIONS = "predictions"  # min_predictions in the current window
    OUTCOMES = "outcomes"  # min_labelled known outcomes, min_positives of them failures, in both windows

    def words(self, limits: AlertThresholds) -> str:
        match self:
            case Least.PREDICTIONS:
                return f"{limits.min_predictions} predictions"
            case Least.OUTCOMES:
                return f"{limits.min_labelled} known outcomes with {limits.min_positives} failures, in both windows"
            case _:
                return "none"

    def reached(self, metrics: ModelMetrics | None, limits: AlertThresholds) -> bool:
        match self:
            case Least.PREDICTIONS:
                return metrics is not None and metrics.current.predictions >= limits.min_predictions
            case Least.OUTCOMES:
                windows = (metrics.current, metrics.baseline) if metrics else ()
                return metrics is not None and all(
                    w.labelled >= limits.min_labelled and w.confusion.positives >= limits.min_positives for w in windows
                )
            case _:
                return True


def _zero(_: AlertThresholds) -> float:
    return 0.0


@dataclass(frozen=True)
class Rule:
    """One automated alert at one level. Two rules may share an alert: the worst level that fires is the alert's.

    It fires once `measure` has been over `limit` (`at_limit`: or at it) for `fires_after_s`, and ends once it has been at most
    `clears_at`, by default the limit, for the policy's `clears_after_s`. `title` is the runbook's line.
    """

    alert: str
    level: Level
    title: str
    measure: Callable[[Seen], Measured | None]
    limit: Callable[[AlertThresholds], float] = _zero
    at_limit: bool = False
    clears_at: Callable[[AlertThresholds], float] | None = None
    fires_after_s: Callable[[AlertThresholds], float] = _zero
    least: Least = Least.NOTHING
    window: str = NOW

    @property
    def key(self) -> str:
        return f"{self.alert}:{self.level}"

    def read(self, seen: Seen, limits: AlertThresholds) -> Measured | None:
        return self.measure(seen) if self.least.reached(seen.metrics, limits) else None


@dataclass(frozen=True)
class RuleState:
    """What a rule must remember. All None: all is well. `bad_since` alone: pending. `quiet_since`: fires, but it no longer is bad."""

    bad_since: datetime | None = None
    firing_since: datetime | None = None
    quiet_since: datetime | None = None

    @property
    def words(self) -> str:
        return "firing" if self.firing_since else "pending" if self.bad_since else "ok"


@dataclass(frozen=True)
class Judged:
    """A rule's state after an evaluation; `measured` is None when nobody can tell."""

    rule: Rule
    state: RuleState
    measured: Measured | None

    @property
    def sentence(self) -> str:
        return self.measured.sentence if self.measured else f"{self.rule.title}: too few data to tell"


def advance(rule: Rule, state: RuleState, measured: Measured | None, limits: AlertThresholds, now: datetime) -> RuleState:
    """The rule's next state. Unknown leaves a firing alert firing, and ends what was only pending or about to clear."""
    fires = state.firing_since is not None
    if measured is None:
        return replace(state, quiet_since=None) if fires else RuleState()
    limit = rule.clears_at(limits) if fires and rule.clears_at else rule.limit(limits)
    if measured.value > limit + ROUNDING or (rule.at_limit and measured.value >= limit - ROUNDING):
        since = min(state.bad_since or now, now - measured.lasted)
        lasted_s = (now - since).total_seconds()
        firing_since = state.firing_since or (now if lasted_s >= rule.fires_after_s(limits) else None)
        return RuleState(since, firing_since)
    if not fires:
        return RuleState()
    quiet_since = state.quiet_since or now
    over = (now - quiet_since).total_seconds() >= limits.clears_after_s
    return RuleState() if over else replace(state, quiet_since=quiet_since)


def evaluate(seen: Seen, limits: AlertThresholds, states: Mapping[str, RuleState], now: datetime) -> list[Judged]:
    """Every rule once, in the order of `RULES`. `states` by `Rule.key`; a rule that is missing there is well."""
    judged = []
    for rule in RULES:
        measured = rule.read(seen, limits)
        judged.append(Judged(rule, advance(rule, states.get(rule.key, RuleState()), measured, limits, now), measured))
    return judged


def firing(judged: Sequence[Judged]) -> dict[str, Judged]:
    """The alerts that fire, each at its worst level, the most dangerous first."""
    found: dict[str, Judged] = {}
    for one in judged:
        if one.state.firing_since and (one.rule.alert not in found or one.rule.level is Level.CRITICAL):
            found[one.rule.alert] = one
    return found


def spread(read: Callable[[datetime, datetime], Sequence[Row]], since: datetime, until: datetime, parts: int = DRIFT_PARTS) -> list[Row]:
    """What `read` gives of each equal part of [since, until): together they speak for the whole window, the newest rows alone do not."""
    step = (until - since) / parts
    return [row for i in range(parts) for row in read(since + i * step, since + (i + 1) * step)]


def _drop(name: str, of: Callable[[Confusion], float | None]) -> Callable[[Seen], Measured | None]:
    def measure(seen: Seen) -> Measured | None:
        if seen.metrics is None:
            return None
        now = seen.metrics.current
        was, is_ = of(seen.metrics.baseline.confusion), of(now.confusion)
        fell = relative_drop(was, is_)
        if fell is None:
            return None
        figures = f"({was or 0:.3f} -> {is_ or 0:.3f}, {now.labelled} labelled predictions)"
        return Measured(fell, f"{seen.model} {name} {'fell' if fell >= 0 else 'rose'} {abs(fell):.1%} {figures}")

    return measure


def _flagged(seen: Seen) -> Measured | None:
    if seen.metrics is None or seen.metrics.current.flagged_share is None:
        return None
    now = seen.metrics.current
    return Measured(share := now.flagged_share or 0.0, f"{seen.model} flags {share:.1%} of {now.predictions} predictions as high-risk")


def _null_rate(seen: Seen) -> Measured | None:
    rise = seen.metrics.null_rise if seen.metrics else None
    if rise is None or seen.metrics is None:
        return None
    rate = seen.metrics.current.null_rate or 0.0
    return Measured(rise, f"{rate:.1%} of a feature of {seen.model} is null, {rise:.1%} more than in the baseline")


def _latency_s(seen: Seen) -> Measured | None:
    p95_ms = seen.metrics.current.latency_p95_ms if seen.metrics else None
    return None if p95_ms is None else Measured(p95_ms / 1000, f"{seen.model} inference takes {p95_ms / 1000:.2f} s (p95)")


def _error_rate(seen: Seen) -> Measured | None:
    rate = seen.metrics.current.error_rate if seen.metrics else None
    return None if rate is None else Measured(rate, f"{rate:.1%} of the predictions asked of {seen.model} failed")


def _lately(lasted: timedelta, now: str, long: str) -> str:
    return f"{long} for {lasted.total_seconds():.0f} s" if lasted >= timedelta(seconds=1) else now


def _server_down(seen: Seen) -> Measured | None:
    if seen.server is None:
        return None
    down = seen.server.down_for
    if down is None:
        return Measured(0.0, f"the model server of {seen.model} answers")
    return Measured(1.0, f"the model server of {seen.model} {_lately(down, 'does not answer', 'has not answered')}", down)


def _features_down(seen: Seen) -> Measured | None:
    if seen.server is None or not seen.server.features_known:
        return None
    down = seen.server.features_down_for
    if down is None:
        return Measured(0.0, f"the model server of {seen.model} reads features")
    return Measured(
        1.0, f"the model server of {seen.model} {_lately(down, 'cannot read features', 'has not been able to read features')}", down
    )


def _not_loaded(seen: Seen) -> Measured | None:
    if seen.server is None:
        return None
    if seen.server.not_loaded is None:
        return Measured(0.0, f"the model server of {seen.model} has loaded what shall serve")
    why = f"the model server of {seen.model} cannot load what shall serve: {seen.server.not_loaded}"
    return Measured(1.0, why, seen.server.not_loaded_for)


def drift_policy(limits: AlertThresholds) -> DriftPolicy:
    """Stricter than an investigation's: a monitor looks all day, so a look may be wrong only rarely, and small moves are no alert."""
    return DriftPolicy(false_alarm_rate=limits.drift_false_alarm_rate, effect_floor=limits.drift_effect)


def _drift(seen: Seen) -> Measured | None:
    if seen.drift is None or seen.drift.state == "unknown":
        return None
    return Measured(float(seen.drift.state == "suspect"), f"{seen.model}: {seen.drift.sentence}", seen.drift_for)


def _outcomes_missing(seen: Seen) -> Measured | None:
    feed = judge_feed(seen.metrics) if seen.metrics else None
    return None if feed is None or feed.stalled is None else Measured(float(feed.stalled), f"{seen.model}: {feed.sentence}")


def _outcomes_rewritten(seen: Seen) -> Measured | None:
    found = judge_rewrites(seen.metrics, seen.outcomes) if seen.metrics else None
    return None if found is None or found.beyond is None else Measured(float(found.beyond), f"{seen.model}: {found.sentence}")


def _probed(seen: Seen) -> Measured | None:
    found = seen.probing
    return None if found is None or found.suspicious is None else Measured(float(found.suspicious), f"{seen.model}: {found.sentence}")


def _missed_failures(seen: Seen) -> Measured | None:
    """One is enough."""
    if seen.missed is None:
        return None
    words = missed_words(seen.missed) if seen.missed else "no critical failure was missed"
    return Measured(float(len(seen.missed)), f"{seen.model}: {words}")


FAIRNESS_CONFIDENCE = 0.99  # at least: stricter than triage, because a monitor looks all day


def _fairness_gap(seen: Seen) -> Measured | None:
    """Beyond what the gaps between asset types were in the baseline."""
    if seen.metrics is None:
        return None
    policy = replace(seen.fairness, confidence=max(seen.fairness.confidence, FAIRNESS_CONFIDENCE))
    found = judge_asset_type_gap(seen.metrics, policy)
    if found.gap is None:
        return None
    return Measured(float(found.verdict is Fairness.UNFAIR), f"{seen.model}: {found.sentence}")


def _platform_down(seen: Seen) -> Measured | None:
    if seen.platform_answers is None:
        return None
    if seen.platform_answers:
        return Measured(0.0, "the model platform answers")
    return Measured(1.0, f"the model platform does not answer: nobody watches {seen.model}")


# The most dangerous first: they are told in this order, and the first one opens the incident.
RULES: tuple[Rule, ...] = (
    # Not among the runbook's ten: its Severity Levels name it as critical.
    Rule(MISSED_FAILURE_ALERT, Level.CRITICAL, "Critical failure missed", _missed_failures, window=WINDOW),
    Rule(
        "AllAssetsHighRisk", Level.CRITICAL, "All assets predicted high-risk", _flagged,
        limit=lambda p: p.flagged_share_critical, at_limit=True, least=Least.PREDICTIONS, window=WINDOW,
    ),
    Rule(
        "ModelServerDown", Level.CRITICAL, "Model server down", _server_down,
        fires_after_s=lambda p: p.server_down_after_s,
    ),
    Rule(
        "FeatureStoreUnavailable", Level.CRITICAL, "Feature store unavailable", _features_down,
        fires_after_s=lambda p: p.feature_store_down_after_s,
    ),
    Rule(
        "DeploymentFailed", Level.WARNING, "Deployment failure", _not_loaded,
        fires_after_s=lambda p: p.server_down_after_s,
    ),
    Rule(
        "ModelF1Drop", Level.CRITICAL, "F1 score drop", _drop("F1", lambda c: c.f1),
        limit=lambda p: p.f1_drop_critical, clears_at=lambda p: p.f1_drop_warning, least=Least.OUTCOMES, window=BOTH_WINDOWS,
    ),
    Rule(
        "ModelF1Drop", Level.WARNING, "F1 score drop", _drop("F1", lambda c: c.f1),
        limit=lambda p: p.f1_drop_warning, least=Least.OUTCOMES, window=BOTH_WINDOWS,
    ),
    Rule(
        "ModelPrecisionDrop", Level.WARNING, "Precision drop", _drop("precision", lambda c: c.precision),
        limit=lambda p: p.precision_drop_warning, least=Least.OUTCOMES, window=BOTH_WINDOWS,
    ),
    Rule(
        "ModelRecallDrop", Level.WARNING, "Recall drop", _drop("recall", lambda c: c.recall),
        limit=lambda p: p.recall_drop_warning, least=Least.OUTCOMES, window=BOTH_WINDOWS,
    ),
    Rule(
        "FeatureNullRateHigh", Level.WARNING, "Feature null rate", _null_rate,
        limit=lambda p: p.null_rate_warning, least=Least.PREDICTIONS, window=BOTH_WINDOWS,
    ),
    Rule(
        "FeatureDrift", Level.WARNING, "Feature drift detected", _drift,
        fires_after_s=lambda p: p.drift_after_s, least=Least.PREDICTIONS, window=BOTH_WINDOWS,
    ),
    Rule(
        "InferenceLatencyHigh", Level.WARNING, "Inference latency", _latency_s,
        limit=lambda p: p.latency_warning_s, least=Least.PREDICTIONS, window=WINDOW,
    ),
    # A model that only fails has no predictions at all, so none are needed here.
    Rule(
        "ModelErrorRateHigh", Level.WARNING, "Error rate", _error_rate,
        limit=lambda p: p.error_rate_warning, window=WINDOW,
    ),
    # Not the runbook's: without outcomes, or on rewritten ones, the drops above say nothing; and a caller who probes makes no metric fall.
    Rule("OutcomesMissing", Level.WARNING, "Outcomes missing", _outcomes_missing, window=WINDOW),
    Rule("OutcomesRewritten", Level.WARNING, "Outcomes rewritten", _outcomes_rewritten, window="24 h"),
    Rule("ModelProbed", Level.CRITICAL, "Model probed", _probed, window="10 min"),
    Rule("FairnessGap", Level.WARNING, "Disparate performance across asset types", _fairness_gap, window=BOTH_WINDOWS),
    # Not the runbook's: without it a monitor that cannot look would be silent.
    Rule(
        "ModelPlatformDown", Level.WARNING, "Model platform down", _platform_down,
        fires_after_s=lambda p: p.server_down_after_s,
    ),
)  # fmt: skip
