"""Step 3: the runbook's checklist, one finding an item; then the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from mlrunbook.domain.containment.taking_back import is_stopped
from mlrunbook.domain.detection.alert_rules import spread
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.diagnosis import Diagnosed, Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import (
    RECENT_ROWS,
    REFERENCE_PARTS,
    REFERENCE_ROWS,
    About,
    Changed,
    DiagnosisFacts,
    Log,
    Versions,
    gather,
)
from mlrunbook.domain.investigation.feature_store import merged
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, Findings, unknown
from mlrunbook.domain.investigation.inputs.faults import NOTHING_BROKEN, BrokenInputs, judge_inputs
from mlrunbook.domain.investigation.rollouts import NO_HISTORY, RolloutVerdict, judge_rollout
from mlrunbook.domain.investigation.upstream import courses
from mlrunbook.domain.observed import Change, Missing, Prediction
from mlrunbook.response.detection.triage import figures_of, missed_failure
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.investigation import rollback_target
from mlrunbook.response.measurement import feature_store, recent_changes
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none, tried, unexpected
from mlrunbook.store import incidents, records

LOG_LINES = 500
T = TypeVar("T")
CHANGES = tuple(item.key for item in CHECKLIST if item.key.startswith("recent_changes."))
PERFORMANCE = tuple(item.key for item in CHECKLIST if item.key.startswith("model_performance."))


def check_recent_changes(run: Run) -> list[Finding]:
    now = run.world.now()
    changes = tried("the change history", lambda: recent_changes.of_model(run.world, _model(run), since=now - timedelta(days=7)))
    everything = changes if isinstance(changes, Missing) else [*changes, *_rollouts(run)]
    return _judged(CHANGES, lambda: checks.recent_changes(everything, now))


def _rollouts(run: Run) -> list[Change]:
    """The rollout history of the runtime; a new pod template may be a release, a restart or another setting."""

    def told() -> list[Change]:
        return [
            Change("infrastructure", f"rollout revision {r.number} ({', '.join(r.images)})", r.cause or "nobody who is noted", r.at)
            for r in run.world.runtime.revisions(_model(run))
        ]

    return or_none("the rollout history", told) or []


def check_model_performance(run: Run) -> list[Finding]:
    metrics, policy = _metrics(run), run.policy.severity
    return [
        *_judged(PERFORMANCE, lambda: checks.model_performance(metrics, policy)),
        *_judged("infrastructure.inference_latency", lambda: checks.inference_latency(metrics, limit_ms=policy.latency_p95_ms)),
        *_judged("ground_truth.affected_asset_types", lambda: checks.affected_asset_types(metrics, policy.drops)),
    ]


def check_data_quality(run: Run) -> list[Finding]:
    recent, policy = _recent(run), run.policy
    reference = reference_rows(run)
    return [
        *_judged("data_quality.feature_distributions", lambda: checks.feature_distributions(recent, reference, policy.drift)),
        *_judged("data_quality.missing_features", lambda: checks.missing_features(recent, reference, limit=policy.severity.null_rate)),
        *_judged("data_quality.data_freshness", lambda: checks.data_freshness(recent, run.world.now())),
    ]


def check_infrastructure(run: Run) -> list[Finding]:
    """`kubectl logs -l app=model-server --tail=500` since the failure began, and what the server uses."""
    runtime, model, began = run.world.runtime, _model(run), measured.failing_since(run)
    log = tried("the model server's log", lambda: runtime.logs(model, tail=LOG_LINES, since=began))
    instances = or_none("the list of servers", lambda: runtime.instances(model)) or ()
    resources = tried("the use of CPU and memory", lambda: runtime.resources(model))
    return [
        *_judged("infrastructure.server_logs", lambda: checks.server_logs(log, instances, began)),
        *_judged("infrastructure.resource_utilization", lambda: checks.resource_utilization(resources)),
    ]


def check_ground_truth(run: Run) -> list[Finding]:
    metrics, drops = _metrics(run), run.policy.severity.drops
    labelled = _labelled(run, metrics)
    baseline = metrics if isinstance(metrics, Missing) else metrics.baseline.confusion
    return [
        *_judged("ground_truth.predictions_vs_outcomes", lambda: checks.predictions_vs_outcomes(labelled, baseline, drops)),
        *_judged("ground_truth.error_patterns", lambda: checks.error_patterns(labelled)),
    ]


CHECKS: dict[str, Callable[[Run], list[Finding]]] = {
    "recent_changes": check_recent_changes,
    "model_performance": check_model_performance,
    "data_quality": check_data_quality,
    "feature_store": feature_store.check,
    "infrastructure": check_infrastructure,
    "ground_truth": check_ground_truth,
}

ITEMS: dict[str, tuple[str, ...]] = {  # what each of them answers
    "recent_changes": CHANGES,
    "model_performance": (*PERFORMANCE, "infrastructure.inference_latency", "ground_truth.affected_asset_types"),
    "data_quality": ("data_quality.feature_distributions", "data_quality.missing_features", "data_quality.data_freshness"),
    "feature_store": ("data_quality.feature_store_connectivity", "infrastructure.feature_store_availability"),
    "infrastructure": ("infrastructure.server_logs", "infrastructure.resource_utilization"),
    "ground_truth": ("ground_truth.predictions_vs_outcomes", "ground_truth.error_patterns"),
}


def check(run: Run, name: str) -> list[str]:
    """One source's items of the checklist, recorded once; returns a sentence an item. A check that an error nobody expected has stopped
    is on the timeline, and so in the review."""
    if standing := run.recall(Findings, name):
        return standing.sentences
    found = Findings(tuple(_judged(ITEMS[name], lambda: CHECKS[name](run))))
    with run.write() as conn:
        for failed in found.failed:
            run.note(conn, "diagnosis", f"Check left out: {failed}")
        return run.keep(conn, found, name).sentences


def _judged(keys: str | Sequence[str], judge: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What a check finds. An error in it that nobody expected makes its own items unknown, and no others."""
    try:
        found = judge()
    except RunbookError:
        raise
    except Exception as error:
        keys = [keys] if isinstance(keys, str) else keys
        missing = unexpected(f"the check {', '.join(keys)}", error)
        return [unknown(key, "the check itself", missing) for key in keys]
    return [found] if isinstance(found, Finding) else found


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
    diagnosis, facts = rediagnosed(run)
    with run.write() as conn:
        recorded = run.keep(conn, Diagnosed.of(diagnosis, figures_of(facts.metrics, run.world.policy.costs)))
        if diagnosis.began_at:
            incidents.set_started(conn, run.incident_id, diagnosis.began_at)
        run.note(conn, "diagnosis", diagnosis.headline, {"cause": recorded.cause, "path": recorded.path})
    return recorded


