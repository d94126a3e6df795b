"""Causes in the data: an asset type the model never saw, inputs that drifted, outcomes that follow other rules."""

from __future__ import annotations

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import Confusion, percent
from mlrunbook.domain.investigation.causes.case_file import DISTRIBUTIONS, CaseFile, Line
from mlrunbook.domain.investigation.causes.definition import CauseDefinition, FollowUp, Prevention, Remedy, by_hand, retrain_or
from mlrunbook.domain.investigation.upstream import Upstream, judge_upstream, moved_features
from mlrunbook.domain.roles import Role


def _features_arrive(file: CaseFile, weight: float) -> Line:
    """Refuted by any fault found in the feature store; open during an outage, when it cannot be read."""
    features = file.facts.features
    fed = True if features is None or features.mendable is None else None if features.mendable is False and features.outage else False
    return Line(weight, fed, "the features arrive", required=True)


def _no_new_type(file: CaseFile) -> Line:
    """Holds unless a new type is known: not every platform records what the training saw."""
    unseen = file.facts.unseen_types
    return Line(0.0, not unseen, "a new asset type explains it" if unseen else "no new asset type explains it", required=True)


def _no_better_version(file: CaseFile) -> tuple[bool | None, str]:
    others = file.facts.targets
    if others is None:
        return None, "other versions were not replayed"
    return None if others.not_enough_evidence else others.target is None, others.sentence


def _of_one_type(file: CaseFile) -> Remedy | None:
    """By hand: path C and the recovery check weigh all assets together, and may pass while this one type stays wrong."""
    hit = ", ".join(file.facts.fallen_types)
    look = (
        f"look at asset type {hit} alone: what changed for these machines, and who is harmed by it; decide whether its predictions still "
        "count, and whether to retrain with enough of its outcomes (deployment `retrain`)"
    )
    return by_hand(look) if hit else None


# --- an asset type that the model never saw


def segment_evidence(file: CaseFile) -> list[Line]:
    return [
        Line(0.5, None if file.facts.unseen_types is None else bool(file.facts.unseen_types), _unseen_words(file), required=True),
        file.degraded(0.2, required=True),
        _features_arrive(file, 0.1),
        file.nothing_changed(),
    ]


def _unseen_words(file: CaseFile) -> str:
    unseen = file.facts.unseen_types
    if not unseen:
        return "which asset types the training saw is not recorded" if unseen is None else "every asset type was in the training data"
    return "; ".join(
        f"{percent(share)} of recent predictions are for asset type {name}, never seen in training" for name, share in unseen.items()
    )


def segment_remedy(file: CaseFile) -> Remedy:
    return retrain_or(file, Cause.NEW_SEGMENT, "label and retrain with the new type (deployment `retrain`)")


def segment_whys(file: CaseFile) -> tuple[str, ...]:
    types = ", ".join(file.facts.unseen_types or ())
    return (
        file.performance_fell,
        f"Why did {file.model} do so? Because assets of type {types} were not in its training data",
        f"Why were they not in it? Because {file.model} was trained before they joined the fleet, and not again since",
    )


NEW_SEGMENT = CauseDefinition(
    Cause.NEW_SEGMENT,
    "assets of a type that {version} never saw have joined the fleet",
    segment_evidence,
    segment_remedy,
    segment_whys,
    Prevention(
        (
            FollowUp("Add a model review to the onboarding checklist of new asset types", Role.ML_TEAM_LEAD, 14),
            FollowUp("Alert on asset types that the serving version never saw in training", Role.ONCALL_ML_ENGINEER, 14),
            FollowUp("Retrain when outcomes of a new asset type have come in", Role.ML_TEAM_LEAD, 30),
        ),
        "A model scores an unknown category without complaint",
        "Asset onboarding must include the models that will score the assets",
        "Watch the share of categories that the training data lack",
    ),
)


# --- the inputs have moved


