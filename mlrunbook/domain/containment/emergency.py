"""Step 2, on a person's word: "Scale down model (emergency)". The plan of what somebody orders on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Order,
    Plan,
    PlanKind,
    RouteTraffic,
    Scale,
    lifts_isolation,
)
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.people import person_of

ORDERED_AT = "ordered_at"  # of a plan's facts: to the microsecond, so that the same order given again is another plan
UNDOES = "undoes"  # of a plan's facts: the id of the journaled action that each of its actions takes back, None where it completes one
KEPT = "kept"  # of such a plan: the id of each journaled action that it leaves, and why


@dataclass(frozen=True)
class Word:
    """Who orders, why and when. `person`: the person id of who orders."""

    by: str
    why: str
    at: datetime
    person: str = ""
    name: str = ""  # without the role

    @property
    def sentence(self) -> str:
        return f"{self.by} ordered it at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.why}"

    @property
    def facts(self) -> dict[str, Any]:
        return {ORDERED_AT: self.at.isoformat()}

    @property
    def requested_by(self) -> tuple[str, ...]:
        """The person id, and whoever the name says: a form asks for a name alone."""
        return tuple(dict.fromkeys(filter(None, (self.person, person_of(self.name)))))


def emergency_plan(incident_id: str, model: str, order: Order, word: Word, *, version: str | None = None) -> Plan:
    """The plan of one order. Its reasons name who, when and why.

    Raises Invalid where a version is missing or makes no sense. `Order.TAKE_BACK` is `taking_back.reverse`.
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
    return Plan(
        incident_id,
        PlanKind.EMERGENCY,
        model,
        actions,
        (word.sentence,),
        expected=order.expected,
        facts=word.facts,
        requested_by=word.requested_by,
    )


def undoes_of(plan: Plan) -> list[str | None] | None:
    """What each action of the plan takes back; None where the plan takes nothing back."""
    found = plan.facts.get(UNDOES)
    return None if found is None else list(found)


def limits_damage(plan: Plan, ordinal: int) -> bool:
    """The action is of those that are to be taken back, or kept with a reason."""
    kinds = (PlanKind.CONTAINMENT, PlanKind.MITIGATION, PlanKind.EMERGENCY, PlanKind.ISOLATION)
    return plan.kind in kinds and undoes_of(plan) is None and not lifts_isolation(plan.actions[ordinal])
