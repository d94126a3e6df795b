"""What is known besides the checklist's findings when the cause is looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from mlrunbook.domain.evaluation.fairness import Fairness, judge_asset_type_gap
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.outcomes import OutcomeFeed, judge_feed
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Verdict, grade_drop, relative_drop
from mlrunbook.domain.evaluation.prediction_rows import confusion_of
from mlrunbook.domain.evaluation.probing import Probing
from mlrunbook.domain.evaluation.rewritten import RewriteVerdict, judge_rewrites
from mlrunbook.domain.evaluation.rollback_target import TargetChoice
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.evaluation.threshold import Replay, best_recovery, replay
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.investigation.inputs.faults import NOTHING_BROKEN, BrokenInputs
from mlrunbook.domain.investigation.logged_threshold import SAME, LoggedThreshold, logged_threshold
from mlrunbook.domain.investigation.rollouts import NO_HISTORY, RolloutVerdict
from mlrunbook.domain.investigation.serving_health import Seen, trouble_of
from mlrunbook.domain.investigation.upstream import Course
from mlrunbook.domain.observed import Change, Prediction, ServingStatus
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.tally import all_binary, as_binary

WEEK, DAY = timedelta(days=7), timedelta(hours=24)
RECENT_ROWS = 4000  # of the prediction log: about 3 s of a busy model, and enough failures for an interval
REFERENCE_ROWS, REFERENCE_PARTS = 4000, 8
HOLDS = 0.10  # relative: how far F1 of the other asset types may be below its baseline where the fall is not theirs
LEAST_APART = 0.4  # of the fall of some types: where others fell by more, all fell
MOST_LEFT = 0.5  # of a fall, once the threshold before is back
LEAST_OF_A_TYPE = 20  # predictions of an unknown asset type: fewer may be a typing error upstream


@dataclass(frozen=True)
class ThresholdChange:
    """`logged`: nobody reported it, the prediction log shows it; that sentence."""

    before: float
    after: float
    at: datetime
    author: str
    logged: str = ""


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
    courses: Mapping[str, Course] = field(default_factory=dict)  # how each numeric feature came from the baseline to now
    probing: Probing | None = None  # None: the prediction log was not read
    inputs: BrokenInputs = NOTHING_BROKEN  # what is wrong with the features, by what the rows logged
    threshold_logged: LoggedThreshold | None = None  # a change of the threshold that the rows show
    rollout: RolloutVerdict = NO_HISTORY
    missed: str = ""  # the critical failure that was missed, in a sentence
    dangerous: bool = False
    stopped: bool = False  # containment has stopped the model server: that it does not answer is no trouble
    policy: Policy = field(default_factory=Policy)

    @cached_property
    def verdict(self) -> Verdict | None:
        if self.metrics is None:
            return None
        return grade_metrics(self.metrics, self.policy.severity)

    @property
    def threshold_change(self) -> ThresholdChange | None:
        """As it was reported; or as the rows show it, where that is another one."""
        reported, seen = last_threshold_change(self.changes or (), self.detected_at), self.threshold_logged
        if seen is None or (reported and abs(reported.after - seen.after) <= SAME):
            return reported
        return ThresholdChange(seen.before, seen.after, seen.at, "nobody who is noted", seen.sentence)

    @property
    def deployment(self) -> Change | None:
        """The last deployment or rollback in the week before detection."""
        recent = (c for c in self.changes or () if c.kind in ("deployment", "rollback") and self._counts(c.at))
        return max(recent, key=lambda c: c.at, default=None)

    @property
    def feed(self) -> OutcomeFeed | None:
        return None if self.metrics is None else judge_feed(self.metrics)

    @property
    def rewritten(self) -> RewriteVerdict | None:
        return None if self.metrics is None else judge_rewrites(self.metrics, self.policy.severity.outcomes)

    @property
    def _no_outcomes(self) -> str:
        """Why outcomes do not say how the model does; "" where they do."""
        if self.feed and self.feed.stalled:
            return self.feed.sentence
        return self.rewritten.sentence if self.rewritten and self.rewritten.beyond else ""

    @cached_property
    def fallen_types(self) -> Mapping[str, str]:
        """The asset types whose performance fell while that of all the others did not, and the sentence that says so.

        They may have pulled down the figure of all together. One that is too rare to be proven fallen by itself may be proven to have
        fallen behind another.
        """
        metrics = self.metrics
        if metrics is None:
            return {}
        judged = judge_asset_types(metrics, self.policy.severity.drops)
        fallen = {segment.name: f"asset type {segment.sentence}" for segment in judged.fallen}
        if self.verdict and self.verdict.is_real:
            return fallen if fallen and self._others_hold(fallen) else {}
        if fallen or not metrics.baseline.by_asset_type:
            return fallen
        groups = judge_asset_type_gap(metrics, self.policy.fairness)
        return {groups.gap.worse: groups.sentence} if groups.verdict is Fairness.UNFAIR and groups.gap else {}

    def _others_hold(self, fallen: Collection[str]) -> bool:
        """Whether the other asset types together are as good as they were: then the fall of all is that of these."""
        metrics, drops = self.metrics, self.policy.severity.drops
        if metrics is None:
            return False
        before, now = all_binary(metrics.baseline.by_asset_type), all_binary(metrics.current.by_asset_type)
        was = sum((c for name, c in before.items() if name not in fallen and name in now), Confusion())
        is_ = sum((c for name, c in now.items() if name not in fallen), Confusion())
        if min(was.positives, is_.positives) < drops.min_positives:
            return False
        if grade_drop(was, is_, drops).is_real or _drop_of("f1", was, is_) > HOLDS:
            return False
        theirs = [sum((side[name] for name in fallen if name in before and name in now), Confusion()) for side in (before, now)]
        return all(
            _drop_of(what, was, is_) <= max(HOLDS, LEAST_APART * fell)
            for what in ("precision", "recall")
            if (fell := _drop_of(what, theirs[0], theirs[1])) > HOLDS
        )

    @property
    def deployed_in_a_day(self) -> str | None:
        """The version deployed in the last 24 h before detection."""
        last = self.deployment
        return last.ref if last and last.kind == "deployment" and self.detected_at - last.at <= DAY else None

    @property
    def trouble(self) -> Seen | None:
        """What is wrong with serving itself, if anything is seen."""
        status = replace(self.status, server_healthy=True) if self.status and self.stopped else self.status
        return trouble_of(status, self.metrics.current if self.metrics else None, self.policy.severity)

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
        """Whether performance fell, over all or for an asset type. Where outcomes stopped coming, or were rewritten, nobody can say."""
        if self.dangerous:
            return True
        if self._no_outcomes:
            return None
        if self.fallen_types:
            return True
        verdict = self.verdict
        return None if verdict is None or not verdict.is_decided else verdict.is_real

    @property
    def leading_fell(self) -> bool:
        """Not where only another metric is proven to have fallen, and the one that leads has risen meanwhile."""
        verdict = self.verdict
        if self.dangerous or verdict is None or not verdict.is_real:
            return True
        return verdict.drop is None or verdict.drop > 0

    @property
    def degraded_words(self) -> str:
        if self.dangerous:
            return "measured dangerous"
        if self._no_outcomes:
            return self._no_outcomes
        if self.fallen_types:
            return "; ".join(self.fallen_types.values())
        return self.verdict.reason if self.verdict else "performance is not measured"

    def _counts(self, at: datetime) -> bool:
        return self.detected_at - WEEK <= at <= self.detected_at


def _drop_of(what: str, before: Confusion, now: Confusion) -> float:
    return relative_drop(getattr(before, what), getattr(now, what)) or 0.0


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None  # what is no threshold is nothing to go back to
    return float(value)


@dataclass(frozen=True)
class About:
    """What the incident is about: the version (None: what serves), a critical failure that was missed, in a sentence, and what triage
    and containment have made of it."""

    detected_at: datetime
    version: str | None = None
    missed: str = ""
    dangerous: bool = False  # measured so in triage
    stopped: bool = False  # containment has stopped the model server


@dataclass(frozen=True)
class Changed:
    """The change history (None: not readable) and the rollouts of the model server."""

    history: Sequence[Change] | None
    rollout: RolloutVerdict = NO_HISTORY


@dataclass(frozen=True)
class Versions:
    """What serves (None: not readable), what the version that the incident is about was trained on, and how the others do."""

    status: ServingStatus | None
    trained_types: Sequence[str] | None = None
    targets: TargetChoice | None = None


@dataclass(frozen=True)
class Log:
    """What the prediction log holds: rows whose outcome is known, the course of each feature, signs of probing (None: not readable), what
    is wrong with the features; `rows` and `reference` are those of now and a sample of the baseline's."""

    labelled: Sequence[Prediction]
    courses: Mapping[str, Course] = field(default_factory=dict)
    probing: Probing | None = None
    inputs: BrokenInputs = NOTHING_BROKEN
    rows: Sequence[Prediction] = ()
    reference: Sequence[Prediction] = ()


