"""Step 3: the runbook's checklist, one finding an item; then the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from mlrunbook.domain.containment.taking_back import is_stopped
from mlrunbook.domain.detection.alert_rules import spread
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.diagnosis import Diagnosed, Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import About, Changed, DiagnosisFacts, Log, Versions, gather
from mlrunbook.domain.investigation.feature_store import merged
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, Findings
from mlrunbook.domain.investigation.rollouts import NO_HISTORY, RolloutVerdict, judge_rollout
from mlrunbook.domain.investigation.upstream import courses
from mlrunbook.domain.observed import Change, Missing, Prediction
from mlrunbook.response.detection.triage import figures_of, missed_failure
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.investigation import rollback_target
from mlrunbook.response.measurement import feature_store, recent_changes
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import Run
from mlrunbook.store import incidents, records

RECENT_ROWS = 4000  # of the prediction log: about 3 s of a busy model, and enough failures for an interval
REFERENCE_ROWS, REFERENCE_PARTS = 4000, 8
LOG_LINES = 500
Read = TypeVar("Read")


def check_recent_changes(run: Run) -> list[Finding]:
    now = run.world.now()
    changes = _tried(lambda: recent_changes.of_model(run.world, _model(run), since=now - timedelta(days=7)))
    return checks.recent_changes(changes if isinstance(changes, Missing) else [*changes, *_rollouts(run)], now)


def _rollouts(run: Run) -> list[Change]:
    """The rollout history of the runtime; a new pod template may be a release, a restart or another setting."""
    history = _or_none(_tried(lambda: run.world.runtime.revisions(_model(run)))) or ()
    return [
        Change("infrastructure", f"rollout revision {r.number} ({', '.join(r.images)})", r.cause or "nobody who is noted", r.at)
        for r in history
    ]


def check_model_performance(run: Run) -> list[Finding]:
    metrics = _tried(lambda: measured.metrics(run))
    policy = run.world.policy
    return [
        *checks.model_performance(metrics, policy.severity.drops),
        checks.inference_latency(metrics, limit_ms=policy.severity.latency_p95_ms),
        checks.affected_asset_types(metrics, policy.severity.drops),
    ]


def check_data_quality(run: Run) -> list[Finding]:
    recent = _recent(run)
    reference = _tried(lambda: _reference(run))
    return [
        checks.feature_distributions(recent, reference, run.world.policy.drift),
        checks.missing_features(recent, limit=run.world.policy.severity.null_rate),
        checks.data_freshness(recent, run.world.now()),
    ]


def check_infrastructure(run: Run) -> list[Finding]:
    """`kubectl logs -l app=model-server --tail=500` since the failure began, and what the server uses."""
    runtime, model, began = run.world.runtime, _model(run), measured.failing_since(run)
    log = _tried(lambda: runtime.logs(model, tail=LOG_LINES, since=began))
    return [
        checks.server_logs(log, _or_none(_tried(lambda: runtime.instances(model))) or (), began),
        checks.resource_utilization(_tried(lambda: runtime.resources(model))),
    ]


def check_ground_truth(run: Run) -> list[Finding]:
    labelled = _tried(
        lambda: run.world.platform.prediction_log(_model(run), limit=RECENT_ROWS, since=measured.window_start(run), labelled_only=True)
    )
    metrics = _tried(lambda: measured.metrics(run))
    baseline = metrics if isinstance(metrics, Missing) else metrics.baseline.confusion
    return [
        checks.predictions_vs_outcomes(labelled, baseline, run.world.policy.severity.drops),
        checks.error_patterns(labelled),
    ]


CHECKS: dict[str, Callable[[Run], list[Finding]]] = {
    "recent_changes": check_recent_changes,
    "model_performance": check_model_performance,
    "data_quality": check_data_quality,
    "feature_store": feature_store.check,
    "infrastructure": check_infrastructure,
    "ground_truth": check_ground_truth,
}


def check(run: Run, name: str) -> list[str]:
    """One source's items of the checklist, recorded once; returns a sentence an item."""
    if standing := run.recall(Findings, name):
        return standing.sentences
    found = Findings(tuple(CHECKS[name](run)))
    with run.write() as conn:
        return run.keep(conn, found, name).sentences


def findings(run: Run) -> list[Finding]:
    """All findings in the checklist's order; an item that two sources answer is one finding."""
    with run.world.transaction() as conn:
        stored = records.of_kind(conn, run.incident_id, Findings)
    found: dict[str, Finding] = {}
    for answer in (one for source in stored.values() for one in source.findings):
        earlier = found.get(answer.key)
        found[answer.key] = merged(earlier, answer) if earlier else answer
    return [found[item.key] for item in CHECKLIST if item.key in found]


