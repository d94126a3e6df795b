"""What each path of step 4 changes: a pure function a path, from the situation to its actions, why each is there, and what to expect.

Containment that would keep the fix from serving, or from being measured, is lifted inside the same plan, in view of the approver:
servers that were stopped start again, a raised threshold goes back, a route override gives way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    Materialize,
    Path,
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
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.resolution.candidate import Candidate


@dataclass(frozen=True)
class Situation:
    """What a path is planned for. `state` None: the servers cannot be seen. `executed`: the containment in force. `candidate`: a version
    that has passed its validation and its time in the shadow."""

    incident_id: str
    model: str
    diagnosis: Diagnosis
    facts: DiagnosisFacts
    state: ServingState | None = None
    executed: Sequence[Executed] = ()
    candidate: Candidate | None = None
    threshold_effect: ThresholdEffect | None = None

    @property
    def baseline(self) -> str:
        f1 = self.facts.metrics.baseline.confusion.f1 if self.facts.metrics else None
        return f"the baseline {f1:.2f}" if f1 is not None else "the baseline"


@dataclass(frozen=True)
class Changes:
    """Actions in their order, and the reasons for those that need one."""

    actions: tuple[Action, ...] = ()
    reasons: tuple[str, ...] = ()


def in_turn(*steps: Changes | None) -> Changes:
    """One after the other; None: nothing to do."""
    parts = [step for step in steps if step]
    return Changes(tuple(a for part in parts for a in part.actions), tuple(r for part in parts for r in part.reasons))


@dataclass(frozen=True)
class Proposal:
    """`expected`: what the approver should see afterwards. `facts`: what this path adds to the numbers they are shown."""

    changes: Changes
    expected: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def roll_back(of: Situation) -> Proposal | None:
    """Path A."""
    version = of.diagnosis.target_version
    if not version:
        return None
    what = f"performance degradation in {of.facts.model_version or 'the serving version'}"
    if of.facts.not_loaded:
        what = f"{of.facts.suspect_version} cannot be loaded"
    back = Changes((RollBack(of.model, version, reason=f"{of.incident_id}: {what}"),))
    return Proposal(
        in_turn(_route_to(of, version), back, _threshold_back(of, version)),
        f"{version} serves; F1 back within 5 % of {of.baseline} on fresh predictions",
    )


def materialize(of: Situation) -> Proposal | None:
    """Path B. The rows first, then the schedule: a schedule that runs into broken rows would only stop again."""
    repair = of.diagnosis.repair
    if repair is None:
        return None
    rows = Changes((Materialize(of.model, repair.views, repair.since, repair.until, repair.as_of),))
    schedule = None
    if repair.resume:
        why = f"the schedule of {', '.join(repair.resume)} is suspended: without it the rows go stale again at once"
        schedule = Changes((ResumeMaterialization(of.model, repair.resume),), (why,))
    return Proposal(
        in_turn(rows, schedule, _serve_again(of)),
        f"online rows of {', '.join(repair.views)} as new as their source; F1 back within 5 % of {of.baseline}",
    )


def promote(of: Situation) -> Proposal | None:
    """Path C. None without a candidate that has proved better."""
    candidate = of.candidate
    if candidate is None:
        return None
    proven = Changes(reasons=candidate.reasons)
    promotion = Changes((Promote(of.model, candidate.version, reason=f"{of.incident_id}: retrained"),))
    expected = f"{candidate.version} serves; F1 within 5 % of {of.baseline} or better on fresh predictions"
    threshold = before_containment("threshold", of.executed) or (of.state.config.threshold if of.state and of.state.config else None)
    if threshold is not None:
        expected += f", at the threshold {threshold:g} that it was validated with"
    changes = in_turn(proven, _route_to(of, candidate.version), promotion, _threshold_back(of, candidate.version))
    return Proposal(changes, expected, {"candidate": list(candidate.shown)})


def set_threshold(of: Situation) -> Proposal | None:
    """Path D."""
    threshold = of.diagnosis.target_threshold
    if threshold is None:
        return None
    route_back = None
    if any(isinstance(e.action, RouteTraffic) for e in of.executed):
        former = before_containment("version", of.executed)
        why = f"traffic that containment routed away goes back to {former or 'the version the registry names'}"
        route_back = Changes((RouteTraffic(of.model, former),), (why,))
    expected = f"the server runs with threshold {threshold:g}; F1 back within 5 % of {of.baseline}"
    if of.facts.replay_before:
        expected += f" ({of.facts.replay_before.sentence})"
    effect = of.threshold_effect
    expected += f"; {effect.sentence if effect else 'recall and work orders: not known, no outcome can be read'}"
    return Proposal(in_turn(_load(of, threshold), route_back), expected, effect.as_dict() if effect else {})


def undo_rollout(of: Situation) -> Proposal | None:
    revision = of.diagnosis.target_revision
    if revision is None:
        return None
    return Proposal(
        in_turn(Changes((UndoRollout(of.model, revision),)), _serve_again(of)),
        f"the pods of revision {revision} are ready, latency and error rate within their limits, F1 back within 5 % of {of.baseline}",
    )


def restart(of: Situation) -> Proposal:
    """Start a server that was stopped, or restart one that runs."""
    start = _serve_again(of) or Changes((Restart(of.model, restart_id(of.incident_id)),))
    return Proposal(start, f"the server answers, latency and error rate within their limits, F1 back within 5 % of {of.baseline}")


PROPOSERS: Mapping[Path, Callable[[Situation], Proposal | None]] = {
    Path.ROLLBACK: roll_back,
    Path.MATERIALIZE: materialize,
    Path.RETRAIN: promote,
    Path.THRESHOLD: set_threshold,
    Path.UNDO_ROLLOUT: undo_rollout,
    Path.RESTART: restart,
}


def restart_id(incident_id: str) -> str:
    """An incident restarts the server once: if that did not fix it, another restart will not."""
    return f"{incident_id}-serving"


def _route_to(of: Situation, version: str) -> Changes | None:
    """While a route override points elsewhere, the server never serves `version`."""
    if of.state is None or of.state.route_version in (None, version):
        return None
    return Changes((RouteTraffic(of.model, version),), (f"traffic is routed to {of.state.route_version}: it goes to {version} instead",))


def _threshold_back(of: Situation, version: str) -> Changes | None:
    """The threshold from before containment, on servers that run: `version` was judged with it."""
    threshold = before_containment("threshold", of.executed)
    if threshold is None:
        return _serve_again(of)
    why = f"the threshold that containment raised goes back to {threshold:g}, which {version} was judged with"
    return in_turn(Changes(reasons=(why,)), _load(of, threshold))


def _load(of: Situation, threshold: float) -> Changes:
    """A server reads its config when it starts: one that is stopped starts, one that runs restarts."""
    start = _serve_again(of) or Changes((Restart(of.model, f"{of.incident_id}-threshold-{threshold:g}"),))
    return in_turn(Changes((Configure(of.model, {"threshold": threshold}),)), start)


def _serve_again(of: Situation) -> Changes | None:
    """Start the servers that containment stopped."""
    if not is_stopped(of.executed) or (of.state is not None and of.state.replicas > 0):
        return None
    replicas = before_containment("replicas", of.executed)
    count = replicas if isinstance(replicas, int) and replicas > 0 else 1
    return Changes((Scale(of.model, count),), (f"serving was stopped: {count} server(s) start again",))
