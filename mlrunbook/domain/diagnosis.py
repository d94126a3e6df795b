"""What probably caused the incident, and which path of Step 4 answers it.

Each cause has lines of evidence with a weight; its score is the weight that holds, 0..1. A line may be required: refuted it rules
the cause out, unknown it keeps the cause below the bar. No model, no training: a person must be able to check every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from mlrunbook.domain.actions import Path
from mlrunbook.domain.findings import Finding, State
from mlrunbook.domain.performance import Confusion, DropPolicy, Evidence, ModelMetrics, Verdict, grade_drop
from mlrunbook.domain.threshold import Replay, best_recovery, replay

if TYPE_CHECKING:
    from mlrunbook.ports import Change, Prediction, ServingStatus

BAR = 0.5  # below this a cause is a lead for a person, not a diagnosis
DAY, WEEK = timedelta(hours=24), timedelta(days=7)


class Cause(StrEnum):
    """In the order that breaks ties: what can be undone comes first."""

    THRESHOLD_CHANGE = "threshold_change"
    BAD_DEPLOYMENT = "bad_deployment"
    SERVING_INFRASTRUCTURE = "serving_infrastructure"
    FEATURE_STORE_OUTAGE = "feature_store_outage"
    NULL_OR_BROKEN_FEATURE = "null_or_broken_feature"
    DATA_DRIFT = "data_drift"
    NOTHING_WRONG = "nothing_wrong"
    UNKNOWN = "unknown"


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
    dangerous: bool = False
    drop_policy: DropPolicy = field(default_factory=DropPolicy)

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
    def degraded(self) -> bool | None:
        if self.dangerous:
            return True
        verdict = self.verdict
        return None if verdict is None or verdict.evidence is Evidence.INSUFFICIENT else verdict.is_real

    def _counts(self, at: datetime) -> bool:
        return self.detected_at - WEEK <= at <= self.detected_at


@dataclass(frozen=True)
class ScoredCause:
    """`supports` and `against` are the sentences behind the score; `open` what could not be checked."""

    cause: Cause
    score: float
    supports: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """`path` None: no safe automatic path; `sentence` then says what a person should look at. `chain` seeds the 5 whys.

    `headline` is the short form for pages and notices; `began_at` when the cause set in, where a change is the cause.
    """

    causes: tuple[ScoredCause, ...]
    path: Path | None
    chain: tuple[str, ...]
    sentence: str
    headline: str
    began_at: datetime | None = None
    target_version: str | None = None
    target_threshold: float | None = None

    @property
    def top(self) -> ScoredCause:
        return self.causes[0]


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
    dangerous: bool = False,
    drop_policy: DropPolicy | None = None,
) -> DiagnosisFacts:
    """Assemble the facts; replay other thresholds on the labelled predictions of the version the incident is about."""
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
        dangerous=dangerous,
        drop_policy=drop_policy or DropPolicy(),
    )


@dataclass(frozen=True)
class _Line:
    """One line of evidence. `holds` None: could not be checked."""

    weight: float
    holds: bool | None
    sentence: str
    required: bool = False


def diagnose(findings: Sequence[Finding], facts: DiagnosisFacts, now: datetime) -> Diagnosis:
    """Rank the causes and pick the path. `now` only words how long ago things happened."""
    states = {f.key: f for f in findings}
    causes = [_score(cause, lines) for cause, lines in _evidence(states, facts, now).items()]
    causes = sorted(causes, key=lambda c: (-round(c.score, 6), list(Cause).index(c.cause)))
    if causes[0].score < BAR:
        causes.insert(0, ScoredCause(Cause.UNKNOWN, 0.0, ("no cause is supported well enough to act on",)))
    top = causes[0]
    path, version, threshold, advice = _path(top.cause, facts)
    headline = _HEADLINES[top.cause].format(version=facts.model_version or "the serving version")
    short = f"{headline}: {'; '.join(top.supports[:1])}"
    if facts.verdict and facts.verdict.is_real:
        short += f"; {facts.verdict.reason}"
    sentence = f"{headline}: {'; '.join(top.supports)}. {advice}"
    began = {Cause.BAD_DEPLOYMENT: facts.deployment, Cause.THRESHOLD_CHANGE: facts.threshold_change}.get(top.cause)
    chain = _chain(top.cause, facts, states)
    return Diagnosis(tuple(causes), path, chain, sentence, short, began.at if began else None, version, threshold)


_HEADLINES = {
    Cause.THRESHOLD_CHANGE: "the decision threshold was changed",
    Cause.BAD_DEPLOYMENT: "{version} is a bad release",
    Cause.SERVING_INFRASTRUCTURE: "the model server is in trouble",
    Cause.FEATURE_STORE_OUTAGE: "the feature store is out",
    Cause.NULL_OR_BROKEN_FEATURE: "a feature is missing or broken",
    Cause.DATA_DRIFT: "the data have drifted from what the model learned",
    Cause.NOTHING_WRONG: "nothing is wrong that can be measured",
    Cause.UNKNOWN: "the cause is not known",
}


def _score(cause: Cause, lines: Sequence[_Line]) -> ScoredCause:
    score = sum(line.weight for line in lines if line.holds) / sum(line.weight for line in lines)
    if any(line.required and line.holds is None for line in lines):
        score = min(score, BAR - 0.1)
    if any(line.required and line.holds is False for line in lines):
        score = 0.0

    def said(holds: bool | None) -> tuple[str, ...]:
        return tuple(line.sentence for line in lines if line.holds is holds)

    return ScoredCause(cause, round(score, 3), said(True), said(False), said(None))


def _evidence(found: Mapping[str, Finding], facts: DiagnosisFacts, now: datetime) -> dict[Cause, list[_Line]]:
    verdict, change, deployment = facts.verdict, facts.threshold_change, facts.deployment
    degraded_words = "measured dangerous" if facts.dangerous else verdict.reason if verdict else "performance is not measured"
    history = facts.changes is not None
    old_recovers = facts.replay_before.recoverable if facts.replay_before else None

    def suspect(*keys: str) -> bool | None:
        """Is any of these items suspect? None when none is and one could not be checked."""
        seen = [found[k].state if k in found else State.UNKNOWN for k in keys]
        return True if State.SUSPECT in seen else None if State.UNKNOWN in seen else False

    def told(key: str) -> str:
        return found[key].sentence if key in found else "not checked"

    def degraded(weight: float, *, required: bool = False) -> _Line:
        return _Line(weight, facts.degraded, degraded_words, required)

    moved, nulls = "data_quality.feature_distributions", "data_quality.missing_features"
    logs, latency = "infrastructure.server_logs", "infrastructure.inference_latency"
    reads, up = "data_quality.feature_store_connectivity", "infrastructure.feature_store_availability"

    fresh_deployment = None if not history else deployment is not None
    in_a_day = None if not history else deployment is not None and facts.detected_at - deployment.at <= DAY
    changed_in_a_day = None if change is None else facts.detected_at - change.at <= DAY
    deployed = _deployed_words(deployment, history, now)
    no_change = None if not history else deployment is None and change is None
    inputs_sound = _not(suspect(moved, nulls))
    # A recent threshold change that replays well explains the drop without the deployment.
    unexplained = True if change is None else _not(old_recovers)
    served = facts.metrics.current.versions if facts.metrics else ()
    version = deployment.ref if deployment else None

    healthy = facts.status.server_healthy if facts.status else None
    slow_only = None if suspect(latency) is None else bool(suspect(latency)) and facts.degraded is not True
    answers = {True: "the model server answers", False: "the model server does not answer", None: "the server's health is not known"}[
        healthy
    ]

    nothing = [f for f in found.values() if f.state is State.SUSPECT and not f.key.startswith("recent_changes.")]
    checked = None if facts.degraded is None else not nothing
    return {
        Cause.BAD_DEPLOYMENT: [
            _Line(0.10, fresh_deployment, deployed, required=True),
            _Line(0.20, in_a_day, "it was within 24 h of detection" if in_a_day else "it was not within 24 h of detection"),
            degraded(0.25, required=True),
            _Line(
                0.0, unexplained, "no threshold change explains it" if unexplained else "a threshold change may explain it", required=True
            ),
            _Line(0.20, _not(facts.replay_best.recoverable if facts.replay_best else None), _best_words(facts)),
            _Line(0.15, inputs_sound, f"inputs: {told(moved)}; {told(nulls)}"),
            _Line(
                0.10, version in served if served and version else None, f"predictions come from {', '.join(served) or 'unknown versions'}"
            ),
        ],
        Cause.THRESHOLD_CHANGE: [
            _Line(0.15, None if not history else change is not None, _change_words(change, history, now), required=True),
            _Line(0.15, changed_in_a_day, f"the change was {'within' if changed_in_a_day else 'not within'} 24 h of detection"),
            degraded(0.20, required=True),
            _Line(
                0.50,
                old_recovers,
                facts.replay_before.sentence if facts.replay_before else "the old threshold was not replayed",
                required=True,
            ),
        ],
        Cause.SERVING_INFRASTRUCTURE: [
            _Line(0.7, _not(healthy), answers) if healthy is not True else _Line(0.6, slow_only, told(latency)),
            _Line(0.3, suspect(logs), told(logs)),
        ],
        Cause.FEATURE_STORE_OUTAGE: [
            _Line(0.7, suspect(reads, up), f"{told(reads)}; {told(up)}", required=True),
            degraded(0.3),
        ],
        Cause.NULL_OR_BROKEN_FEATURE: [
            _Line(0.6, suspect(nulls), told(nulls), required=True),
            degraded(0.2),
            _Line(0.2, no_change, "no deployment or threshold change came before it" if no_change else "something else changed before it"),
        ],
        Cause.DATA_DRIFT: [
            _Line(0.4, suspect(moved), told(moved), required=True),
            degraded(0.2),
            _Line(0.4, no_change, "no deployment or threshold change came before it" if no_change else "something else changed before it"),
        ],
        Cause.NOTHING_WRONG: [
            _Line(0.6, _not(facts.degraded), degraded_words, required=True),
            _Line(0.4, checked, "no item of the checklist is suspect" if checked else f"{len(nothing)} items are suspect", required=True),
        ],
    }


def _path(cause: Cause, facts: DiagnosisFacts) -> tuple[Path | None, str | None, float | None, str]:
    """The path, its target, and the advice in words."""
    change = facts.threshold_change
    status, previous = facts.status, facts.status.previous_version if facts.status else None
    if status and facts.model_version and status.serving_version != facts.model_version:
        previous = status.serving_version  # a temporary rollback has been made already: stay there
    if cause is Cause.BAD_DEPLOYMENT:
        if previous and previous != facts.model_version:
            return Path.ROLLBACK, previous, None, f"Path A: roll back to {previous}"
        return None, None, None, "No safe automatic path here: there is no previous version to go back to; deploy a fixed one"
    if cause is Cause.THRESHOLD_CHANGE and change:
        return Path.THRESHOLD, None, change.before, f"Path D: restore the threshold {change.before:g} that was configured before"
    look = {
        Cause.SERVING_INFRASTRUCTURE: "look at the model server: its logs, its host, its last restart",
        Cause.FEATURE_STORE_OUTAGE: "restore the feature store, then materialize (Path B, by hand)",
        Cause.NULL_OR_BROKEN_FEATURE: "find where the feature's values are lost: source, pipeline, feature store (Path B, by hand)",
        Cause.DATA_DRIFT: "confirm the drift, then retrain on recent data (Path C, by hand)",
        Cause.NOTHING_WRONG: "wait for more outcomes, or close it as a false alarm",
    }.get(cause, "go through the suspect and unknown findings")
    return None, None, None, f"No safe automatic path here: {look}"


def _chain(cause: Cause, facts: DiagnosisFacts, found: Mapping[str, Finding]) -> tuple[str, ...]:
    """Why-because lines, as far as the facts reach; the review asks on from there."""
    counts = facts.metrics.current.confusion if facts.metrics else None
    version, deployment, change = facts.model_version or "the model", facts.deployment, facts.threshold_change
    chain = [f"Why did performance fall? Because {_errors_words(version, counts)}"]
    if cause is Cause.THRESHOLD_CHANGE and change and facts.replay_before:
        chain.append(f"Why did {version} do so? Because its decision threshold was {change.after:g} instead of {change.before:g}")
        chain.append(f"Why is the threshold the reason? Because {facts.replay_before.sentence}")
        chain.append(f"Why was it {change.after:g}? Because {change.author} set it at {change.at:%Y-%m-%d %H:%M} UTC")
        return tuple(chain)
    if cause is Cause.BAD_DEPLOYMENT and deployment:
        chain.append(f"Why did {version} answer? Because {deployment.author} made it serve at {deployment.at:%Y-%m-%d %H:%M} UTC")
        if facts.replay_best and facts.replay_best.recoverable is False:
            chain.append(f"Why is the model itself the reason? Because even {facts.replay_best.sentence}")
        return tuple(chain)
    key = {
        Cause.DATA_DRIFT: "data_quality.feature_distributions",
        Cause.NULL_OR_BROKEN_FEATURE: "data_quality.missing_features",
        Cause.FEATURE_STORE_OUTAGE: "data_quality.feature_store_connectivity",
        Cause.SERVING_INFRASTRUCTURE: "infrastructure.server_logs",
    }.get(cause)
    if key and key in found:
        chain.append(f"Why did that happen? Because {found[key].sentence}")
    return () if cause is Cause.NOTHING_WRONG else tuple(chain)


def _errors_words(version: str, counts: Confusion | None) -> str:
    if counts is None or counts.n == 0:
        return f"{version} gave wrong or no answers (not measured)"
    return f"{version} missed {counts.fn} of {counts.positives} failures, and {counts.fp} of its {counts.tp + counts.fp} alarms were false"


def _deployed_words(deployment: Change | None, history: bool, now: datetime) -> str:
    if deployment is None:
        return "no deployment in the week before detection" if history else "the change history cannot be read"
    return f"{deployment.kind} of {deployment.ref} by {deployment.author} {_hours(now - deployment.at)} ago"


def _change_words(change: ThresholdChange | None, history: bool, now: datetime) -> str:
    if change is None:
        return "no threshold change in the week before detection" if history else "the change history cannot be read"
    return f"{change.author} changed the threshold from {change.before:g} to {change.after:g} {_hours(now - change.at)} ago"


def _best_words(facts: DiagnosisFacts) -> str:
    return facts.replay_best.sentence if facts.replay_best else "no other threshold was replayed"


def _hours(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value
