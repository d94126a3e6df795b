"""Policy: when measurements count as fallen, drifted, unfair, broken, or recovered."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import InitVar, dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from mlrunbook.domain.incident import Severity
from mlrunbook.domain.tally import metric_names

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Days = Annotated[int, Field(ge=1, le=3650)]  # ten years: beyond, dates overflow
_Name = Annotated[str, StringConstraints(min_length=1)]


@dataclass(frozen=True)
class DriftPolicy:
    """When inputs count as drifted.

    `false_alarm_rate`: of a whole report, over all its columns (Benjamini and Hochberg 1995). A move below `effect_floor` (KS distance,
    or Jensen-Shannon distance for categories) does not matter to a model; nor does a rise of nulls below `null_rise`. A column with
    fewer than `min_values` rows, or `min_independent` independent ones, on either side is not judged.
    """

    false_alarm_rate: Share = 0.045
    effect_floor: Share = 0.05
    null_rise: Share = 0.05
    min_values: Annotated[int, Field(ge=20)] = 50
    min_independent: Annotated[int, Field(ge=8)] = 8


@dataclass(frozen=True)
class FairnessPolicy:
    """How far F1 of two groups may lie apart, in points of F1 (0.10: 0.80 and 0.70).

    A group with fewer than `min_positives` known failures is not judged: below it the largest gap of a fair model passes 0.10 in most
    windows. `confidence` is of the whole verdict, over all pairs of groups.
    """

    max_gap: Share = 0.10
    min_positives: Count = 30
    confidence: Share = 0.95


@dataclass(frozen=True)
class FeatureStorePolicy:
    """What the feature store must hold, by which keys it is asked, and when its rows count as stale.

    Stale: the newest online row is older than `max_age_s`, or `max_lag_s` behind the newest row of its source. A repair looks back
    `look_back_h` at most.
    """

    service: _Name = "asset_features"
    views: tuple[_Name, ...] = ("asset_sensors", "asset_wear")
    join_keys: tuple[_Name, ...] = ("asset_id",)
    max_age_s: Annotated[float, Field(gt=0)] = 3600.0
    max_lag_s: Annotated[float, Field(gt=0)] = 900.0
    null_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    look_back_h: Count = 168


class Worse(StrEnum):
    """Which way a metric moves when a model gets worse."""

    LOWER = "lower"
    HIGHER = "higher"


def _known_metric(name: str) -> str:
    if name not in (known := metric_names()):
        raise ValueError(f"no metric is called {name}; write one of {', '.join(known)}")
    return name


@dataclass(frozen=True)
class MetricRule:
    """How far one metric may move for the worse, relative to its baseline: beyond `medium` the incident is medium, beyond `high` high."""

    name: Annotated[str, AfterValidator(_known_metric)]
    worse: Worse
    medium: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        for key, limit in (("medium", self.medium), ("high", self.high)):
            if self.worse is Worse.LOWER and limit is not None and limit >= 1:
                raise ValueError(f"{key}: must be less than 1: nothing falls by more than all of it")

    @property
    def planned(self) -> float:
        """The move that a window is planned to show: of a high incident, or past the limit twice over."""
        if self.high is not None:
            return self.high
        return 1 - (1 - self.medium) ** 2 if self.worse is Worse.LOWER else (1 + self.medium) ** 2 - 1

    def severity(self, drop: float) -> Severity:
        return Severity.HIGH if self.high is not None and drop > self.high else Severity.MEDIUM

    def limit(self, drop: float) -> float:
        """The limit behind `severity`."""
        return self.high if self.high is not None and drop > self.high else self.medium


F1, PRECISION, RECALL, FALSE_ALARMS = "f1", "precision", "recall", "false_positive_rate"
RUNBOOK_RULES = (
    MetricRule(F1, Worse.LOWER, medium=0.10, high=0.20),
    MetricRule(PRECISION, Worse.LOWER, medium=0.15),
    MetricRule(RECALL, Worse.LOWER, medium=0.15),
)
# Where the limits of an older policy file are now: the position in RUNBOOK_RULES, and the key.
OLD_LIMITS = {"f1_medium": (0, "medium"), "f1_high": (0, "high"), "precision": (1, "medium"), "recall": (2, "medium")}


@dataclass(frozen=True)
class DropPolicy:
    """How far metrics may fall, relative to their baseline (runbook, "Severity Levels" and "Incident Types").

    `metrics`: a rule for each metric that counts; a model is judged by those that its task has. The first of these leads the sentence, and
    most of the `false_alarm_rate` is spent on it: how many unchanged models may ever be called fallen, over all metrics and all looks at
    a window. Below `min_positives` cases (binary: known failures) a drop that is not proven is no false alarm either. `confidence` is
    that of the interval shown. The other keys are those of older policy files, and mean the rule of that name.
    """

    metrics: Annotated[tuple[MetricRule, ...], Field(min_length=1)] = RUNBOOK_RULES
    min_positives: Count = 30
    confidence: Share = 0.95
    false_alarm_rate: Share = 0.01
    f1_medium: InitVar[Share | None] = None
    f1_high: InitVar[Share | None] = None
    precision: InitVar[Share | None] = None
    recall: InitVar[Share | None] = None

    def __post_init__(self, f1_medium: float | None, f1_high: float | None, precision: float | None, recall: float | None) -> None:
        given = {"f1_medium": f1_medium, "f1_high": f1_high, "precision": precision, "recall": recall}
        old = {key: limit for key, limit in given.items() if limit is not None}
        if old and self.metrics != RUNBOOK_RULES:
            raise ValueError(f"{next(iter(old))}: belongs into `metrics`, which is given too; keep `metrics` alone")
        rules = list(self.metrics)
        for key, limit in old.items():
            position, name = OLD_LIMITS[key]
            rule = rules[position]
            rules[position] = replace(rule, medium=limit) if name == "medium" else replace(rule, high=limit)
        object.__setattr__(self, "metrics", tuple(rules))
        names = [rule.name for rule in rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"metrics: {twice} has two rules; keep one")

    def rules_for(self, metrics: Container[str]) -> tuple[MetricRule, ...]:
        """Those that are about one of these metrics; the first leads."""
        return tuple(rule for rule in self.metrics if rule.name in metrics)

    def rule(self, metric: str) -> MetricRule | None:
        return next((rule for rule in self.metrics if rule.name == metric), None)

    def most(self, metric: str) -> float:
        """How far it may fall before that counts; without a rule all the way."""
        rule = self.rule(metric)
        return rule.medium if rule else 1.0


@dataclass(frozen=True)
class OutcomesPolicy:
    """When outcomes count as rewritten, and how many may be before what they say is no ground for an automatic change.

    Who reported an outcome may correct it for `settles_after_min`: until then the report is theirs alone, and they could have reported
    that at once. Later, or by somebody else, it is rewritten. `most_rewritten_a_day`: corrections of old maintenance records come one by
    one; fifty are a batch that somebody should know of. `most_rewritten_share`: of a window's known outcomes, from `least_rewritten`
    on. `most_figures_moved`: how far F1, precision or recall of a window may lie from those on the first-reported outcomes, relative; as
    far as a model may be from its baseline and count as recovered.
    """

    settles_after_min: Count = 60
    most_rewritten_a_day: Count = 50
    most_rewritten_share: Share = 0.05
    least_rewritten: Count = 10
    most_figures_moved: Share = 0.05


@dataclass(frozen=True)
class WindowPolicy:
    """On which outcomes performance is judged: those of the last hour, where they are `min_outcomes` with `min_positives` failures; else of
    the mature predictions of as many days as three times that many take, `most_days` at most."""

    min_outcomes: Count = 100
    min_positives: Count = 30
    most_days: Days = 28


@dataclass(frozen=True)
class RunLengthPolicy:
    """How often an unchanged model may be called fallen, and which fall is found fastest.

    `called_share` of the unchanged models, at most, ever within `within_days` of looks since the baseline was pinned; and
    `window_called_share` of the unchanged windows when one is judged once. `planned_fall` is relative to the baseline; half of it is taken
    from every look. A baseline whose own error does not allow such a fall to be proven is too short. `confidence` is of the interval shown.
    """

    called_share: Share = 0.4
    within_days: Days = 730
    window_called_share: Share = 0.005
    planned_fall: Share = 0.2
    confidence: Share = 0.95

    @property
    def slack(self) -> float:
        return self.planned_fall / 2


@dataclass(frozen=True)
class RecoveryPolicy:
    """F1 counts as recovered within `tolerance` (relative) of the baseline, on at least this many known outcomes and failures.

    `min_coverage`: and on at least this share of the outcomes that are usually known. The first outcomes to come are no fair sample:
    a failure is often known at once, that none happened only when the horizon is over.
    """

    min_labelled: Count = 100
    min_positives: Count = 30
    tolerance: Share = 0.05
    confidence: Share = 0.95
    min_coverage: Share = 0.5


@dataclass(frozen=True)
class RolloutPolicy:
    """`suspect_for_min`: a rollout may be the cause for so long (runbook, Step 2: "recent deployments (last 24 hours)").

    `starts_within_s`: a pod that is merely not ready may still be starting. `proven_after_min`: a revision that was in place for so long
    is taken to have served; ten minutes is the default of a Deployment's `progressDeadlineSeconds`.
    """

    suspect_for_min: Count = 1440
    starts_within_s: Annotated[float, Field(gt=0)] = 120.0
    proven_after_min: Count = 10


@dataclass(frozen=True)
class SeverityPolicy:
    """Limits of the Severity table and the alert list ("Automated Alerts").

    `all_flagged` is the share of predictions flagged high-risk that reads as "predicts all assets as high-risk";
    `missed_recall` the recall below which the model misses nearly every failure, `outage_error_rate` the share of failed requests that
    is a service outage. Rates are judged from `min_predictions` on.
    """

    drops: DropPolicy = field(default_factory=DropPolicy)
    outcomes: OutcomesPolicy = field(default_factory=OutcomesPolicy)
    window: WindowPolicy = field(default_factory=WindowPolicy)
    run_length: RunLengthPolicy = field(default_factory=RunLengthPolicy)
    all_flagged: Share = 0.90
    missed_recall: Share = 0.10
    min_predictions: Count = 200
    latency_p95_ms: Annotated[float, Field(gt=0)] = 2000.0
    error_rate: Share = 0.01
    outage_error_rate: Share = 0.50
    null_rate: Share = 0.05
    unmeasured_critical_alert: Severity = Severity.HIGH
    unmeasured_alert: Severity = Severity.MEDIUM