def conclude(run: Run) -> Diagnosed:
    """The ranked causes and the recommended path, from the findings and a replay of other thresholds."""
    if standing := run.recall(Diagnosed):
        return standing
    facts = gathered_facts(run)
    diagnosis = diagnose(findings(run), facts, run.world.now())
    with run.write() as conn:
        recorded = run.keep(conn, Diagnosed.of(diagnosis, figures_of(facts.metrics, run.world.policy.costs)))
        if diagnosis.began_at:
            incidents.set_started(conn, run.incident_id, diagnosis.began_at)
        run.note(conn, "diagnosis", diagnosis.headline, {"cause": recorded.cause, "path": recorded.path})
    return recorded


def gathered_facts(run: Run) -> DiagnosisFacts:
    incident, platform = run.incident(), run.world.platform
    triage, week_ago = run.recall(Triage), incident.detected_at - timedelta(days=7)
    recent, reference = _or_none(_recent(run)), _or_none(_tried(lambda: _reference(run)))
    about = About(
        incident.detected_at,
        incident.model_version,
        missed=missed_failure(run),
        dangerous=triage is not None and triage.assessment.dangerous,
        stopped=is_stopped(executed_containment(run)),
    )
    changes = _or_none(_tried(lambda: recent_changes.of_model(run.world, incident.model, since=week_ago)))
    status = _or_none(_tried(lambda: platform.status(incident.model)))
    probing = judge_probing(recent, reference or ()) if recent is not None else None
    return gather(
        about,
        run.world.policy,
        changed=Changed(changes, _rollout(run)),
        metrics=_or_none(_tried(lambda: measured.metrics(run))),
        log=Log(_or_none(_recent(run, labelled_only=True)) or [], courses(reference or (), recent or ()), probing),
        features=feature_store.recorded_verdict(run),
        versions=Versions(status, _trained_types(run), rollback_target.recorded(run)),
    )


def _rollout(run: Run) -> RolloutVerdict:
    runtime, incident = run.world.runtime, run.incident()
    try:
        if not (history := runtime.revisions(incident.model)):
            return NO_HISTORY
        rollout, pods = runtime.observe(incident.model).rollout, runtime.instances(incident.model)
    except RunbookError as error:
        return RolloutVerdict(None, f"the rollout history cannot be read: {error}")
    now, policy = run.world.now(), run.world.policy.rollouts
    return judge_rollout(history, rollout, pods, detected_at=incident.detected_at, now=now, policy=policy)


def rediagnosed(run: Run) -> tuple[Diagnosis, DiagnosisFacts]:
    """The diagnosis as an object again, for the plan: same findings, same facts."""
    facts = gathered_facts(run)
    return diagnose(findings(run), facts, run.world.now()), facts


def _model(run: Run) -> str:
    return run.incident().model


def _recent(run: Run, *, labelled_only: bool = False) -> Sequence[Prediction] | Missing:
    return _tried(
        lambda: run.world.platform.prediction_log(
            _model(run), limit=RECENT_ROWS, since=measured.window_start(run), labelled_only=labelled_only
        )
    )


def _reference(run: Run) -> Sequence[Prediction]:
    """A sample from all over the baseline's window: its newest rows alone would be one night, or one shift."""
    baseline, platform = measured.metrics(run).baseline, run.world.platform
    limit = REFERENCE_ROWS // REFERENCE_PARTS

    def read(since: datetime, until: datetime) -> Sequence[Prediction]:
        return platform.prediction_log(_model(run), limit=limit, since=since, until=until)

    return spread(read, baseline.since, baseline.until, REFERENCE_PARTS)


def _tried(read: Callable[[], Read]) -> Read | Missing:
    """A source that is absent or fails gives `Missing`: the finding is then unknown, never ok."""
    try:
        return read()
    except RunbookError as error:
        return Missing(str(error))


def _or_none(value: Read | Missing) -> Read | None:
    return None if isinstance(value, Missing) else value


def _trained_types(run: Run) -> Sequence[str] | None:
    """The asset types that the training of the incident's version saw; None where the platform does not say."""
    incident = run.incident()
    versions = _or_none(_tried(lambda: run.world.platform.versions(incident.model))) or ()
    return next((v.asset_types for v in versions if v.version == incident.model_version), None)