def rediagnosed(run: Run) -> tuple[Diagnosis, DiagnosisFacts]:
    """The diagnosis as an object, with its facts: for the record, and again for the plan. Where it cannot be made a person decides: no
    cause, no path, nothing measured."""
    about, found, now = _about(run), findings(run), run.world.now()

    def made() -> tuple[Diagnosis, DiagnosisFacts]:
        facts = _gathered(run, about)
        return diagnose(found, facts, now), facts

    diagnosed = tried("the diagnosis", made)
    if not isinstance(diagnosed, Missing):
        return diagnosed
    nothing = DiagnosisFacts(about.detected_at, model_version=about.version, policy=run.policy)
    empty = diagnose((), nothing, now)
    return replace(empty, sentence=f"{diagnosed.reason}. {empty.sentence}", headline=f"{empty.headline}; {diagnosed.reason}"), nothing


def _about(run: Run) -> About:
    incident, triage = run.incident(), run.recall(Triage)
    return About(
        incident.detected_at,
        incident.model_version,
        missed=missed_failure(run),
        dangerous=triage is not None and triage.assessment.dangerous,
        stopped=is_stopped(executed_containment(run)),
    )


def _gathered(run: Run, about: About) -> DiagnosisFacts:
    model, platform, week_ago = _model(run), run.world.platform, about.detected_at - timedelta(days=7)
    recent, reference = _or_none(_recent(run)), _or_none(reference_rows(run)) or ()
    changes = or_none("the change history", lambda: recent_changes.of_model(run.world, model, since=week_ago))
    probing = or_none("the search for probing", lambda: judge_probing(recent, reference)) if recent is not None else None
    course = or_none("the course of the features", lambda: courses(reference, recent or ())) or {}
    seen = _metrics(run)
    metrics, labelled = _or_none(seen), _or_none(_labelled(run, seen)) or []
    inputs = _inputs_judged(run, metrics, reference, [*(recent or ()), *labelled])
    return gather(
        about,
        run.policy,
        changed=Changed(changes, _rollout(run)),
        metrics=metrics,
        log=Log(labelled, course, probing, inputs, [*(recent or ()), *_till_detection(run, about, recent or ())], reference),
        features=feature_store.recorded_verdict(run),
        versions=Versions(or_none("the status", lambda: platform.status(model)), _trained_types(run), rollback_target.recorded(run)),
    )


