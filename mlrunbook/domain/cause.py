"""The causes that a diagnosis may name, and their headlines."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """In the order that breaks ties: what explains most, and what can be undone, comes first."""

    THRESHOLD_CHANGE = "threshold_change"
    FEATURE_STORE_OUTAGE = "feature_store_outage"
    NULL_OR_BROKEN_FEATURE = "null_or_broken_feature"
    STALE_FEATURES = "stale_features"
    BAD_ROLLOUT = "bad_rollout"
    BAD_DEPLOYMENT = "bad_deployment"
    SERVING_INFRASTRUCTURE = "serving_infrastructure"
    LABEL_PROBLEM = "label_problem"
    ATTACK = "attack"
    NEW_SEGMENT = "new_segment"
    DATA_DRIFT = "data_drift"
    CONCEPT_DRIFT = "concept_drift"
    NOTHING_WRONG = "nothing_wrong"
    UNKNOWN = "unknown"


HEADLINES = {
    Cause.THRESHOLD_CHANGE: "the decision threshold was changed",
    Cause.FEATURE_STORE_OUTAGE: "the feature store is out",
    Cause.NULL_OR_BROKEN_FEATURE: "a feature is missing or broken",
    Cause.STALE_FEATURES: "the model reads stale features",
    Cause.BAD_ROLLOUT: "a rollout of the model server went wrong",
    Cause.BAD_DEPLOYMENT: "{version} is a bad release",
    Cause.SERVING_INFRASTRUCTURE: "serving is in trouble",
    Cause.LABEL_PROBLEM: "outcomes no longer arrive",
    Cause.ATTACK: "somebody probes the model",
    Cause.NEW_SEGMENT: "assets of a type that {version} never saw have joined the fleet",
    Cause.DATA_DRIFT: "the data have drifted from what the model learned",
    Cause.CONCEPT_DRIFT: "the same readings lead to other outcomes than {version} learned",
    Cause.NOTHING_WRONG: "nothing is wrong that can be measured",
    Cause.UNKNOWN: "the cause is not known",
}
