"""Step 2: what is done at once, what is proposed to a person, who is told; and how it is taken back afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Materialize,
    Plan,
    PlanKind,
    Promote,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.observed import ServingState, ServingStatus
from mlrunbook.domain.policy.changes import MAX_THRESHOLD, ContainmentPolicy, Rule


class Containment(NamedTuple):
    """`automatic` rests on its named rules, `mitigation` waits for a person."""

    automatic: Plan | None
    mitigation: Plan | None
    reasons: tuple[str, ...]


class _Step(NamedTuple):
    rule: Rule
    actions: tuple[Action, ...]
    reason: str


def plan_containment(
    incident_id: str,
    model: str,
    assessment: Assessment,
    status: ServingStatus | None,
    state: ServingState | None,
    previous_is_dangerous: bool | None,
    pending_work_orders: int,
    policy: ContainmentPolicy | None = None,
    *,
    raise_to: float | None = None,
    recent_deployment: bool | None = None,
    blind: str | None = None,
    isolate: tuple[bool, str] | None = None,
    no_route: str | None = None,
) -> Containment:
    """Decide containment by severity and kind (runbook, Step 2).

    `isolate` is the verdict of `breach.isolation`, None where the incident is no breach. An isolated server predicts nothing, so beside
    isolation nothing about the model is changed.

    `raise_to` is the threshold a score replay asks for, None without one. `recent_deployment`: the model was deployed within
    24 h; False leaves the temporary rollback out. `blind` says why features are not what they should be: then no version can do better.
    `previous_is_dangerous` None: nothing is known against it. `no_route` says why traffic cannot go to the previous version: nobody
    serves it, say.
    """
    policy = policy or ContainmentPolicy()
    severity = assessment.severity
    if assessment.real is not True:
        return Containment(None, None, ("not established as real: nothing is changed",))
    if isolate:
        return _isolation(incident_id, model, assessment, isolate, pending_work_orders, policy)
    if severity is Severity.LOW:
        return Containment(None, None, ("severity low: a ticket, nothing is changed",))
    if severity is Severity.MEDIUM:
        return Containment(None, None, ("severity medium: no automatic change; investigate, then propose a plan",))
    if assessment.insufficient:
        return Containment(None, None, ("no measurement backs the severity: people are told, nothing is changed automatically",))
    if assessment.type not in (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION) and not assessment.safety_risk:
        return Containment(None, None, (f"no containment step of the runbook applies by itself to {assessment.type}",))

    steps: list[_Step] = []
    notes: list[str] = []
    if severity is Severity.CRITICAL and assessment.dangerous:
        steps.append(_stop_danger(model, status, previous_is_dangerous, blind, no_route))
    if assessment.safety_risk:
        steps.append(_halt_work_orders(incident_id, model, pending_work_orders))
    if not assessment.dangerous:
        steps += _limit_damage(incident_id, model, assessment, state, policy, raise_to, notes)

    automatic = [s for s in steps if s.rule in policy.automatic]
    proposed = [s for s in steps if s.rule not in policy.automatic]
    back = _temporary_rollback(model, assessment, status, previous_is_dangerous, recent_deployment)
    proposals = [*(a for s in proposed for a in s.actions), *back]
    reasons = [s.reason for s in proposed]
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


def _isolation(
    incident_id: str,
    model: str,
    assessment: Assessment,
    isolate: tuple[bool, str],
    pending_work_orders: int,
    policy: ContainmentPolicy,
) -> Containment:
    at_once, why = isolate
    if assessment.dangerous:
        at_once, why = True, f"dangerous predictions: the model server is cut off; {why}"
    steps = [_Step(Rule.ISOLATE, (Isolate(model, True),), why)]
    if assessment.safety_risk:
        steps.append(_halt_work_orders(incident_id, model, pending_work_orders))
    automatic = [s for s in steps if s.rule in policy.automatic and (at_once or s.rule is not Rule.ISOLATE)]
    proposed = [s for s in steps if s not in automatic]
    actions = tuple(action for s in proposed for action in s.actions)
    expected = "nobody reaches the model server but those who look into it; a named person decides how it goes on"
    mitigation = Plan(
        incident_id, PlanKind.ISOLATION, model, actions, (*assessment.reasons, *(s.reason for s in proposed)), expected=expected
    )
    return Containment(
        _plan(incident_id, PlanKind.CONTAINMENT, model, automatic),
        mitigation if proposed else None,
        tuple(s.reason for s in steps),
    )


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


def _stop_danger(
    model: str, status: ServingStatus | None, previous_is_dangerous: bool | None, blind: str | None, no_route: str | None
) -> _Step:
    if blind:
        why = f"dangerous predictions, and {blind}: another version would be as blind, so serving stops"
        return _Step(Rule.STOP_SERVING, (Scale(model, 0),), why)
    previous = status.previous_version if status else None
    if previous is None:
        return _Step(Rule.STOP_SERVING, (Scale(model, 0),), "dangerous predictions and no previous version: serving stops")
    if previous_is_dangerous:
        return _Step(Rule.STOP_SERVING, (Scale(model, 0),), f"dangerous predictions, and {previous} is dangerous too: serving stops")
    if no_route:
        why = f"dangerous predictions, and traffic cannot go to {previous}, so serving stops: {no_route}"
        return _Step(Rule.STOP_SERVING, (Scale(model, 0),), why)
    known = "is not dangerous" if previous_is_dangerous is False else "served before and nothing is known against it"
    return _Step(Rule.ROUTE_PREVIOUS, (RouteTraffic(model, previous),), f"dangerous predictions: traffic goes to {previous}, which {known}")


def _limit_damage(
    incident_id: str,
    model: str,
    assessment: Assessment,
    state: ServingState | None,
    policy: ContainmentPolicy,
    raise_to: float | None,
    notes: list[str],
) -> list[_Step]:
    """High severity: make a person look at every prediction; with too many false alarms also raise the threshold."""
    steps = []
    if assessment.excessive_false_positives:
        current = state.config.threshold if state and state.config else None
        target = _raised(current, raise_to, policy.max_threshold_step)
        if current is None or target is None:
            notes.append("the threshold is not raised: " + ("it cannot be read" if current is None else "no higher one would help"))
        else:
            basis = "from a replay of known outcomes" if raise_to is not None else "without known outcomes to replay"
            raised = (Configure(model, {"threshold": target}), Restart(model, f"{incident_id}-contain-{target:g}"))
            reason = f"too many false alarms: threshold {current:g} -> {target:g} for now ({basis}, at most +{policy.max_threshold_step:g})"
            steps.append(_Step(Rule.RAISE_THRESHOLD, raised, reason))
    person = "predictions cannot be trusted alone: a person approves each one"
    steps.append(_Step(Rule.HUMAN_APPROVAL, (Configure(model, {"human_approval": True}),), person))
    scheduling = "no work order is scheduled without a person"
    steps.append(_Step(Rule.DISABLE_AUTO_SCHEDULING, (Configure(model, {"auto_scheduling": False}),), scheduling))
    return steps


def _raised(current: float | None, wanted: float | None, step: float) -> float | None:
    if current is None:
        return None
    target = round(min(current + step if wanted is None else wanted, current + step, MAX_THRESHOLD), 4)
    return target if target > current else None


def _temporary_rollback(
    model: str, assessment: Assessment, status: ServingStatus | None, previous_is_dangerous: bool | None, recent_deployment: bool | None
) -> tuple[RollBack, ...]:
    """Proposed, never automatic. Where traffic is routed away already (dangerous), there is nothing left to mitigate."""
    previous = status.previous_version if status else None
    if previous is None or previous_is_dangerous or recent_deployment is False or assessment.dangerous:
        return ()
    if assessment.type not in (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION):
        return ()
    return (RollBack(model, previous, reason="temporary mitigation"),)


def feasible(actions: Sequence[Action], refused: Collection[int]) -> list[int]:
    """The positions of what is left to do when these are refused. A threshold and the restart that loads it go together: one without the
    other would change nothing, or something else than was decided."""
    pair = {i for i, a in enumerate(actions) if isinstance(a, Restart) or (isinstance(a, Configure) and "threshold" in a.settings)}
    dropped = set(refused) | (pair if pair & set(refused) else set())
    return [i for i in range(len(actions)) if i not in dropped]


# --- taking it back ---------------------------------------------------------------------------------------------------------


class Executed(NamedTuple):
    """One journaled containment or mitigation action. `before` holds at least the keys of the action's target."""

    action_id: str
    action: Action
    before: Mapping[str, Any] | None