def drift_evidence(file: CaseFile) -> list[Line]:
    none_better, compared = _no_better_version(file)
    probing = file.facts.probing
    return [
        Line(0.4, file.drifted, file.drift_words, required=True),
        file.degraded(0.2, required=True),
        Line(0.0, none_better is not False, compared, required=True),
        _features_arrive(file, 0.2),
        _no_new_type(file),
        Line(0.0, not (probing and probing.suspicious), "no probing explains it", required=True),
        file.no_broken_input(),
        file.no_threshold_slip(),
        file.nothing_changed(),
    ]


def drift_remedy(file: CaseFile) -> Remedy:
    upstream = _upstream(file)
    look = f"{upstream.sentence}; confirm the drift, then retrain on recent data (deployment `retrain`)"
    if upstream.broken_sensor:
        checked = "have the sensor and its last recalibration checked: retraining would teach the model its error"
        look = f"{upstream.sentence}; {checked}"
    if one_type := _of_one_type(file):
        return one_type
    return retrain_or(file, Cause.DATA_DRIFT, look) if upstream.broken_sensor is False else by_hand(look)


def drift_whys(file: CaseFile) -> tuple[str, ...]:
    chain, upstream = [file.performance_of_a_type_fell], _upstream(file)
    if DISTRIBUTIONS in file.findings:
        chain.append(f"Why did that happen? Because {file.sentence_of(DISTRIBUTIONS)}")
    if upstream.broken_sensor is not None:
        chain.append(f"Why did that move? Because {upstream.sentence}")
    return tuple(chain)


def _upstream(file: CaseFile) -> Upstream:
    metrics = file.facts.metrics
    before, now = (metrics.baseline.confusion, metrics.current.confusion) if metrics else (Confusion(), Confusion())
    return judge_upstream(moved_features(file.findings.get(DISTRIBUTIONS)), file.facts.courses, before, now)


DATA_DRIFT = CauseDefinition(
    Cause.DATA_DRIFT,
    "the data have drifted from what the model learned",
    drift_evidence,
    drift_remedy,
    drift_whys,
    Prevention(
        (
            FollowUp("Start retraining when feature drift is confirmed", Role.ML_TEAM_LEAD, 30),
            FollowUp("Add the shifted features and segments to the drift checks", Role.ONCALL_ML_ENGINEER, 14),
        ),
        "The training data no longer describe the fleet",
        "Changes of the fleet need a model impact assessment",
        "Alert on confirmed shifts of feature distributions",
    ),
)


# --- the same readings lead to other outcomes


def concept_evidence(file: CaseFile) -> list[Line]:
    none_better, compared = _no_better_version(file)
    return [
        file.degraded(0.2, required=True),
        file.sound_inputs(0.2),
        _features_arrive(file, 0.1),
        _no_new_type(file),
        Line(0.0, file.unchanged, "nothing was deployed" if file.unchanged else "something was changed before it", required=True),
        file.no_broken_input(),
        file.unhelped_by_a_threshold(0.15),
        Line(0.15, none_better, compared),
        file.nothing_changed(),
    ]


def concept_remedy(file: CaseFile) -> Remedy:
    look = "find out what changed in the world, then retrain on data from after it (deployment `retrain`)"
    return _of_one_type(file) or retrain_or(file, Cause.CONCEPT_DRIFT, look)


def concept_whys(file: CaseFile) -> tuple[str, ...]:
    others = file.facts.targets
    chain = [
        file.performance_of_a_type_fell,
        f"Why did {file.model} do so? Because the same readings lead to other outcomes than in its training data",
    ]
    if others and not others.not_enough_evidence:
        chain.append(f"Why is it not the release? Because {others.sentence}")
    return tuple(chain)


CONCEPT_DRIFT = CauseDefinition(
    Cause.CONCEPT_DRIFT,
    "the same readings lead to other outcomes than {version} learned",
    concept_evidence,
    concept_remedy,
    concept_whys,
    Prevention(
        (
            FollowUp("Find out what changed in the world, and who knew of it", Role.ML_TEAM_LEAD, 7),
            FollowUp("Retrain on a schedule, and when labelled performance falls with unchanged inputs", Role.ML_TEAM_LEAD, 30),
        ),
        "Inputs can look the same while the outcomes they lead to change",
        "Those who change the machines must tell those who model them",
        "Watch labelled performance, not input drift alone",
    ),
)
