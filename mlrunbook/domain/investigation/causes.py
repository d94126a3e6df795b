"""The causes an incident may have, and what speaks for and against each.

Each cause has lines of evidence with a weight; its score is the weight that holds, 0..1. A line may be required: refuted it rules
the cause out, unknown it keeps the cause below the bar. No model, no training: a person must be able to check every number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.investigation.facts import DiagnosisFacts, ThresholdChange
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.investigation.serving_health import Trouble
from mlrunbook.domain.investigation.upstream import moved_features
from mlrunbook.domain.observed import Change, FeatureFault

DAY = timedelta(hours=24)
DISTRIBUTIONS = "data_quality.feature_distributions"
STALE = frozenset({FeatureFault.STALE_JOB, FeatureFault.STALE_DATA, FeatureFault.FUTURE_END, FeatureFault.ENTITIES_MISSING})
NULLS = frozenset({FeatureFault.NULLS_ONLINE, FeatureFault.NULLS_IN_SOURCE})


@dataclass(frozen=True)
class Line:
    """One line of evidence. `holds` None: could not be checked."""

    weight: float
    holds: bool | None
    sentence: str
    required: bool = False


def evidence(found: Mapping[str, Finding], facts: DiagnosisFacts, now: datetime) -> dict[Cause, list[Line]]:
    change, deployment, feed, probing = facts.threshold_change, facts.deployment, facts.feed, facts.probing
    history = facts.changes is not None
    old_recovers = facts.replay_before.recoverable if facts.replay_before else None

    def suspect(*keys: str) -> bool | None:
        """Is any of these items suspect? None when none is and one could not be checked."""
        seen = [found[k].state if k in found else State.UNKNOWN for k in keys]
        return True if State.SUSPECT in seen else None if State.UNKNOWN in seen else False

    def told(key: str) -> str:
        return found[key].sentence if key in found else "not checked"

    def degraded(weight: float, *, required: bool = False) -> Line:
        return Line(weight, facts.degraded, facts.degraded_words, required)

    moved, nulls = DISTRIBUTIONS, "data_quality.missing_features"
    logs = "infrastructure.server_logs"
    fresh = "data_quality.data_freshness"
    reads, up = "data_quality.feature_store_connectivity", "infrastructure.feature_store_availability"

    fresh_deployment = None if not history else deployment is not None
    in_a_day = None if not history else deployment is not None and facts.detected_at - deployment.at <= DAY
    changed_in_a_day = None if change is None else facts.detected_at - change.at <= DAY
    deployed = _deployed_words(deployment, history, now)
    no_change = None if not history else deployment is None and change is None
    drifted = not found[moved].value or bool(moved_features(found[moved])) if suspect(moved) else suspect(moved)
    drift_words = told(moved) + ("" if drifted or not suspect(moved) else ", too little to explain it")
    inputs_sound = _not(_any(drifted, suspect(nulls)))
    # A recent threshold change that replays well explains the drop without the deployment.
    unexplained = True if change is None else _not(old_recovers)
    served = facts.metrics.current.versions if facts.metrics else ()
    version = deployment.ref if deployment else None

    healthy = facts.status.server_healthy if facts.status and not facts.stopped else None
    seen = facts.trouble
    # Slow answers or failed requests of a model that is wrong as well are the lesser trouble.
    nothing_serves = seen is not None and (seen.trouble is Trouble.DOWN or (seen.trouble is Trouble.MISROUTED and healthy is False))
    ailing = seen is not None and (nothing_serves or facts.degraded is not True)
    in_trouble = True if ailing else None if healthy is None else False
    # Reads that fail are the server's own trouble only where the store is known to answer others.
    out = suspect(reads, up)
    store_well = _not(out) if seen is not None and seen.trouble is Trouble.BLIND else out is not True
    served_well = None if facts.status is None and facts.metrics is None else seen is None and not facts.not_loaded
    loads = f"{facts.suspect_version} cannot be loaded" if facts.not_loaded else "the server has loaded what the registry names"
    unknown = "the model server was stopped on purpose" if facts.stopped else "the server's health is not known"
    answers = {True: "the model server answers", False: "the model server does not answer", None: unknown}[healthy]

    features, unseen = facts.features, facts.unseen_types
    no_new_type = None if unseen is None else not unseen
    stale = None if features is None else bool(_of(features, STALE))
    # A repaired or refuted feature store says nothing against the model; one that nobody can read leaves it open.
    fed = True if features is None or features.mendable is None else None if features.mendable is False and features.outage else False
    quiet = Line(0.20, no_change, "no deployment or threshold change came before it" if no_change else "something else changed before it")
    best_fails = _not(facts.replay_best.recoverable if facts.replay_best else None)
    others = facts.targets
    none_better = None if others is None or others.not_enough_evidence else others.target is None

    no_probing = Line(0.0, not (probing and probing.suspicious), "no probing explains it", required=True)
    calm = None if facts.degraded is None else not facts.degraded
    looked_at = [f for f in found.values() if not f.key.startswith("recent_changes.")]
    nothing = [f for f in looked_at if f.state is State.SUSPECT]

    def sound(group: str) -> Line:
        """Every item of the group that could be checked is ok, and one could: `unknown` is not `ok`."""
        items = [f for f in looked_at if f.key.startswith(f"{group}.")]
        ok = [f for f in items if f.state is State.OK]
        words = group.replace("_", " ")
        holds = False if any(f.state is State.SUSPECT for f in items) else None if len(ok) < len(items) or not ok else True
        return Line(0.15, holds, f"{words}: {len(ok)} of {len(items)} items are ok")

    return {
        Cause.BAD_DEPLOYMENT: [
            Line(0.7, True, f"the model server cannot load {facts.suspect_version}: {facts.not_loaded}"),
            Line(0.2, fresh_deployment, deployed),
            Line(0.1, healthy, f"{facts.model_version} goes on serving" if healthy else "nothing serves"),
        ]
        if facts.not_loaded
        else [
            Line(0.10, fresh_deployment, deployed, required=True),
            Line(0.20, in_a_day, "it was within 24 h of detection" if in_a_day else "it was not within 24 h of detection"),
            degraded(0.25, required=True),
            Line(
                0.0, unexplained, "no threshold change explains it" if unexplained else "a threshold change may explain it", required=True
            ),
            Line(0.20, best_fails, _best_words(facts)),
            Line(0.15, inputs_sound, f"inputs: {drift_words}; {told(nulls)}"),
            Line(
                0.10, version in served if served and version else None, f"predictions come from {', '.join(served) or 'unknown versions'}"
            ),
        ],
        Cause.THRESHOLD_CHANGE: [
            Line(0.15, None if not history else change is not None, _change_words(change, history, now), required=True),
            Line(0.15, changed_in_a_day, f"the change was {'within' if changed_in_a_day else 'not within'} 24 h of detection"),
            degraded(0.20, required=True),
            Line(
                0.50,
                old_recovers,
                facts.replay_before.sentence if facts.replay_before else "the old threshold was not replayed",
                required=True,
            ),
        ],
        Cause.BAD_ROLLOUT: [
            Line(0.7, facts.rollout.bad, facts.rollout.sentence, required=True),
            Line(0.3, in_trouble, seen.sentence if seen else answers),
        ],
        Cause.SERVING_INFRASTRUCTURE: [
            Line(0.7, in_trouble, seen.sentence if seen else answers, required=True),
            Line(0.15, suspect(logs), told(logs)),
            Line(0.15, _not(out), f"features: {told(reads)}"),
            Line(0.0, store_well, "no outage of the feature store explains it", required=True),
            Line(0.0, not facts.not_loaded, loads, required=True),
            Line(0.0, not facts.rollout.bad, "no rollout explains it", required=True),
        ],
        Cause.LABEL_PROBLEM: [
            Line(0.7, feed.stalled if feed else None, feed.sentence if feed else "performance is not measured", required=True),
            Line(0.0, not facts.dangerous, "measured dangerous" if facts.dangerous else "no danger shows without outcomes", required=True),
            Line(0.2, healthy, answers),
            Line(0.1, inputs_sound, f"inputs: {drift_words}; {told(nulls)}"),
        ],
        Cause.ATTACK: [
            Line(0.6, probing.suspicious if probing else None, probing.sentence if probing else "the log was not read", required=True),
            Line(0.2, probing.alike > 0 if probing else None, "readings that hardly differ, one after the other"),
            Line(0.1, probing.impossible > 0 if probing else None, "readings that no machine can have"),
            Line(0.1, calm, facts.degraded_words),
        ],
        Cause.FEATURE_STORE_OUTAGE: [
            Line(0.8, suspect(reads, up), f"{told(reads)}; {told(up)}", required=True),
            degraded(0.2),
        ],
        Cause.NULL_OR_BROKEN_FEATURE: [
            Line(0.6, _has_nulls(suspect(nulls), features), _words_of(features, NULLS) or told(nulls), required=True),
            degraded(0.2),
            quiet,
        ],
        Cause.STALE_FEATURES: [
            Line(0.6, stale, _words_of(features, STALE) or told(fresh), required=True),
            degraded(0.2, required=True),
            quiet,
        ],
        Cause.NEW_SEGMENT: [
            Line(0.5, _not(no_new_type), _unseen_words(unseen), required=True),
            degraded(0.2, required=True),
            Line(0.1, fed, "the features arrive", required=True),
            quiet,
        ],
        Cause.DATA_DRIFT: [
            Line(0.4, drifted, drift_words, required=True),
            degraded(0.2, required=True),
            Line(0.0, none_better is not False, others.sentence if others else "other versions were not replayed", required=True),
            Line(0.2, fed, "the features arrive", required=True),
            Line(0.0, _refuted(unseen), "no new asset type explains it" if not unseen else "a new asset type explains it", required=True),
            no_probing,
            quiet,
        ],
        Cause.CONCEPT_DRIFT: [
            degraded(0.2, required=True),
            Line(0.2, inputs_sound, f"inputs: {drift_words}; {told(nulls)}"),
            Line(0.1, fed, "the features arrive", required=True),
            Line(0.0, _refuted(unseen), "no new asset type explains it" if not unseen else "a new asset type explains it", required=True),
            Line(0.0, no_change, "nothing was deployed" if no_change else "something was changed before it", required=True),
            Line(0.15, best_fails, _best_words(facts)),
            Line(0.15, none_better, others.sentence if others else "other versions were not replayed"),
            quiet,
        ],
        Cause.NOTHING_WRONG: [
            Line(0.0, served_well, "requests are answered" if served_well else seen.sentence if seen else loads, required=True),
            Line(0.4, calm, facts.degraded_words, required=True),
            Line(0.0, not facts.missed, facts.missed or "no critical failure was missed", required=True),
            Line(0.0, not nothing, f"{len(nothing)} items are suspect" if nothing else "no checked item is suspect", required=True),
            Line(0.0, _not(probing.suspicious) if probing else None, probing.sentence if probing else "the log was not read"),
            *(sound(group) for group in ("model_performance", "data_quality", "infrastructure", "ground_truth")),
        ],
    }


def _of(features: FeatureVerdict, faults: frozenset[FeatureFault]) -> list[str]:
    return [p.sentence for p in features.problems if p.fault in faults]


def _words_of(features: FeatureVerdict | None, faults: frozenset[FeatureFault]) -> str:
    return "; ".join(_of(features, faults)) if features else ""


def _has_nulls(logged: bool | None, features: FeatureVerdict | None) -> bool | None:
    """Nulls in the prediction log, or in the store that the next prediction reads."""
    return True if features is not None and _of(features, NULLS) else logged


def _unseen_words(unseen: Mapping[str, float] | None) -> str:
    if not unseen:
        return "which asset types the training saw is not recorded" if unseen is None else "every asset type was in the training data"
    return "; ".join(
        f"{percent(share)} of recent predictions are for asset type {name}, never seen in training" for name, share in unseen.items()
    )


def _refuted(unseen: Mapping[str, float] | None) -> bool:
    """Unless a new type is known there is none: what the training saw is not recorded by every platform."""
    return not unseen


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


def _any(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value