def is_stopped(executed: Sequence[Executed]) -> bool:
    """Containment has stopped the model servers, and nobody has started them again."""
    return any(isinstance(e.action, Scale) and e.action.replicas == 0 for e in executed)


def before_containment(key: str, executed: Sequence[Executed]) -> Any:
    """The value before containment first set `key` (of an action's target); None when it did not."""
    return next((e.before.get(key) for e in executed if e.before and key in e.action.target()), None)


class Undo(NamedTuple):
    """`undoes[i]` is the id of the action that `plan.actions[i]` takes back (None: it only completes the one before it).

    `kept` says for every other executed action why it stays: nothing is left unexplained.
    """

    plan: Plan | None
    undoes: tuple[str | None, ...]
    kept: Mapping[str, str]


def undo_plan(
    incident_id: str,
    model: str,
    executed: Sequence[Executed],
    *,
    resolution: Plan | None = None,
    state: ServingState | None = None,
    held: Mapping[str, str] | None = None,
) -> Undo:
    """The inverse of what was executed, newest first, from the state before each.

    Kept instead: what the executed `resolution` has set itself, what somebody else has changed since (seen in `state`), what would bring
    the fault back, and what another open incident holds (`held`, by the kind of action or the key of the config).
    """
    settled: set[str] = set()
    for action in resolution.actions if resolution else ():
        settled |= set(action.settings) if isinstance(action, Configure) else {action.kind}
    actions: list[Action] = []
    undoes: list[str | None] = []
    kept: dict[str, str] = {}
    latest = {key: value for e in executed if isinstance(e.action, Configure) for key, value in e.action.settings.items()}
    for done, older in reversed(_one_a_thing(executed)):
        inverse, why = _not_held(*_inverse(done, settled, resolution, state, latest), held or {})
        if inverse is None:
            kept |= dict.fromkeys([done.action_id, *older], why)
            continue
        actions.append(inverse)
        undoes.append(done.action_id)
    if any(isinstance(a, Configure) and "threshold" in a.settings for a in actions):
        threshold = next(a.settings["threshold"] for a in reversed(actions) if isinstance(a, Configure) and "threshold" in a.settings)
        actions.append(Restart(model, f"{incident_id}-undo-{threshold:g}"))
        undoes.append(None)
    if not actions:
        return Undo(None, (), kept)
    reasons = ("recovery is measured: containment is taken back to the state before it",)
    plan = Plan(incident_id, PlanKind.UNDO, model, tuple(actions), reasons, expected="serving as before the incident, without it")
    return Undo(plan, tuple(undoes), kept)


