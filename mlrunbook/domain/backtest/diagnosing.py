"""The investigation of one call: the live diagnosis, fed with what a log alone holds. Servers, feature store and change history are not in
it, and the diagnosis says so itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mlrunbook.domain.actions import Path, PlanKind
from mlrunbook.domain.backtest.result import Explained
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import About, Changed, DiagnosisFacts, Log, Versions, gather
from mlrunbook.domain.investigation.inputs.faults import judge_inputs
from mlrunbook.domain.investigation.upstream import courses
from mlrunbook.domain.observed import Change, Missing, Prediction, ServingStatus
from mlrunbook.domain.policy.policy import ApprovalRule, Policy
from mlrunbook.domain.resolution.paths import Situation
from mlrunbook.domain.resolution.plan import propose
from mlrunbook.domain.roles import Role
from mlrunbook.domain.tally import Confusion

NOT_LOGGED = Missing("a log of predictions does not hold it")
INCIDENT = "backtest"


@dataclass(frozen=True)
class Around:
    """What the log holds around a call at `at`, of `version`: `reference` is a sample of the baseline's rows, `recent` the newest rows, and
    `labelled` those with an outcome. `served`: when each version came, oldest first."""

    model: str
    at: datetime
    version: str
    metrics: ModelMetrics
    reference: Sequence[Prediction]
    recent: Sequence[Prediction]
    labelled: Sequence[Prediction]
    served: Sequence[tuple[str, datetime]] = field(default_factory=tuple)


def explain(seen: Around, severity: Severity, policy: Policy) -> Explained:
    diagnosis, facts = investigate(seen, policy)
    asked = tuple([_paged(severity, policy), *_asked(seen, diagnosis, facts, policy)])
    path, why = str(diagnosis.path) if diagnosis.path else None, diagnosis.sentence.removesuffix(diagnosis.advice).rstrip(". ")
    return Explained(str(diagnosis.top.cause), path, why, diagnosis.advice, asked)


def investigate(seen: Around, policy: Policy) -> tuple[Diagnosis, DiagnosisFacts]:
    changes, drops, baseline = _changes(seen), policy.severity.drops, seen.metrics.baseline.confusion
    found = [
        *checks.recent_changes(changes, seen.at),
        *checks.model_performance(seen.metrics, policy.severity),
        checks.inference_latency(seen.metrics, limit_ms=policy.severity.latency_p95_ms),
        checks.affected_asset_types(seen.metrics, drops),
        checks.feature_distributions(seen.recent, seen.reference, policy.drift),
        checks.missing_features(seen.recent, seen.reference, limit=policy.severity.null_rate),
        checks.data_freshness(seen.recent, seen.at),
        *checks.feature_store(NOT_LOGGED),
        checks.server_logs(NOT_LOGGED),
        checks.resource_utilization(NOT_LOGGED),
        checks.predictions_vs_outcomes(seen.labelled, baseline, drops),
        checks.error_patterns(seen.labelled),
    ]
    rows = [*seen.recent, *seen.labelled]
    log = Log(
        seen.labelled,
        courses(seen.reference, seen.recent),
        judge_probing(seen.recent, seen.reference),
        judge_inputs(seen.reference, rows, baseline, drops),
        seen.recent,
        seen.reference,
    )
    facts = gather(
        About(seen.at, seen.version),
        policy,
        changed=Changed(changes),
        metrics=seen.metrics,
        log=log,
        features=None,
        versions=Versions(_status(seen)),
    )
    return diagnose(found, facts, seen.at), facts


def _changes(seen: Around) -> list[Change]:
    """The versions' first predictions are the only changes that a log shows."""
    return [Change("deployment", version, "nobody who is noted", at) for version, at in seen.served[1:] if at <= seen.at]


def _status(seen: Around) -> ServingStatus:
    before = [version for version, at in seen.served if at <= seen.at and version != seen.version]
    return ServingStatus(seen.model, seen.version, before[-1] if before else None, None, True, seen.version)


def _paged(severity: Severity, policy: Policy) -> str:
    if not severity.at_least(Severity.MEDIUM):
        return "nobody is paged: a ticket"

    def at_once(role: Role) -> bool:
        rule = policy.escalation.of(role)
        return rule.after_min == 0 or (rule.at_once_from is not None and severity.at_least(rule.at_once_from))

    return f"paged at once: {', '.join(role.words for role in Role if at_once(role))}"


def _asked(seen: Around, diagnosis: Diagnosis, facts: DiagnosisFacts, policy: Policy) -> list[str]:
    resolution = policy.approvals.of(PlanKind.RESOLUTION)
    if diagnosis.path is None:
        return [f"{_people(resolution)} to decide: no change is proposed"]
    if diagnosis.path is Path.RETRAIN:
        staging = policy.approvals.of(PlanKind.STAGING)
        return [
            f"{_people(staging)} to let a retrained version score in the shadow, where no rule allows it",
            f"{_people(resolution)} to approve its promotion, once it has proved better",
        ]
    plan = propose(Situation(INCIDENT, seen.model, diagnosis, facts))
    if plan is None:
        return [f"{_people(resolution)} to decide: no plan could be made for path {diagnosis.path}"]
    return [f"{_people(resolution)} to approve: {'; '.join(action.summary for action in plan.actions)}"]


def _people(rule: ApprovalRule) -> str:
    return f"{rule.count} of {', '.join(role.words for role in rule.roles)}"


def window(
    since: datetime, until: datetime, version: str, blocks: Sequence[Confusion], by_type: Mapping[str, Sequence[Confusion]]
) -> WindowMetrics:
    """Of the mature outcomes of these blocks."""
    whole = sum(blocks, Confusion())
    return WindowMetrics(
        since,
        until,
        predictions=whole.n,
        labelled=whole.n,
        tally=whole,
        flagged_share=(whole.tp + whole.fp) / whole.n if whole.n else None,
        versions=(version,),
        by_asset_type={name: sum(parts, Confusion()) for name, parts in by_type.items()},
        blocks=tuple(blocks),
        blocks_by_asset_type={name: tuple(parts) for name, parts in by_type.items()},
    )
