"""Step 2, on a person's word: "Scale down model (emergency)". What somebody orders on the spot, and how it is taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Order,
    Plan,
    PlanKind,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
    lifts_isolation,
)
from mlrunbook.domain.containment.containment import Executed
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.observed import ServingState

ORDERED_AT = "ordered_at"  # of a plan's facts: to the microsecond, so that the same order given again is another plan
UNDOES = "undoes"  # of a plan's facts: the id of the journaled action that each of its actions takes back, None where it completes one
KEPT = "kept"  # of such a plan: the id of each journaled action that it leaves, and why


@dataclass(frozen=True)
class Word:
    """Who orders, why and when."""

    by: str
    why: str
    at: datetime

    @property
    def sentence(self) -> str:
        return f"{self.by} ordered it at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.why}"

    @property
    def facts(self) -> dict[str, Any]:
        return {ORDERED_AT: self.at.isoformat()}


def emergency_plan(incident_id: str, model: str, order: Order, word: Word, *, version: str | None = None) -> Plan:
    """The plan of one order. Its reasons name who, when and why.

    Raises Invalid where a version is missing or makes no sense. `Order.TAKE_BACK` is `take_back`.
    """
    if (version is not None) != (order is Order.ROUTE):
        raise Invalid(f"{order} takes {'the version that traffic goes to' if version is None else 'no version'}", field="version")
    actions: tuple[Action, ...]
    match order:
        case Order.STOP_SERVING:
            actions = (Scale(model, 0),)
        case Order.ROUTE:
            actions = (RouteTraffic(model, version),)
        case Order.HALT_WORK_ORDERS:
            flag = FlagWorkOrders(model, reason=f"{incident_id}: halted by {word.by}")
            actions = (Configure(model, {"auto_work_orders": False}), flag)
        case Order.TAKE_BACK:
            raise Invalid("taking back needs what was executed", field="order")
    return Plan(incident_id, PlanKind.EMERGENCY, model, actions, (word.sentence,), expected=order.expected, facts=word.facts)


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
    kept = {e.action_id: why_not for e in executed if (why_not := stays(e.action))}
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
        steps.append((Restart(model, f"{incident_id}-undo-{configured.settings['threshold']:g}"), None))
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
    )


def stays(action: Action) -> str | None:
    """Why taking back leaves it; None where it is taken back."""
    match action:
        case FlagWorkOrders():
            return "flagged work orders stay flagged until the supervisors have reviewed them"
        case Isolate():
            return "isolation is lifted by a named person's decision alone"
        case RollBack() | UndoRollout():
            return f"{action.summary}: serving the suspect again is a new deployment, decided by people"
    return None


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
    return Scale(model, former, min_ready=ready if isinstance(ready, int) and ready < former else None), ""


def undoes_of(plan: Plan) -> list[str | None] | None:
    """What each action of the plan takes back; None where the plan takes nothing back."""
    found = plan.facts.get(UNDOES)
    return None if found is None else list(found)


def limits_damage(plan: Plan, ordinal: int) -> bool:
    """The action is of those that are to be taken back, or kept with a reason."""
    kinds = (PlanKind.CONTAINMENT, PlanKind.MITIGATION, PlanKind.EMERGENCY, PlanKind.ISOLATION)
    return plan.kind in kinds and undoes_of(plan) is None and not lifts_isolation(plan.actions[ordinal])
