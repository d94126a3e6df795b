"""Step 4: the plan a person is asked to approve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    Materialize,
    Path,
    Plan,
    PlanKind,
    Promote,
    Restart,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.containment.taking_back import Executed, before_containment, is_stopped
from mlrunbook.domain.evaluation.threshold import ThresholdEffect
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.observed import ServingState

OBJECTION = "objection"  # of a plan's facts: what speaks against it, first in every text that asks for the decision


@dataclass(frozen=True)
class Candidate:
    """A retrained version fit to be promoted: why, in sentences, and the checks an approver is shown."""

    version: str
    reasons: tuple[str, ...]
    shown: tuple[str, ...] = ()


def propose(
    incident_id: str,
    model: str,
    diagnosis: Diagnosis,
    facts: DiagnosisFacts,
    *,
    state: ServingState | None = None,
    executed: Sequence[Executed] = (),
    candidate: Candidate | None = None,
    threshold_effect: ThresholdEffect | None = None,
) -> Plan | None:
    """The resolution plan, or None where there is no safe automatic path (`diagnosis.sentence` says what to look at). `candidate`: a
    retrained version that has passed its validation and its time in the shadow; without one there is no path C.

    Containment that would keep the fix from serving, or from being measured, is lifted inside the same plan, in view of the
    approver: servers that were stopped start again, a raised threshold goes back, a route override gives way.
    """
    if diagnosis.path is Path.ROLLBACK and diagnosis.target_version:
        actions, reasons = _rollback(incident_id, model, diagnosis.target_version, facts, state, executed)
        expected = f"{diagnosis.target_version} serves; F1 back within 5 % of {_baseline(facts)} on fresh predictions"
    elif diagnosis.path is Path.THRESHOLD and diagnosis.target_threshold is not None:
        actions, reasons = _threshold(incident_id, model, diagnosis.target_threshold, state, executed)
        expected = f"the server runs with threshold {diagnosis.target_threshold:g}; F1 back within 5 % of {_baseline(facts)}"
        if facts.replay_before:
            expected += f" ({facts.replay_before.sentence})"
        expected += f"; {threshold_effect.sentence if threshold_effect else 'recall and work orders: not known, no outcome can be read'}"
    elif diagnosis.path is Path.MATERIALIZE and diagnosis.repair:
        actions, reasons = _materialize(model, diagnosis.repair, state, executed)
        expected = f"online rows of {', '.join(diagnosis.repair.views)} as new as their source; F1 back within 5 % of {_baseline(facts)}"
    elif diagnosis.path is Path.RETRAIN and candidate:
        actions, reasons = _promote(incident_id, model, candidate, state, executed)
        expected = f"{candidate.version} serves; F1 within 5 % of {_baseline(facts)} or better on fresh predictions"
        threshold = before_containment("threshold", executed) or (state.config.threshold if state and state.config else None)
        if threshold is not None:
            expected += f", at the threshold {threshold:g} that it was validated with"
    elif diagnosis.path is Path.UNDO_ROLLOUT and diagnosis.target_revision is not None:
        reasons = []
        actions = [UndoRollout(model, diagnosis.target_revision), *_serve_again(model, state, executed, reasons)]
        expected = (
            f"the pods of revision {diagnosis.target_revision} are ready, latency and error rate within their limits, "
            f"F1 back within 5 % of {_baseline(facts)}"
        )
    elif diagnosis.path is Path.RESTART:
        actions, reasons = _anew(incident_id, model, state, executed)
        expected = f"the server answers, latency and error rate within their limits, F1 back within 5 % of {_baseline(facts)}"
    else:
        return None
    return Plan(
        incident_id,
        PlanKind.RESOLUTION,
        model,
        tuple(actions),
        (*([diagnosis.objection] if diagnosis.objection else []), diagnosis.sentence, *reasons),
        path=diagnosis.path,
        expected=expected,
        facts=_shown(diagnosis, facts)
        | (threshold_effect.as_dict() if threshold_effect else {})
        | ({"candidate": list(candidate.shown)} if candidate and diagnosis.path is Path.RETRAIN else {}),
    )


def restart_id(incident_id: str) -> str:
    """One incident restarts the server once to mend it; what that did not mend, another restart does not."""
    return f"{incident_id}-serving"


def _anew(incident_id: str, model: str, state: ServingState | None, executed: Sequence[Executed]) -> tuple[list[Action], list[str]]:
    """A new process: of a server that was stopped, or in place of the one that runs."""
    reasons: list[str] = []
    return _serve_again(model, state, executed, reasons) or [Restart(model, restart_id(incident_id))], reasons


def _materialize(model: str, repair: Repair, state: ServingState | None, executed: Sequence[Executed]) -> tuple[list[Action], list[str]]:
    """The rows first, then the schedule: a schedule that runs into broken rows would only stop again."""
    actions: list[Action] = [Materialize(model, repair.views, repair.since, repair.until, repair.as_of)]
    reasons: list[str] = []
    if repair.resume:
        actions.append(ResumeMaterialization(model, repair.resume))
        reasons.append(f"the schedule of {', '.join(repair.resume)} is suspended: without it the rows go stale again at once")
    return actions + _serve_again(model, state, executed, reasons), reasons


def _promote(
    incident_id: str, model: str, candidate: Candidate, state: ServingState | None, executed: Sequence[Executed]
) -> tuple[list[Action], list[str]]:
    reasons = list(candidate.reasons)
    actions: list[Action] = []
    if state is not None and state.route_version not in (None, candidate.version):
        actions.append(RouteTraffic(model, candidate.version))
        reasons.append(f"traffic is routed to {state.route_version}: it goes to {candidate.version} instead")
    actions.append(Promote(model, candidate.version, reason=f"{incident_id}: retrained"))
    return actions + _threshold_back(incident_id, model, candidate.version, state, executed, reasons), reasons


def _threshold_back(
    incident_id: str, model: str, version: str, state: ServingState | None, executed: Sequence[Executed], reasons: list[str]
) -> list[Action]:
    """The threshold as before containment, and servers that run: what `version` was judged with."""
    threshold = before_containment("threshold", executed)
    if threshold is None:
        return _serve_again(model, state, executed, reasons)
    reasons.append(f"the threshold that containment raised goes back to {threshold:g}, which {version} was judged with")
    back: list[Action] = [Configure(model, {"threshold": threshold})]
    return back + (_serve_again(model, state, executed, reasons) or [_restart(incident_id, model, threshold)])


def _rollback(
    incident_id: str, model: str, version: str, facts: DiagnosisFacts, state: ServingState | None, executed: Sequence[Executed]
) -> tuple[list[Action], list[str]]:
    actions: list[Action] = []
    reasons: list[str] = []
    if state is not None and state.route_version not in (None, version):
        # While an override points elsewhere the server can never be seen to serve the target.
        actions.append(RouteTraffic(model, version))
        reasons.append(f"traffic is routed to {state.route_version}: it goes to {version} instead")
    what = f"performance degradation in {facts.model_version or 'the serving version'}"
    if facts.not_loaded:
        what = f"{facts.suspect_version} cannot be loaded"
    actions.append(RollBack(model, version, reason=f"{incident_id}: {what}"))
    return actions + _threshold_back(incident_id, model, version, state, executed, reasons), reasons


def _threshold(
    incident_id: str, model: str, threshold: float, state: ServingState | None, executed: Sequence[Executed]
) -> tuple[list[Action], list[str]]:
    actions: list[Action] = [Configure(model, {"threshold": threshold})]
    reasons: list[str] = []
    # A server that starts reads its config: no restart on top.
    actions += _serve_again(model, state, executed, reasons) or [_restart(incident_id, model, threshold)]
    if any(isinstance(e.action, RouteTraffic) for e in executed):
        former = before_containment("version", executed)
        actions.append(RouteTraffic(model, former))
        reasons.append(f"traffic that containment routed away goes back to {former or 'the version the registry names'}")
    return actions, reasons


def _serve_again(model: str, state: ServingState | None, executed: Sequence[Executed], reasons: list[str]) -> list[Action]:
    """Start the servers that containment stopped."""
    if not is_stopped(executed) or (state is not None and state.replicas > 0):
        return []
    replicas = before_containment("replicas", executed)
    count = replicas if isinstance(replicas, int) and replicas > 0 else 1
    reasons.append(f"serving was stopped: {count} server(s) start again")
    return [Scale(model, count)]


def _restart(incident_id: str, model: str, threshold: float) -> Restart:
    return Restart(model, f"{incident_id}-threshold-{threshold:g}")


def _baseline(facts: DiagnosisFacts) -> str:
    f1 = facts.metrics.baseline.confusion.f1 if facts.metrics else None
    return f"the baseline {f1:.2f}" if f1 is not None else "the baseline"


def _shown(diagnosis: Diagnosis, facts: DiagnosisFacts) -> dict[str, Any]:
    """The numbers the approver sees."""
    shown: dict[str, Any] = {
        "cause": str(diagnosis.top.cause),
        "score": diagnosis.top.score,
        "against": list(diagnosis.top.against),
        "not_checked": list(diagnosis.top.open),
        "model_version": facts.model_version,
    }
    if diagnosis.objection:
        shown[OBJECTION] = diagnosis.objection
    if facts.metrics:
        now, before = facts.metrics.current.confusion, facts.metrics.baseline.confusion
        shown |= {"f1_baseline": _round(before.f1), "f1_now": _round(now.f1), "precision_now": _round(now.precision)}
        shown |= {"recall_now": _round(now.recall), "known_outcomes": now.n, "known_failures": now.positives}
    return shown


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