def _not_held(inverse: Action | None, why: str, held: Mapping[str, str]) -> tuple[Action | None, str]:
    """Without what another incident holds."""
    if inverse is None:
        return inverse, why
    if isinstance(inverse, Configure):
        left = {key: value for key, value in inverse.settings.items() if key not in held}
        return (Configure(inverse.model, left), "") if left else (None, "; ".join(held[key] for key in inverse.settings))
    return (None, held[inverse.kind]) if inverse.kind in held else (inverse, why)


def _one_a_thing(executed: Sequence[Executed]) -> list[tuple[Executed, list[str]]]:
    """Several routes, or several stops, are one change from the state before the first to the last one's target; with the ids of the
    earlier ones, which are settled with it."""
    merged: dict[str, tuple[Executed, list[str]]] = {}
    for done in executed:
        key = done.action.kind if isinstance(done.action, RouteTraffic | Scale) else done.action_id
        first, older = merged.pop(key, (done, []))
        ids = [*older, first.action_id] if first is not done else []
        merged[key] = (Executed(done.action_id, done.action, first.before), ids)
    return list(merged.values())


def _inverse(
    done: Executed, settled: set[str], resolution: Plan | None, state: ServingState | None, latest: Mapping[str, Any]
) -> tuple[Action | None, str]:
    """The action that takes `done` back, or None and why it is kept."""
    action, before = done.action, done.before
    match action:
        case FlagWorkOrders():
            return None, "flagged work orders stay flagged until the supervisors have reviewed them"
        case Isolate():
            return None, "isolation is lifted by a person's decision alone, never because something recovered"
        case Restart():
            return None, "a restart leaves nothing behind to take back"
        case UndoRollout():
            return None, "the rollout undone is the suspect; rolling it out again is a new deployment, decided by people"
        case RollBack():
            return None, "the version rolled back from is the suspect; serving it again is a new deployment, decided by people"
        case _ if not before:
            return None, "the state before it was not recorded: a person decides what it should be"
        case Configure():
            return _restored(action, before, settled, state, latest)
        case RouteTraffic():
            return _unrouted(action, before, settled, resolution, state)
        case Scale():
            if action.kind in settled:
                return None, "the resolution has set the number of servers itself"
            if state is not None and state.replicas != action.replicas:
                return None, f"somebody has scaled to {state.replicas} since: that stays"
            if resolution is None:
                return None, "nothing was fixed by a plan: a person decides when to serve again"
            former, ready = before.get("replicas"), before.get("ready_replicas")
            if not isinstance(former, int) or former == action.replicas:
                return None, "it changed nothing: that many servers ran before"
            return Scale(action.model, former, min_ready=ready if isinstance(ready, int) and ready < former else None), ""
    return None, "there is no way to take this action back"  # pragma: no cover - every action is above


