"""Which threshold path D sets, what it is expected to do to recall and to the number of work orders, and which one a fix is judged at."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.actions import Configure, PlanKind
from mlrunbook.domain.containment.taking_back import before_containment
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.evaluation.threshold import ThresholdEffect, choose_threshold, counts_at, effect_of
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.observed import Prediction, ServingState
from mlrunbook.domain.policy.judging import PRECISION
from mlrunbook.domain.resolution.fix import Applied
from mlrunbook.response.execution.plans import executed_containment
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none
from mlrunbook.store import plans

REPLAY_ROWS = 4000
FRESH_ROWS = 10_000  # the most the platform gives at once


def chosen(run: Run, diagnosis: Diagnosis, state: ServingState | None) -> Diagnosis:
    """A person asks for path D and leaves the threshold open: the smallest that brings precision surely back, at most one step away.

    Precision is back when it is as near to its baseline as policy lets it fall (`severity.drops.metrics`).
    """
    policy, known, metrics = run.policy, _known(run), _metrics(run)
    before = metrics.baseline.confusion.precision if metrics else None
    if state is None or state.config is None or known is None or before is None:
        return _infeasible(diagnosis, "no threshold can be chosen: the server's config, known outcomes or the baseline cannot be read")
    choice = choose_threshold(
        *known,
        precision_floor=before * (1 - policy.severity.drops.most(PRECISION)),
        current=state.config.threshold,
        max_step=policy.containment.max_threshold_step,
    )
    if choice.threshold is None:
        return _infeasible(diagnosis, choice.sentence)
    return replace(diagnosis, target_threshold=choice.threshold, sentence=f"{diagnosis.sentence}. Chosen: {choice.sentence}")


def expected(run: Run, target: float, state: ServingState | None) -> ThresholdEffect | None:
    """None when no outcome can be read: the plan then says so instead of numbers."""
    known, metrics = _known(run), _metrics(run)
    if known is None:
        return None
    per_day = None
    if metrics and (span_s := (metrics.current.until - metrics.current.since).total_seconds()) > 0:
        per_day = metrics.current.predictions / span_s * 86400
    current = state.config.threshold if state and state.config else None
    return effect_of(*known, current=current, target=target, predictions_per_day=per_day)


def coming_back(run: Run) -> float | None:
    """The threshold from before containment, when containment raised it and it is taken back only once recovery is measured. None when
    it stays as it is, or the resolution has set it already."""
    before = before_containment("threshold", executed_containment(run))
    if before is None:
        return None
    if run.recall(Applied):
        with run.world.transaction() as conn:
            resolution = plans.current(conn, run.incident_id, PlanKind.RESOLUTION)
        if resolution and any(isinstance(a, Configure) and "threshold" in a.settings for a in resolution.actions):
            return None
    return float(before)


def counted_at(run: Run, seen: ModelMetrics, threshold: float) -> ModelMetrics:
    """`seen` with the counts of the current window as they would be at `threshold`, from the newest known outcomes of the log."""
    window = seen.current
    rows = run.world.platform.prediction_log(seen.model, limit=FRESH_ROWS, since=window.since, until=window.until, labelled_only=True)

    def counts(of: list[Prediction]) -> Confusion:
        return counts_at([p.score for p in of], [bool(p.outcome) for p in of], threshold)

    known = [p for p in rows if p.outcome is not None]
    by_type = {name: counts([p for p in known if p.asset_type == name]) for name in sorted({p.asset_type for p in known})}
    return replace(seen, current=replace(window, tally=counts(known), by_asset_type=by_type))


def _infeasible(diagnosis: Diagnosis, why: str) -> Diagnosis:
    return replace(diagnosis, path=None, sentence=f"{diagnosis.sentence}. But {why}", advice=f"Path D was asked for, but {why}")


def _known(run: Run) -> tuple[list[float], list[bool]] | None:
    """Scores and outcomes of the version the incident is about, since the last change before it."""
    incident = run.incident()
    log = run.world.platform.prediction_log
    rows = or_none(
        "the prediction log", lambda: log(incident.model, limit=REPLAY_ROWS, since=measured.window_start(run), labelled_only=True)
    )
    if rows is None:
        return None
    of_version = [p for p in rows if p.outcome is not None and incident.model_version in (None, p.version)]
    return [p.score for p in of_version], [bool(p.outcome) for p in of_version]


def _metrics(run: Run) -> ModelMetrics | None:
    return or_none("the metrics", lambda: measured.metrics(run))