def gather(
    about: About,
    policy: Policy,
    *,
    changed: Changed,
    metrics: ModelMetrics | None,
    log: Log,
    features: FeatureVerdict | None,
    versions: Versions,
) -> DiagnosisFacts:
    """Assemble the facts; replay other thresholds on the labelled predictions of the version the incident is about. Where only some asset
    types lost performance the replay is of those."""
    version = about.version or (versions.status.serving_version if versions.status else None)
    facts = DiagnosisFacts(
        detected_at=about.detected_at,
        metrics=metrics,
        changes=changed.history,
        status=versions.status,
        model_version=version,
        targets=versions.targets,
        features=features,
        unseen_types=unseen_types([p.asset_type for p in log.labelled], versions.trained_types),
        courses=log.courses,
        probing=log.probing,
        inputs=log.inputs,
        threshold_logged=logged_threshold(log.reference, [*log.rows, *log.labelled], version=version, until=about.detected_at),
        rollout=changed.rollout,
        missed=about.missed,
        dangerous=about.dangerous,
        stopped=about.stopped,
        policy=policy,
    )
    return _replayed(facts, log.labelled)


def _replayed(facts: DiagnosisFacts, predictions: Sequence[Prediction]) -> DiagnosisFacts:
    """With the answers that the threshold before the last change, and the best one there is, would have given."""
    hit, version, metrics = facts.fallen_types, facts.model_version, facts.metrics
    known = [p for p in predictions if p.outcome is not None and version in (None, p.version)]
    labelled = [p for p in known if not hit or p.asset_type in hit]
    baseline = _baseline_of(metrics, hit) if metrics else None
    if not labelled or metrics is None or baseline is None or baseline.f1 is None:
        return facts
    change, drops = facts.threshold_change, facts.policy.severity.drops
    before = _at_former(labelled, change, baseline, drops) if change else None
    if hit and change and before and before.recoverable is False:
        # The types that fell are those that did worst, by chance as well. A threshold is that of all: it goes back first.
        of_all = _at_former(known, change, metrics.baseline.confusion, drops)
        before = of_all if of_all and of_all.recoverable else before
    scores, outcomes = [p.score for p in labelled], [bool(p.outcome) for p in labelled]
    return replace(facts, replay_before=before, replay_best=best_recovery(scores, outcomes, baseline_f1=baseline.f1))


