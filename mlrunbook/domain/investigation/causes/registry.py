"""Every cause, in the order that breaks ties: what explains most, and what can be undone, comes first."""

from __future__ import annotations

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.causes.changes import BAD_DEPLOYMENT, BAD_ROLLOUT, THRESHOLD_CHANGE
from mlrunbook.domain.investigation.causes.data import CONCEPT_DRIFT, DATA_DRIFT, NEW_SEGMENT
from mlrunbook.domain.investigation.causes.definition import CauseDefinition
from mlrunbook.domain.investigation.causes.features import FEATURE_STORE_OUTAGE, NULL_OR_BROKEN_FEATURE, STALE_FEATURES
from mlrunbook.domain.investigation.causes.outside import ATTACK, LABEL_PROBLEM, OUTCOMES_REWRITTEN, SERVING_INFRASTRUCTURE
from mlrunbook.domain.investigation.causes.unexplained import NOTHING_WRONG, UNKNOWN

DEFINITIONS: tuple[CauseDefinition, ...] = (
    THRESHOLD_CHANGE,
    FEATURE_STORE_OUTAGE,
    NULL_OR_BROKEN_FEATURE,
    STALE_FEATURES,
    BAD_ROLLOUT,
    BAD_DEPLOYMENT,
    SERVING_INFRASTRUCTURE,
    LABEL_PROBLEM,
    OUTCOMES_REWRITTEN,
    ATTACK,
    NEW_SEGMENT,
    DATA_DRIFT,
    CONCEPT_DRIFT,
    NOTHING_WRONG,
    UNKNOWN,
)


def definition_of(cause: Cause) -> CauseDefinition:
    return next(one for one in DEFINITIONS if one.cause is cause)
