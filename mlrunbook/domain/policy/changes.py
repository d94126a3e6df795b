"""Policy: what containment and isolation may change by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlrunbook.domain.incident import IncidentType, Subtype
from mlrunbook.domain.policy.judging import Share

BREACH_TYPES = (IncidentType.SECURITY, IncidentType.COMPLIANCE)
MAX_THRESHOLD = 0.95  # above this a model flags next to nothing: that is no containment, that is switching it off


@dataclass(frozen=True)
class BreachPolicy:
    """`isolate_at_once`: which kinds cut the model server off without a person (rule `containment.security.isolate`).

    Not among them by default: a regulatory violation and an audit failure. They are about what was done before or is on paper; whether
    serving must end is a question of law, and an outage by itself would answer it. `alert_subtypes`: alert name -> kind.
    """

    isolate_at_once: frozenset[Subtype] = frozenset(
        {Subtype.UNAUTHORISED_ACCESS, Subtype.ADVERSARIAL_ATTACK, Subtype.DATA_LEAKAGE, Subtype.PRIVACY_BREACH}
    )
    alert_subtypes: Mapping[str, Subtype] = field(default_factory=lambda: {"ModelProbed": Subtype.ADVERSARIAL_ATTACK})


class Rule(StrEnum):
    """What policy may let happen without a person. An automatic plan names the rules it rests on."""

    ROUTE_PREVIOUS = "containment.critical.route_previous"
    STOP_SERVING = "containment.critical.stop_serving"
    HALT_WORK_ORDERS = "containment.critical.halt_work_orders"
    RAISE_THRESHOLD = "containment.high.raise_threshold"
    HUMAN_APPROVAL = "containment.high.human_approval"
    DISABLE_AUTO_SCHEDULING = "containment.high.disable_auto_scheduling"
    ISOLATE = "containment.security.isolate"


@dataclass(frozen=True)
class ContainmentPolicy:
    """Rules left out of `automatic` are proposed to a person instead. `max_threshold_step` caps a temporary raise. What a person has
    ordered on the spot and that is not in force `order_overdue_after_s` later is paged, and again every `order_page_every_min` until it is:
    somebody must do it by hand."""

    automatic: frozenset[Rule] = field(default_factory=lambda: frozenset(Rule))
    max_threshold_step: Share = 0.20
    order_overdue_after_s: Annotated[float, Field(gt=0)] = 120.0
    order_page_every_min: Annotated[int, Field(ge=1)] = 15
