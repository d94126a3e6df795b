"""How containment is taken back: after a measured recovery (`undo_plan`), and on a person's word (`reverse`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Materialize,
    Order,
    Plan,
    PlanKind,
    Promote,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.containment.emergency import KEPT, UNDOES, Word
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.observed import ServingState


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


def stays(action: Action) -> str | None:
    """Why taking back leaves it, whoever takes back; None where it is taken back."""
    match action:
        case FlagWorkOrders():
            return "flagged work orders stay flagged until the supervisors have reviewed them"
        case Isolate():
            return "isolation is lifted by a named person's decision alone"
        case RollBack() | UndoRollout():
            return "serving the suspect again is a new deployment, decided by people"
    return None


def _serve(model: str, replicas: int, ready: Any) -> Scale:
    """As many servers as before, of which no more must answer than did then."""
    return Scale(model, replicas, min_ready=ready if isinstance(ready, int) and ready < replicas else None)


def _restart(incident_id: str, configured: Configure) -> Restart:
    """A server that runs on has to be restarted for a threshold."""
    return Restart(configured.model, f"{incident_id}-undo-{configured.settings['threshold']:g}")


# --- after a measured recovery ----------------------------------------------------------------------------------------------


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
    since = _Since(
        resolution.actions if resolution else None,
        state,
        {key: value for e in executed if isinstance(e.action, Configure) for key, value in e.action.settings.items()},
    )
    actions: list[Action] = []
    undoes: list[str | None] = []
    kept: dict[str, str] = {}
    for done, older in reversed(_one_a_thing(executed)):
        inverse, why = _not_held(*_inverse(done, since), held or {})
        if inverse is None:
            kept |= dict.fromkeys([done.action_id, *older], why)
            continue
        actions.append(inverse)
        undoes.append(done.action_id)
    if set_back := next((a for a in reversed(actions) if isinstance(a, Configure) and "threshold" in a.settings), None):
        actions.append(_restart(incident_id, set_back))
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


class _Since(NamedTuple):
    """What has been done since containment: the executed `resolution`'s actions (None: none), what is seen now, what containment has set
    last of each key of the config."""

    fixed: tuple[Action, ...] | None
    state: ServingState | None
    latest: Mapping[str, Any]

    @property
    def settled(self) -> frozenset[str]:
        """What the resolution has set itself: keys of the config, and kinds of other actions."""
        return frozenset(what for a in self.fixed or () for what in (a.settings if isinstance(a, Configure) else (a.kind,)))

    @property
    def now_serves(self) -> frozenset[str]:
        fixed = self.fixed or ()
        rolled_back = {a.target_version for a in fixed if isinstance(a, RollBack)}
        return frozenset(rolled_back | {a.version for a in fixed if isinstance(a, Promote)})


def _inverse(done: Executed, since: _Since) -> tuple[Action | None, str]:
    """The action that takes `done` back, or None and why it is kept."""
    action, before = done.action, done.before
    if isinstance(action, Restart):
        return None, "a restart leaves nothing behind to take back"
    if why := stays(action):
        return None, why
    if not before:
        return None, "the state before it was not recorded: a person decides what it should be"
    match action:
        case Configure():
            return _restored(action, before, since)
        case RouteTraffic():
            return _unrouted(action, before, since)
        case Scale():
            return _unscaled(action, before, since)
    return None, "there is no way to take this action back"  # pragma: no cover - every action is above


def _restored(action: Configure, before: Mapping[str, Any], since: _Since) -> tuple[Action | None, str]:
    now = since.state.config.as_dict() if since.state and since.state.config else {}
    back: dict[str, Any] = {}
    kept: list[str] = []
    for key, value in action.settings.items():
        if key in since.settled:
            kept.append(f"the resolution has set {key} itself")
        elif key not in before:
            kept.append(f"{key} before it was not recorded")
        elif key in now and now[key] != since.latest[key]:
            kept.append(f"somebody has set {key} to {now[key]} since")
        elif before[key] == value:
            kept.append(f"{key} was {value} before it too")
        else:
            back[key] = before[key]
    return (Configure(action.model, back), "") if back else (None, "; ".join(kept))


def _unrouted(action: RouteTraffic, before: Mapping[str, Any], since: _Since) -> tuple[Action | None, str]:
    former, state, now_serves = before.get("version"), since.state, since.now_serves
    if former == action.version:
        return None, "it changed nothing: traffic was routed there before"
    if state is not None and state.route_version is None and action.version is not None:
        return None, "the override is gone already"
    if state is not None and state.route_version not in (action.version, *now_serves):
        return None, f"somebody has routed traffic to {state.route_version} since: that stays"
    if not now_serves and RouteTraffic.kind in since.settled:
        return None, "the resolution has set the route itself"
    if not now_serves and not any(isinstance(a, Materialize) for a in since.fixed or ()):  # stale features are no fault of the version
        return None, "the registry still names the version that was contained: traffic must not go back to it"
    # An override that stood before the incident would hide the version that now serves: then the registry decides.
    return RouteTraffic(action.model, former if former in now_serves or not now_serves else None), ""


def _unscaled(action: Scale, before: Mapping[str, Any], since: _Since) -> tuple[Action | None, str]:
    if action.kind in since.settled:
        return None, "the resolution has set the number of servers itself"
    if since.state is not None and since.state.replicas != action.replicas:
        return None, f"somebody has scaled to {since.state.replicas} since: that stays"
    if since.fixed is None:
        return None, "nothing was fixed by a plan: a person decides when to serve again"
    former = before.get("replicas")
    if not isinstance(former, int) or former == action.replicas:
        return None, "it changed nothing: that many servers ran before"
    return _serve(action.model, former, before.get("ready_replicas")), ""


# --- on a person's word -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What taking back is decided on beside the journal. `state` None: the runtime does not answer. `last_replicas`: the newest number of
    servers on record that was not 0. `held`: what another open incident holds, by the kind of action or the key of the config, with the
    sentence that says so."""

    state: ServingState | None = None
    last_replicas: int = 1
    held: Mapping[str, str] = field(default_factory=dict)


