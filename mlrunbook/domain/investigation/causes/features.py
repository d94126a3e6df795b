"""Causes in the feature store: it is out, its values are lost, or they are stale."""

from __future__ import annotations

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.causes.case_file import AVAILABILITY, FRESHNESS, MISSING, READS, CaseFile, Line
from mlrunbook.domain.investigation.causes.definition import CauseDefinition, FollowUp, Prevention, Remedy, Repair, by_hand, retrain_or
from mlrunbook.domain.observed import FeatureFault
from mlrunbook.domain.roles import Role

STALE = frozenset({FeatureFault.STALE_JOB, FeatureFault.STALE_DATA, FeatureFault.FUTURE_END, FeatureFault.ENTITIES_MISSING})
NULLS = frozenset({FeatureFault.NULLS_ONLINE, FeatureFault.NULLS_IN_SOURCE})


def _problems(file: CaseFile, faults: frozenset[FeatureFault]) -> list[str]:
    return [p.sentence for p in file.facts.features.problems if p.fault in faults] if file.facts.features else []


def _materialize_or(file: CaseFile, cause: Cause, look: str) -> Remedy:
    features = file.facts.features
    if features and features.mendable:
        return Remedy(f"Path B: materialize {', '.join(features.views)}", Path.MATERIALIZE, repair=Repair.of(features))
    return retrain_or(file, cause, look)


def _whys_of(file: CaseFile, key: str) -> tuple[str, ...]:
    fell = file.performance_of_a_type_fell
    return (fell, f"Why did that happen? Because {file.sentence_of(key)}") if key in file.findings else (fell,)


# --- the feature store is out


def outage_evidence(file: CaseFile) -> list[Line]:
    words = f"{file.sentence_of(READS)}; {file.sentence_of(AVAILABILITY)}"
    return [Line(0.8, file.suspect(READS, AVAILABILITY), words, required=True), file.degraded(0.2)]


def outage_remedy(file: CaseFile) -> Remedy:
    look = "restore the feature store, then materialize what came meanwhile (deployment `materialize`)"
    return retrain_or(file, Cause.FEATURE_STORE_OUTAGE, look)


def outage_whys(file: CaseFile) -> tuple[str, ...]:
    return _whys_of(file, READS)


FEATURE_STORE_OUTAGE = CauseDefinition(
    Cause.FEATURE_STORE_OUTAGE,
    "the feature store is out",
    outage_evidence,
    outage_remedy,
    outage_whys,
    Prevention(
        (
            FollowUp("Fix what took the feature store down", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp("Decide what the model does without fresh features", Role.ML_TEAM_LEAD, 14),
        ),
        "A feature store that answers a health check may still fail reads",
        "Changes of the feature pipeline need the model owner's eye",
        "Measure data age with a real read of the online store",
    ),
)


# --- a feature is missing or broken


def nulls_evidence(file: CaseFile) -> list[Line]:
    """What the rows logged, or nulls in the store that the next prediction reads."""
    stored, broken = _problems(file, NULLS), _broken(file)
    words = "; ".join([*stored, broken] if broken else stored) or file.sentence_of(MISSING)
    return [
        Line(0.6, True if stored or broken else file.suspect(MISSING), words, required=True),
        file.degraded(0.2),
        file.nothing_changed(),
    ]


def _broken(file: CaseFile) -> str:
    """Rows of a stale store look broken too: then that is the cause."""
    return "" if _problems(file, STALE) else file.broken_inputs


def nulls_remedy(file: CaseFile) -> Remedy:
    features = file.facts.features
    if (broken := _broken(file)) and not (features and features.mendable):
        fix = "fix it where the values come from (source, pipeline, caller), then have the rows since then scored again"
        return by_hand(f"{broken}; {fix}; retraining would teach the model the error")
    look = "find where the feature's values are lost: source, pipeline, feature store"
    return _materialize_or(file, Cause.NULL_OR_BROKEN_FEATURE, look)


def nulls_whys(file: CaseFile) -> tuple[str, ...]:
    if broken := _broken(file):
        return (file.performance_of_a_type_fell, f"Why did that happen? Because {broken}")
    return _whys_of(file, MISSING)


NULL_OR_BROKEN_FEATURE = CauseDefinition(
    Cause.NULL_OR_BROKEN_FEATURE,
    "a feature is missing or broken",
    nulls_evidence,
    nulls_remedy,
    nulls_whys,
    Prevention(
        (
            FollowUp("Fix the source of the missing or broken feature", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp("Validate features before the model sees them", Role.ML_TEAM_LEAD, 14),
        ),
        "A model scores missing values without complaint",
        "Agree with the owners of the data on what may change without notice",
        "Alert on the null rate of each feature",
    ),
)


# --- the model reads stale features


def stale_evidence(file: CaseFile) -> list[Line]:
    stale = _problems(file, STALE)
    return [
        Line(0.6, bool(stale) if file.facts.features else None, "; ".join(stale) or file.sentence_of(FRESHNESS), required=True),
        file.degraded(0.2, required=True),
        file.nothing_changed(),
    ]


def stale_remedy(file: CaseFile) -> Remedy:
    features = file.facts.features
    look = f"look at the feature store: {features.sentence if features else 'it was not read'}"
    return _materialize_or(file, Cause.STALE_FEATURES, look)


def stale_whys(file: CaseFile) -> tuple[str, ...]:
    fell, features = file.performance_of_a_type_fell, file.facts.features
    return (fell, f"Why did {file.model} do so? Because {features.sentence}") if features else (fell,)


STALE_FEATURES = CauseDefinition(
    Cause.STALE_FEATURES,
    "the model reads stale features",
    stale_evidence,
    stale_remedy,
    stale_whys,
    Prevention(
        (
            FollowUp("Alert on the age of the online rows, not on the time of the last materialization job", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp("Let nobody suspend a materialization schedule without an end date", Role.ML_TEAM_LEAD, 14),
        ),
        "A materialization that runs, or a store that answers, says nothing about the age of its rows",
        "Pausing a feature pipeline is a change to the model and needs its owner's eye",
        "Watch how far the online rows are behind their source",
    ),
)