def _restored(
    action: Configure, before: Mapping[str, Any], settled: set[str], state: ServingState | None, latest: Mapping[str, Any]
) -> tuple[Action | None, str]:
    now = state.config.as_dict() if state and state.config else {}
    back: dict[str, Any] = {}
    kept: list[str] = []
    for key, value in action.settings.items():
        if key in settled:
            kept.append(f"the resolution has set {key} itself")
        elif key not in before:
            kept.append(f"{key} before it was not recorded")
        elif key in now and now[key] != latest[key]:
            kept.append(f"somebody has set {key} to {now[key]} since")
        elif before[key] == value:
            kept.append(f"{key} was {value} before it too")
        else:
            back[key] = before[key]
    return (Configure(action.model, back), "") if back else (None, "; ".join(kept))


def _unrouted(
    action: RouteTraffic, before: Mapping[str, Any], settled: set[str], resolution: Plan | None, state: ServingState | None
) -> tuple[Action | None, str]:
    former = before.get("version")
    fixed = resolution.actions if resolution else ()
    now_serves = {a.target_version for a in fixed if isinstance(a, RollBack)} | {a.version for a in fixed if isinstance(a, Promote)}
    if former == action.version:
        return None, "it changed nothing: traffic was routed there before"
    if state is not None and state.route_version is None and action.version is not None:
        return None, "the override is gone already"
    if state is not None and state.route_version not in (action.version, *now_serves):
        return None, f"somebody has routed traffic to {state.route_version} since: that stays"
    if not now_serves and RouteTraffic.kind in settled:
        return None, "the resolution has set the route itself"
    if not now_serves and not any(isinstance(a, Materialize) for a in fixed):  # stale features are no fault of the version
        return None, "the registry still names the version that was contained: traffic must not go back to it"
    # An override that stood before the incident would hide the version that now serves: then the registry decides.
    return RouteTraffic(action.model, former if former in now_serves or not now_serves else None), ""
