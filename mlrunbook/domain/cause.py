"""The causes that a diagnosis may name. What is known of each is in `investigation/causes`."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Stored: never change a value."""

    THRESHOLD_CHANGE = "threshold_change"
    FEATURE_STORE_OUTAGE = "feature_store_outage"
    NULL_OR_BROKEN_FEATURE = "null_or_broken_feature"
    STALE_FEATURES = "stale_features"
    BAD_ROLLOUT = "bad_rollout"
    BAD_DEPLOYMENT = "bad_deployment"
    SERVING_INFRASTRUCTURE = "serving_infrastructure"
    LABEL_PROBLEM = "label_problem"
    OUTCOMES_REWRITTEN = "outcomes_rewritten"
    ATTACK = "attack"
    NEW_SEGMENT = "new_segment"
    DATA_DRIFT = "data_drift"
    CONCEPT_DRIFT = "concept_drift"
    NOTHING_WRONG = "nothing_wrong"
    UNKNOWN = "unknown"
