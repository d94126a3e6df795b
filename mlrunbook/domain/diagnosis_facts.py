"""What is known besides the checklist's findings when the cause is looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlrunbook.domain.performance import DropPolicy, Evidence, ModelMetrics, Verdict, grade_drop
from mlrunbook.domain.serving import Seen, trouble_of
from mlrunbook.domain.severity import SeverityPolicy
from mlrunbook.domain.threshold import Replay, best_recovery, replay

if TYPE_CHECKING:
    from mlrunbook.domain.candidates import TargetChoice
    from mlrunbook.domain.features import FeatureVerdict
    from mlrunbook.ports import Change, Prediction, ServingStatus

WEEK, DAY = timedelta(days=7), timedelta(hours=24)
LEAST_OF_A_TYPE = 20  # predictions of an unknown asset type: fewer may be a typing error upstream


@dataclass(frozen=True)
class ThresholdChange:
    before: float
    after: float
    at: datetime
    author: str


@dataclass(frozen=True)
class DiagnosisFacts:
    """What is known besides the findings. `changes` None: not readable. `dangerous`: measured so in triage.

    Only what happened up to `detected_at` can be a cause; later changes are the response itself.
    """

    detected_at: datetime
    metrics: ModelMetrics | None = None
    changes: Sequence[Change] | None = None
    status: ServingStatus | None = None
    model_version: str | None = None  # the version the incident is about
    replay_before: Replay | None = None  # at the threshold before the last change
    replay_best: Replay | None = None  # at the best threshold there is
    targets: TargetChoice | None = None  # every other version, replayed on the same requests
    features: FeatureVerdict | None = None  # None: no feature store, or nothing read
    unseen_types: Mapping[str, float] | None = None  # share of recent predictions by asset type the version never saw; None: not known
    dangerous: bool = False
    drop_policy: DropPolicy = field(default_factory=DropPolicy)
    limits: SeverityPolicy = field(default_factory=SeverityPolicy)  # of latency and errors
    retrain_triggers: frozenset[str] = frozenset()  # causes for which path C may be prepared without being asked for

    @property
    def verdict(self) -> Verdict | None:
        if self.metrics is None:
            return None
        return grade_drop(self.metrics.baseline.confusion, self.metrics.current.confusion, self.drop_policy)

    @property
    def threshold_change(self) -> ThresholdChange | None:
        return last_threshold_change(self.changes or (), self.detected_at)

    @property
    def deployment(self) -> Change | None:
        """The last deployment or rollback in the week before detection."""
        recent = (c for c in self.changes or () if c.kind in ("deployment", "rollback") and self._counts(c.at))
        return max(recent, key=lambda c: c.at, default=None)

    @property
    def deployed_in_a_day(self) -> str | None:
        """The version deployed in the last 24 h before detection."""
        last = self.deployment
        return last.ref if last and last.kind == "deployment" and self.detected_at - last.at <= DAY else None

    @property
    def trouble(self) -> Seen | None:
        """What is wrong with serving itself, if anything is seen."""
        return trouble_of(self.status, self.metrics.current if self.metrics else None, self.limits)

    @property
    def not_loaded(self) -> str | None:
        """Why the model server cannot load what the registry names."""
        return self.status.not_loaded if self.status else None

    @property
    def suspect_version(self) -> str | None:
        """The version a bad release would be: what serves, or what should and cannot be loaded."""
        return self.status.serving_version if self.status and self.status.not_loaded else self.model_version

    @property
    def degraded(self) -> bool | None:
        if self.dangerous:
            return True
        verdict = self.verdict
        return None if verdict is None or verdict.evidence is Evidence.INSUFFICIENT else verdict.is_real

    def _counts(self, at: datetime) -> bool:
        return self.detected_at - WEEK <= at <= self.detected_at


def last_threshold_change(changes: Sequence[Change], until: datetime) -> ThresholdChange | None:
    """The last `config` change that moved the threshold in the week up to `until`.

    Its `detail` is `{"from": {"threshold": x, ...}, "to": {"threshold": y, ...}}`.
    """
    for change in sorted(changes, key=lambda c: c.at, reverse=True):
        if change.kind != "config" or not until - WEEK <= change.at <= until:
            continue
        before, after = (_threshold_of(change.detail.get(side)) for side in ("from", "to"))
        if before is not None and after is not None and before != after:
            return ThresholdChange(before, after, change.at, change.author)
    return None


def _threshold_of(settings: object) -> float | None:
    value = settings.get("threshold") if isinstance(settings, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def gather(
    *,
    detected_at: datetime,
    metrics: ModelMetrics | None,
    changes: Sequence[Change] | None,
    status: ServingStatus | None,
    predictions: Sequence[Prediction],
    model_version: str | None = None,
    trained_types: Sequence[str] | None = None,
    targets: TargetChoice | None = None,
    features: FeatureVerdict | None = None,
    dangerous: bool = False,
    drop_policy: DropPolicy | None = None,
    limits: SeverityPolicy | None = None,
    retrain_triggers: Sequence[str] = (),
) -> DiagnosisFacts:
    """Assemble the facts; replay other thresholds on the labelled predictions of the version the incident is about, whose training
    saw `trained_types`."""
    version = model_version or (status.serving_version if status else None)
    labelled = [p for p in predictions if p.outcome is not None and (version is None or p.version == version)]
    scores, outcomes = [p.score for p in labelled], [bool(p.outcome) for p in labelled]
    baseline_f1 = metrics.baseline.confusion.f1 if metrics else None
    change = last_threshold_change(changes or (), detected_at)
    can_replay = bool(labelled) and baseline_f1 is not None
    return DiagnosisFacts(
        detected_at=detected_at,
        metrics=metrics,
        changes=changes,
        status=status,
        model_version=version,
        replay_before=replay(scores, outcomes, change.before, baseline_f1=baseline_f1 or 0) if can_replay and change else None,
        replay_best=best_recovery(scores, outcomes, baseline_f1=baseline_f1 or 0) if can_replay else None,
        targets=targets,
        features=features,
        unseen_types=unseen_types([p.asset_type for p in predictions], trained_types),
        dangerous=dangerous,
        drop_policy=drop_policy or DropPolicy(),
        limits=limits or SeverityPolicy(),
        retrain_triggers=frozenset(map(str, retrain_triggers)),
    )


def unseen_types(recent: Sequence[str], trained: Sequence[str] | None) -> dict[str, float] | None:
    """The share of each asset type that the training never saw. None when nobody recorded what it saw, or nothing was predicted."""
    if trained is None or not recent:
        return None
    counts = Counter(recent)
    return {
        name: n / len(recent) for name, n in sorted(counts.items()) if name not in trained and name != "unknown" and n >= LEAST_OF_A_TYPE
    }