def reverse(
    incident_id: str,
    model: str,
    executed: Sequence[Executed],
    seen: Seen,
    word: Word,
    *,
    withdraws: Sequence[str] = (),
) -> Plan:
    """One order that brings back what was there before containment, whatever of it is half done or unknown.

    `executed` is everything that was, or may have been, changed and not taken back, oldest first. What somebody else has changed since
    stays, with that reason; what was not recorded falls back to the last state on record. Serving starts last, so that nothing answers
    from a route or a config that is still to change. `withdraws`: orders that have not begun, which this one replaces.

    Raises Refused where nothing can be taken back, with the reasons.
    """
    kept = {e.action_id: _named(e.action, why_not) for e in executed if (why_not := stays(e.action))}
    configured, config_ids = _config_back(model, executed, seen, kept)
    steps: list[tuple[Action, str | None]] = [(configured, config_ids[-1])] if configured else []
    for kind, restore in ((RouteTraffic, _route_back), (Scale, _serving_back)):
        mine = [e for e in executed if isinstance(e.action, kind)]
        if not mine:
            continue
        action, why_not = restore(model, mine, seen)
        if action is None:
            kept |= {e.action_id: why_not for e in mine}
        else:
            steps.append((action, mine[-1].action_id))
    if configured and "threshold" in configured.settings and not any(isinstance(a, Scale) for a, _ in steps):
        # A server that starts reads its config; one that runs on has to be restarted for a threshold.
        steps.append((_restart(incident_id, configured), None))
    reasons_kept = list(dict.fromkeys(kept.values()))
    if not steps and not withdraws:
        raise Refused("; ".join(reasons_kept) or f"no containment of {incident_id} is in force")
    reasons = [word.sentence, *(f"withdrawn before it began: {one}" for one in withdraws), *(f"kept: {one}" for one in reasons_kept)]
    return Plan(
        incident_id,
        PlanKind.EMERGENCY,
        model,
        tuple(action for action, _ in steps),
        tuple(reasons),
        expected=Order.TAKE_BACK.expected,
        facts={**word.facts, UNDOES: [undone for _, undone in steps], KEPT: kept},
        requested_by=word.requested_by,
    )


def _named(action: Action, why_not: str) -> str:
    """The order's reasons stand alone: they have to say which deployment."""
    return f"{action.summary}: {why_not}" if isinstance(action, RollBack | UndoRollout) else why_not


def _config_back(model: str, executed: Sequence[Executed], seen: Seen, kept: dict[str, str]) -> tuple[Configure | None, list[str]]:
    """Every key as before containment first set it, where nobody else has set it since."""
    mine = [e for e in executed if isinstance(e.action, Configure)]
    now = seen.state.config.as_dict() if seen.state and seen.state.config else {}
    back: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for key in dict.fromkeys(key for e in mine if isinstance(e.action, Configure) for key in e.action.settings):
        values = [(e.before or {}).get(key) for e in mine if key in e.action.target()]
        set_to = [e.action.target()[key] for e in mine if key in e.action.target()]
        former = next((v for v in values if v is not None), None)
        if key in seen.held:
            notes[key] = seen.held[key]
        elif former is None:
            notes[key] = f"{key} before containment was not recorded: set it by hand"
        elif key in now and now[key] not in (*values, *set_to):
            notes[key] = f"somebody has set {key} to {now[key]} since: that stays"
        elif former == set_to[-1]:
            notes[key] = f"{key} was {former} before containment too"
        else:
            back[key] = former
    for e in mine:
        if not set(e.action.target()) & set(back):
            kept[e.action_id] = "; ".join(notes[key] for key in e.action.target())
    ids = [e.action_id for e in mine if set(e.action.target()) & set(back)]
    return (Configure(model, back) if back else None), ids


def _route_back(model: str, mine: Sequence[Executed], seen: Seen) -> tuple[Action | None, str]:
    former = (mine[0].before or {}).get("version")  # not recorded: the registry decides, as it does where nobody routes
    ours = {former, *((e.before or {}).get("version") for e in mine), *(e.action.target()["version"] for e in mine)}
    if held := seen.held.get(RouteTraffic.kind):
        return None, held
    if seen.state and seen.state.route_version not in ours:
        return None, f"somebody has routed traffic to {seen.state.route_version} since: that stays"
    if former == mine[-1].action.target()["version"]:
        return None, "the route changed nothing: traffic went there before"
    return RouteTraffic(model, former), ""


def _serving_back(model: str, mine: Sequence[Executed], seen: Seen) -> tuple[Action | None, str]:
    before = mine[0].before or {}
    former, ready = before.get("replicas"), before.get("ready_replicas")
    ours = {former, *((e.before or {}).get("replicas") for e in mine), *(e.action.target()["replicas"] for e in mine)}
    if held := seen.held.get(Scale.kind):
        return None, held
    if seen.state and seen.state.replicas not in ours:
        return None, f"somebody has scaled to {seen.state.replicas} since: that stays"
    if not isinstance(former, int) or former == 0:  # stopped before, or not recorded: the last number that served
        return Scale(model, seen.last_replicas), ""
    return _serve(model, former, ready), ""
