"""Step 2, on a person's word: "Scale down model (emergency)". What somebody orders on the spot, and how it is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from mlrunbook.domain.actions import Action, Configure, FlagWorkOrders, Order, Plan, PlanKind, RouteTraffic, Scale
from mlrunbook.domain.containment import Executed, undo_plan
from mlrunbook.domain.errors import Invalid, Refused

UNDOES = "undoes"  # of a plan's facts: the id of the journaled action that each of its actions takes back, None where it completes one


def emergency_plan(incident_id: str, model: str, order: Order, *, version: str | None, by: str, why: str, at: datetime) -> Plan:
    """The plan of one order. Its reasons name who, when and why, so that the same order given again later is another plan.

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
            flag = FlagWorkOrders(model, reason=f"{incident_id}: halted by {by}")
            actions = (Configure(model, {"auto_work_orders": False}), flag)
        case Order.TAKE_BACK:
            raise Invalid("taking back needs what was executed", field="order")
    return Plan(incident_id, PlanKind.EMERGENCY, model, actions, (_said(by, why, at),), expected=order.expected)


def take_back(incident_id: str, model: str, executed: Sequence[Executed], *, by: str, why: str, at: datetime) -> Plan:
    """The state before each executed containment action, newest first: also where nothing was fixed, because a person says so.

    Raises Refused where nothing can be taken back, with the reasons.
    """
    undo = undo_plan(incident_id, model, executed, decided_by_a_person=True)
    if undo.plan is None:
        raise Refused("; ".join(dict.fromkeys(undo.kept.values())) or f"no containment of {incident_id} is in force")
    reasons = (_said(by, why, at), *(f"kept: {one}" for one in dict.fromkeys(undo.kept.values())))
    facts = {UNDOES: list(undo.undoes)}
    return replace(undo.plan, kind=PlanKind.EMERGENCY, reasons=reasons, expected=Order.TAKE_BACK.expected, facts=facts)


def undoes_of(plan: Plan) -> list[str | None] | None:
    """What each action of the plan takes back; None where it takes nothing back."""
    found = plan.facts.get(UNDOES)
    return list(found) if found else None


def _said(by: str, why: str, at: datetime) -> str:
    return f"{by} orders it at {at:%Y-%m-%d %H:%M:%S.%f} UTC: {why}"
