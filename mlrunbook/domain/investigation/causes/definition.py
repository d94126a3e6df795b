"""What the runbook knows about a cause, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.causes.case_file import CaseFile, Line
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.roles import Role


@dataclass(frozen=True)
class Repair:
    """Path B: which feature views to materialise, from when on (ISO 8601; None: incremental), and which schedules to resume.

    `until` and `as_of` as in `actions.Materialize`.
    """

    views: tuple[str, ...]
    since: str | None = None
    resume: tuple[str, ...] = ()
    until: str | None = None
    as_of: str | None = None

    @classmethod
    def of(cls, features: FeatureVerdict) -> Repair:
        since = features.since.isoformat() if features.since else None
        return cls(features.views, since, features.resume, as_of=features.judged_at.isoformat())


@dataclass(frozen=True)
class Remedy:
    """The path of Step 4 with its target, and the advice in words. `path` None: none is safe; the advice says what to look at."""

    advice: str
    path: Path | None = None
    version: str | None = None
    threshold: float | None = None
    revision: int | None = None  # of the rollout history
    repair: Repair | None = None


@dataclass(frozen=True)
class FollowUp:
    """An action item of the review."""

    action: str
    owner: Role
    days: int  # to do it in


@dataclass(frozen=True)
class Prevention:
    """What prevents the cause from coming back, and lessons to start the review's discussion. None: left to the meeting."""

    follow_ups: tuple[FollowUp, ...]
    technical: str | None = None
    process: str | None = None
    monitoring: str | None = None


CAUSE_OPEN = Prevention((FollowUp("Agree on the cause and on what prevents it", Role.ML_TEAM_LEAD, 7),))


def not_dated(_: CaseFile) -> datetime | None:
    return None


@dataclass(frozen=True)
class CauseDefinition:
    """One cause. The score is the weight of the lines of evidence that hold, 0..1: no model, no training, a person can check every number.

    `headline` may name the suspect version as {version}. `whys`: why-because lines as far as the facts reach; the review asks on from
    there. `began_at`: when the cause set in, where a change is the cause.
    """

    cause: Cause
    headline: str
    evidence: Callable[[CaseFile], list[Line]]
    remedy: Callable[[CaseFile], Remedy]
    whys: Callable[[CaseFile], tuple[str, ...]]
    prevention: Prevention
    began_at: Callable[[CaseFile], datetime | None] = not_dated


def by_hand(look: str) -> Remedy:
    return Remedy(f"No safe automatic path here: {look}")


def retrain_or(file: CaseFile, cause: Cause, look: str) -> Remedy:
    """Path C for the causes that the policy names; else a person investigates. So does one where the metric that leads has risen:
    whether more failures caught are worth more false alarms is no question of training data."""
    if not file.facts.leading_fell:
        return by_hand(f"overall the model does better than before, so a person decides what to trade for it; {look}")
    if cause in file.facts.policy.retraining.triggers:
        return Remedy("Path C: retrain on recent data, and promote only what proves better", Path.RETRAIN)
    return by_hand(look)
