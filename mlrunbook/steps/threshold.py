"""Path D: which threshold, and what it is expected to do to recall and to the number of work orders."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.diagnosis import Diagnosis
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.performance import ModelMetrics
from mlrunbook.domain.threshold import ThresholdEffect, choose_threshold, effect_of
from mlrunbook.ports import ServingState
from mlrunbook.steps import measured
from mlrunbook.steps.run import Run

REPLAY_ROWS = 4000


def chosen(run: Run, diagnosis: Diagnosis, state: ServingState | None) -> Diagnosis:
    """A person asks for path D and leaves the threshold open: the smallest that brings precision surely back, at most one step away.

    Precision is back when it is as near to its baseline as policy lets it fall (`severity.drops.precision`).
    """
    policy, known, metrics = run.world.policy, _known(run), _metrics(run)
    before = metrics.baseline.confusion.precision if metrics else None
    if state is None or state.config is None or known is None or before is None:
        return _infeasible(diagnosis, "no threshold can be chosen: the server's config, known outcomes or the baseline cannot be read")
    choice = choose_threshold(
        *known,
        precision_floor=before * (1 - policy.severity.drops.precision),
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


def _infeasible(diagnosis: Diagnosis, why: str) -> Diagnosis:
    return replace(diagnosis, path=None, sentence=f"{diagnosis.sentence}. But {why}", advice=f"Path D was asked for, but {why}")


def _known(run: Run) -> tuple[list[float], list[bool]] | None:
    """Scores and outcomes of the version the incident is about, since the last change before it."""
    incident = run.incident()
    try:
        rows = run.world.platform.prediction_log(incident.model, limit=REPLAY_ROWS, since=measured.window_start(run), labelled_only=True)
    except RunbookError:
        return None
    of_version = [p for p in rows if p.outcome is not None and incident.model_version in (None, p.version)]
    return [p.score for p in of_version], [bool(p.outcome) for p in of_version]


def _metrics(run: Run) -> ModelMetrics | None:
    try:
        return measured.metrics(run)
    except RunbookError:
        return None