def _at_former(rows: Sequence[Prediction], change: ThresholdChange, baseline: Confusion, drops: DropPolicy) -> Replay | None:
    """What the threshold before would have given. Where it takes back most of the fall, and what is left of it is not proven, it is
    recoverable as well: as few rows as these may be that much worse by chance."""
    if baseline.f1 is None:
        return None
    found = replay([p.score for p in rows], [bool(p.outcome) for p in rows], change.before, baseline_f1=baseline.f1)
    left, fell = relative_drop(baseline.f1, found.f1), relative_drop(baseline.f1, confusion_of(rows).f1)
    if found.recoverable is not False or left is None or fell is None or left > MOST_LEFT * fell:
        return found
    if grade_drop(baseline, found.expected, drops).is_real:
        return found
    return replace(found, recoverable=True, sentence=f"{found.sentence}, which so few outcomes do not prove")


def _baseline_of(metrics: ModelMetrics, types: Collection[str]) -> Confusion:
    """Of these asset types together; of all when none is named."""
    if not types:
        return metrics.baseline.confusion
    return sum((as_binary(metrics.baseline.by_asset_type[name]) for name in types), Confusion())


def unseen_types(recent: Sequence[str], trained: Sequence[str] | None) -> dict[str, float] | None:
    """The share of each asset type that the training never saw. None when nobody recorded what it saw, or nothing was predicted."""
    if trained is None or not recent:
        return None
    counts = Counter(recent)
    return {
        name: n / len(recent) for name, n in sorted(counts.items()) if name not in trained and name != "unknown" and n >= LEAST_OF_A_TYPE
    }
