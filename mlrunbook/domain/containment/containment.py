"""Step 2: what is done at once, and what is proposed to a person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Plan,
    PlanKind,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
)
from mlrunbook.domain.containment.breach import Verdict
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.triage import Backed
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.observed import ServingState, ServingStatus
from mlrunbook.domain.policy.changes import MAX_THRESHOLD, ContainmentPolicy, Rule
from mlrunbook.domain.records import Record, Recorded, SpacedTime


class Containment(NamedTuple):
    """`automatic` rests on its named rules, `mitigation` waits for a person."""

    automatic: Plan | None
    mitigation: Plan | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ContainmentDecided(Recorded, key=Record.CONTAINMENT):
    """The outcome of `plan_containment`, by the digests of its plans. `isolates`: the automatic one cuts the model server off."""

    reasons: tuple[str, ...] = ()
    isolates: bool = False
    automatic: str | None = None
    mitigation: str | None = None


@dataclass(frozen=True)
class Contained(Recorded, key=Record.CONTAINED):
    """Immediate containment is done, or paged, and announced."""

    at: SpacedTime


_OF_THE_MODEL = (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION)


class _Step(NamedTuple):
    rule: Rule
    actions: tuple[Action, ...]
    reason: str


@dataclass(frozen=True)
class Situation:
    """What containment is decided on beside the severity. None: not looked at, or it could not be seen.

    `previous_is_dangerous` None: nothing is known against it. `raise_to` is the threshold a score replay asks for, None without one.
    `recent_deployment`: the model was deployed within 24 h; False leaves the temporary rollback out. `blind` says why features are not what
    they should be: then no version can do better. `no_route` says why traffic cannot go to the previous version: nobody serves it, say.
    `no_switches` says why nothing about the server can be set: it takes no threshold and no switches, or is not managed here.
    """

    pending_work_orders: int = 0
    has_work_orders: bool = True  # False: no work order comes of these predictions, so none is halted
    status: ServingStatus | None = None
    state: ServingState | None = None
    previous_is_dangerous: bool | None = None
    raise_to: float | None = None
    recent_deployment: bool | None = None
    blind: str | None = None
    no_route: str | None = None
    no_switches: str | None = None

    @property
    def previous_version(self) -> str | None:
        return self.status.previous_version if self.status else None


def plan_containment(
    incident_id: str,
    model: str,
    assessment: Assessment,
    seen: Situation,
    policy: ContainmentPolicy | None = None,
    *,
    isolate: Verdict | None = None,
    backed: Backed | None = None,
) -> Containment:
    """Decide containment by severity and kind (runbook, Step 2).

    `isolate` is the verdict of `breach.isolation`, None where the incident is no breach. An isolated server predicts nothing, so beside
    isolation nothing about the model is changed. `backed`: what holds without the word of senders that policy does not trust for
    containment (None: all of it); a step that rests on their word alone waits for a person.
    """
    policy = policy or ContainmentPolicy()
    if assessment.real is not True:
        return Containment(None, None, ("not established as real: nothing is changed",))
    if isolate:
        return _isolation(incident_id, model, Judged(assessment, backed), isolate, seen, policy)
    if why := _why_nothing(assessment):
        return Containment(None, None, (why,))
    steps, notes = _steps(incident_id, model, assessment, seen, policy)
    automatic = [s for s in steps if s.rule in policy.automatic and _is_backed(s.rule, backed)]
    proposed = [s for s in steps if s not in automatic]
    back = _temporary_rollback(model, assessment, seen)
    proposals = [*(a for s in proposed for a in s.actions), *back]
    waits = _waits(backed, [s for s in proposed if s.rule in policy.automatic])
    notes += waits
    reasons = [*(s.reason for s in proposed), *waits]
    if back:
        reasons.append(
            f"temporary mitigation: {back[0].target_version} was the version before; it is not compared yet, rolling back buys time"
        )
    return Containment(
        _plan(incident_id, PlanKind.CONTAINMENT, model, automatic),
        Plan(incident_id, PlanKind.MITIGATION, model, tuple(proposals), (*assessment.reasons, *reasons), expected=_EXPECTED)
        if proposals
        else None,
        (*(s.reason for s in steps), *notes),
    )


class Judged(NamedTuple):
    assessment: Assessment
    backed: Backed | None


def _is_backed(rule: Rule, backed: Backed | None) -> bool:
    """Whether the rule would apply also without the word of those who are not trusted."""
    if backed is None:
        return True
    found = backed.assessment
    if found.real is not True or _why_nothing(found):
        return False
    return rule in _rules(found)


def _rules(found: Assessment) -> set[Rule]:
    """Those that `_steps` may follow."""
    if found.dangerous:
        danger = {Rule.ROUTE_PREVIOUS, Rule.STOP_SERVING} if found.severity is Severity.CRITICAL else set[Rule]()
        return danger | {Rule.HALT_WORK_ORDERS}
    rules = {Rule.HUMAN_APPROVAL, Rule.DISABLE_AUTO_SCHEDULING}
    rules |= {Rule.HALT_WORK_ORDERS} if found.safety_risk else set()
    return rules | ({Rule.RAISE_THRESHOLD} if found.excessive_false_positives else set())


def _waits(backed: Backed | None, steps: Sequence[_Step]) -> list[str]:
    """Why steps that would be automatic wait for a person."""
    if backed is None or not steps:
        return []
    who, what = ", ".join(backed.without), ", ".join(s.rule for s in steps)
    why = f"rests on the word of {who} alone (not proven, or not in intake.trusted_for.containment), not on a measurement"
    return [f"waits for a person: {what} {why}"]


def _why_nothing(assessment: Assessment) -> str | None:
    """Why no step of containment applies to an incident that is real and no breach."""
    if assessment.severity is Severity.LOW:
        return "severity low: a ticket, nothing is changed"
    if assessment.severity is Severity.MEDIUM:
        return "severity medium: no automatic change; investigate, then propose a plan"
    if assessment.insufficient:
        return "no measurement backs the severity: people are told, nothing is changed automatically"
    if assessment.type not in _OF_THE_MODEL and not assessment.safety_risk:
        return f"no containment step of the runbook applies by itself to {assessment.type}"
    return None


def _steps(
    incident_id: str, model: str, assessment: Assessment, seen: Situation, policy: ContainmentPolicy
) -> tuple[list[_Step], list[str]]:
    """What limits the damage, and why something else does not."""
    steps: list[_Step] = []
    notes: list[str] = []
    if assessment.severity is Severity.CRITICAL and assessment.dangerous:
        steps.append(_stop_danger(model, seen))
    if assessment.safety_risk and seen.has_work_orders and not seen.no_switches:
        steps.append(_halt_work_orders(incident_id, model, seen.pending_work_orders))
    if assessment.dangerous:
        return steps, notes
    if seen.no_switches:
        return steps, [*notes, f"until this is fixed a person looks at the predictions: {seen.no_switches}"]
    if assessment.excessive_false_positives:
        raised = _raise_threshold(incident_id, model, seen, policy)
        if isinstance(raised, str):
            notes.append(raised)
        else:
            steps.append(raised)
    asked = _ask_a_person(model)
    return [*steps, *(asked if seen.has_work_orders else asked[:1])], notes


def _isolation(
    incident_id: str,
    model: str,
    judged: Judged,
    isolate: Verdict,
    seen: Situation,
    policy: ContainmentPolicy,
) -> Containment:
    assessment, backed = judged
    at_once, why, is_trusted = isolate
    if assessment.dangerous and is_trusted:
        at_once, why = True, f"dangerous predictions: the model server is cut off; {why}"
    steps = [_Step(Rule.ISOLATE, (Isolate(model, True),), why)]
    if assessment.dangerous and not is_trusted:  # the danger is measured, the breach is not: it is contained as any other danger is
        steps.append(_stop_danger(model, seen))
    if assessment.safety_risk and seen.has_work_orders:
        steps.append(_halt_work_orders(incident_id, model, seen.pending_work_orders))
    by_itself = [s for s in steps if s.rule in policy.automatic and (at_once or s.rule is not Rule.ISOLATE)]
    automatic = [s for s in by_itself if s.rule is Rule.ISOLATE or assessment.dangerous or _halts(judged)]
    proposed = [s for s in steps if s not in automatic]
    waits = _waits(backed, [s for s in by_itself if s not in automatic])
    actions = tuple(action for s in proposed for action in s.actions)
    expected = "nobody reaches the model server but those who look into it; a named person decides how it goes on"
    mitigation = Plan(
        incident_id, PlanKind.ISOLATION, model, actions, (*assessment.reasons, *(s.reason for s in proposed), *waits), expected=expected
    )
    return Containment(
        _plan(incident_id, PlanKind.CONTAINMENT, model, automatic),
        mitigation if proposed else None,
        (*(s.reason for s in steps), *waits),
    )


def _halts(judged: Judged) -> bool:
    """Whether a safety risk is more than the word of somebody who is not trusted."""
    return judged.backed is None or judged.backed.assessment.safety_risk


def _halt_work_orders(incident_id: str, model: str, pending_work_orders: int) -> _Step:
    why = f"safety risk: no work order may come of these predictions, and the {pending_work_orders} pending ones are checked"
    halt = (Configure(model, {"auto_work_orders": False}), FlagWorkOrders(model, reason=f"{incident_id}: predictions are not safe"))
    return _Step(Rule.HALT_WORK_ORDERS, halt, why)


_EXPECTED = "less harm while the cause is looked for; taken back, or kept with a reason, once recovery is measured"


def _plan(incident_id: str, kind: PlanKind, model: str, steps: Sequence[_Step]) -> Plan | None:
    if not steps:
        return None
    actions = tuple(action for step in steps for action in step.actions)
    rule = ", ".join(step.rule for step in steps)
    return Plan(incident_id, kind, model, actions, tuple(s.reason for s in steps), rule=rule, expected=_EXPECTED)


def _stop_danger(model: str, seen: Situation) -> _Step:
    previous = seen.previous_version
    if seen.blind:
        why = f"dangerous predictions, and {seen.blind}: another version would be as blind, so serving stops"
    elif previous is None:
        why = "dangerous predictions and no previous version: serving stops"
    elif seen.previous_is_dangerous:
        why = f"dangerous predictions, and {previous} is dangerous too: serving stops"
    elif seen.no_route:
        why = f"dangerous predictions, and traffic cannot go to {previous}, so serving stops: {seen.no_route}"
    else:
        known = "is not dangerous" if seen.previous_is_dangerous is False else "served before and nothing is known against it"
        why = f"dangerous predictions: traffic goes to {previous}, which {known}"
        return _Step(Rule.ROUTE_PREVIOUS, (RouteTraffic(model, previous),), why)
    return _Step(Rule.STOP_SERVING, (Scale(model, 0),), why)


def _raise_threshold(incident_id: str, model: str, seen: Situation, policy: ContainmentPolicy) -> _Step | str:
    """Too many false alarms: raise the threshold for now; or why not."""
    current = seen.state.config.threshold if seen.state and seen.state.config else None
    target = _raised(current, seen.raise_to, policy.max_threshold_step)
    if current is None or target is None:
        return "the threshold is not raised: " + ("it cannot be read" if current is None else "no higher one would help")
    basis = "from a replay of known outcomes" if seen.raise_to is not None else "without known outcomes to replay"
    raised = (Configure(model, {"threshold": target}), Restart(model, f"{incident_id}-contain-{target:g}"))
    reason = f"too many false alarms: threshold {current:g} -> {target:g} for now ({basis}, at most +{policy.max_threshold_step:g})"
    return _Step(Rule.RAISE_THRESHOLD, raised, reason)


def _ask_a_person(model: str) -> list[_Step]:
    """High severity: a person looks at every prediction, and no work order comes of one by itself."""
    person = "predictions cannot be trusted alone: a person approves each one"
    scheduling = "no work order is scheduled without a person"
    return [
        _Step(Rule.HUMAN_APPROVAL, (Configure(model, {"human_approval": True}),), person),
        _Step(Rule.DISABLE_AUTO_SCHEDULING, (Configure(model, {"auto_scheduling": False}),), scheduling),
    ]


def _raised(current: float | None, wanted: float | None, step: float) -> float | None:
    if current is None:
        return None
    target = round(min(current + step if wanted is None else wanted, current + step, MAX_THRESHOLD), 4)
    return target if target > current else None


def _temporary_rollback(model: str, assessment: Assessment, seen: Situation) -> tuple[RollBack, ...]:
    """Proposed, never automatic. Where traffic is routed away already (dangerous), there is nothing left to mitigate."""
    previous = seen.previous_version
    if previous is None or seen.previous_is_dangerous or seen.recent_deployment is False or assessment.dangerous:
        return ()
    return (RollBack(model, previous, reason="temporary mitigation"),) if assessment.type in _OF_THE_MODEL else ()


def feasible(actions: Sequence[Action], refused: Collection[int]) -> list[int]:
    """The positions of what is left to do when these are refused. A threshold and the restart that loads it go together: one without the
    other would change nothing, or something else than was decided."""
    pair = {i for i, a in enumerate(actions) if isinstance(a, Restart) or (isinstance(a, Configure) and "threshold" in a.settings)}
    dropped = set(refused) | (pair if pair & set(refused) else set())
    return [i for i in range(len(actions)) if i not in dropped]