def _inputs_judged(run: Run, metrics: ModelMetrics | None, reference: Sequence[Prediction], rows: Sequence[Prediction]) -> BrokenInputs:
    """Judged once: the plan rests on what the diagnosis saw."""
    if standing := run.recall(BrokenInputs):
        return standing
    baseline, drops = metrics.baseline.confusion if metrics else None, run.policy.severity.drops
    judged = or_none("the look for broken features", lambda: judge_inputs(reference, rows, baseline, drops))
    if judged is None:
        return NOTHING_BROKEN
    with run.write() as conn:
        return run.keep(conn, judged)


def _rollout(run: Run) -> RolloutVerdict:
    judged = tried("the look at the rollouts", lambda: _judged_rollout(run))
    return RolloutVerdict(None, f"the rollout history cannot be read: {judged.reason}") if isinstance(judged, Missing) else judged


def _judged_rollout(run: Run) -> RolloutVerdict:
    runtime, incident = run.world.runtime, run.incident()
    if not (history := runtime.revisions(incident.model)):
        return NO_HISTORY
    rollout, pods = runtime.observe(incident.model).rollout, runtime.instances(incident.model)
    now, policy = run.world.now(), run.world.policy.rollouts
    return judge_rollout(history, rollout, pods, detected_at=incident.detected_at, now=now, policy=policy)


def _model(run: Run) -> str:
    return run.incident().model


def _metrics(run: Run) -> ModelMetrics | Missing:
    return tried("the metrics", lambda: measured.with_all_outcomes(run))


def _recent(run: Run) -> Sequence[Prediction] | Missing:
    log = run.world.platform.prediction_log
    return tried("the prediction log", lambda: log(_model(run), limit=RECENT_ROWS, since=measured.window_start(run)))


def _till_detection(run: Run, about: About, recent: Sequence[Prediction]) -> Sequence[Prediction]:
    """Of a busy model the newest rows are all of after the detection, and carry what the response has set since."""
    if any(row.at <= about.detected_at for row in recent):
        return ()
    log = run.world.platform.prediction_log

    def read() -> Sequence[Prediction]:
        return log(_model(run), limit=RECENT_ROWS, since=measured.window_start(run), until=about.detected_at)

    return or_none("the prediction log of before the detection", read) or ()


def _labelled(run: Run, metrics: ModelMetrics | Missing) -> Sequence[Prediction] | Missing:
    """Those on whose outcomes performance is judged: where outcomes come late, not those of the last hour."""
    judged = None if isinstance(metrics, Missing) else metrics.current
    since, until = (judged.outcomes_since, judged.outcomes_until) if judged else (None, None)
    log = run.world.platform.prediction_log

    def read() -> Sequence[Prediction]:
        return log(_model(run), limit=RECENT_ROWS, since=since or measured.window_start(run), until=until, labelled_only=True)

    return tried("the prediction log with outcomes", read)


def reference_rows(run: Run) -> Sequence[Prediction] | Missing:
    """A sample from all over the baseline's window: its newest rows alone would be one night, or one shift."""
    platform, limit = run.world.platform, REFERENCE_ROWS // REFERENCE_PARTS

    def read(since: datetime, until: datetime) -> Sequence[Prediction]:
        return platform.prediction_log(_model(run), limit=limit, since=since, until=until)

    def sampled() -> Sequence[Prediction]:
        baseline = measured.metrics(run).baseline
        return spread(read, baseline.outcomes_since or baseline.since, baseline.outcomes_until or baseline.until, REFERENCE_PARTS)

    return tried("the baseline's prediction log", sampled)


def _or_none(value: T | Missing) -> T | None:
    return None if isinstance(value, Missing) else value


def _trained_types(run: Run) -> Sequence[str] | None:
    """The asset types that the training of the incident's version saw; None where the platform does not say."""
    incident = run.incident()
    versions = or_none("the versions", lambda: run.world.platform.versions(incident.model)) or ()
    return next((v.asset_types for v in versions if v.version == incident.model_version), None)
