"""Changes to production as values: each names the state it wants, never a step relative to now.

A `Plan` is an ordered list of actions with the reasons a human is shown; its SHA-256 is what gets approved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from mlrunbook.domain.errors import Invalid, Refused

DIGEST_PREFIX = re.compile(r"[0-9a-f]{8,64}")  # fewer characters could mean another plan tomorrow


class PlanKind(StrEnum):
    CONTAINMENT = "containment"
    MITIGATION = "mitigation"  # containment that needs a human's yes (the runbook's "temporary mitigation")
    STAGING = "staging"  # a retrained version scores live requests that nobody acts on
    RESOLUTION = "resolution"
    EMERGENCY = "emergency"  # what a person orders on the spot: carried out before anything else; and what takes that back
    UNDO = "undo"  # taking containment back after verified recovery
    ISOLATION = "isolation"  # what people decide about isolating: to begin it where no rule does, and always to lift it


class Order(StrEnum):
    """What a person may order on the spot: a plan of kind emergency."""

    STOP_SERVING = "stop_serving"
    ROUTE = "route"
    HALT_WORK_ORDERS = "halt_work_orders"
    TAKE_BACK = "take_back"

    @property
    def expected(self) -> str:
        return {
            Order.STOP_SERVING: "every prediction request fails until serving is taken up again",
            Order.ROUTE: "the version named answers every request; the registry is left as it is",
            Order.HALT_WORK_ORDERS: "predictions create no work orders; supervisors review the pending ones",
            Order.TAKE_BACK: "what containment changed is as it was before",
        }[self]


class Path(StrEnum):
    """Runbook, Step 4; and the infrastructure actions, for a server that a new process or the pod template before mends."""

    ROLLBACK = "rollback"  # A
    MATERIALIZE = "materialize"  # B
    RETRAIN = "retrain"  # C
    THRESHOLD = "threshold"  # D
    RESTART = "restart"
    UNDO_ROLLOUT = "undo_rollout"


@dataclass(frozen=True)
class Action:
    """Base. `target()` is the desired state as data; two actions with equal targets are the same change."""

    kind: ClassVar[str]
    model: str

    def target(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k not in ("model", "reason")}

    def as_dict(self) -> dict[str, Any]:
        """As the plan's JSON has it."""
        return {"kind": self.kind} | asdict(self)

    @property
    def summary(self) -> str:
        """What will be done, as an order: "roll m back to v1.5.0"."""
        raise NotImplementedError(type(self).__name__)  # pragma: no cover - every action below has one

    @property
    def past(self) -> str:
        """What was done, as people are told: "Rolled back to v1.5.0"."""
        raise NotImplementedError(type(self).__name__)  # pragma: no cover - every action below has one


@dataclass(frozen=True)
class RollBack(Action):
    """Make `target_version` the serving version in the registry (runbook, Path A)."""

    kind: ClassVar[str] = "roll_back"
    target_version: str
    reason: str = ""

    @property
    def summary(self) -> str:
        return f"roll {self.model} back to {self.target_version}"

    @property
    def past(self) -> str:
        return f"Rolled back to {self.target_version}"


@dataclass(frozen=True)
class RouteTraffic(Action):
    """Send traffic to `version` whatever the registry says; None takes the override away."""

    kind: ClassVar[str] = "route_traffic"
    version: str | None

    @property
    def summary(self) -> str:
        return f"route {self.model} traffic to {self.version}" if self.version else f"let the registry route {self.model} traffic again"

    @property
    def past(self) -> str:
        return f"Routed traffic to {self.version}" if self.version else "Let the registry route traffic again"


@dataclass(frozen=True)
class Scale(Action):
    """Run `replicas` model servers; 0 stops serving. `min_ready`: so many of them must answer for it to hold; None: all of them. Taking a
    stop back asks for no more than answered before it: a server that had no version to serve then has none now."""

    kind: ClassVar[str] = "scale"
    replicas: int
    min_ready: int | None = None

    def target(self) -> dict[str, Any]:
        return {"replicas": self.replicas}

    def as_dict(self) -> dict[str, Any]:
        """Without what is not said: a plan stored before there was `min_ready` keeps the digest that was approved."""
        return {k: v for k, v in super().as_dict().items() if k != "min_ready" or v is not None}

    @property
    def summary(self) -> str:
        return f"stop serving {self.model}" if self.replicas == 0 else f"serve {self.model} with {self.replicas} replica(s)"

    @property
    def past(self) -> str:
        return "Stopped serving" if self.replicas == 0 else f"Served again with {self.replicas} replica(s)"


@dataclass(frozen=True)
class Configure(Action):
    """Set keys of the model server's config: threshold, human_approval, auto_work_orders, auto_scheduling."""

    kind: ClassVar[str] = "configure"
    settings: Mapping[str, Any]

    def target(self) -> dict[str, Any]:
        return dict(self.settings)

    @property
    def summary(self) -> str:
        return ", ".join(
            _SWITCH_WORDS[k, v][0] if (k, v) in _SWITCH_WORDS else f"set the {k} to {v:g}" for k, v in sorted(self.settings.items())
        )

    @property
    def past(self) -> str:
        parts = [_SWITCH_WORDS[k, v][1] if (k, v) in _SWITCH_WORDS else f"set the {k} to {v:g}" for k, v in sorted(self.settings.items())]
        return ", ".join(parts)[:1].upper() + ", ".join(parts)[1:]


# (key, value) -> (order, what was done)
_SWITCH_WORDS: dict[tuple[str, Any], tuple[str, str]] = {
    ("human_approval", True): ("require human approval for all predictions", "required human approval for all predictions"),
    ("human_approval", False): ("stop requiring human approval for all predictions", "stopped requiring human approval"),
    ("auto_work_orders", False): ("halt automatic work-order creation", "halted automatic work-order creation"),
    ("auto_work_orders", True): ("allow automatic work-order creation", "allowed automatic work-order creation again"),
    ("auto_scheduling", False): ("disable auto-scheduling of work orders", "disabled auto-scheduling of work orders"),
    ("auto_scheduling", True): ("enable auto-scheduling of work orders", "enabled auto-scheduling of work orders again"),
}


@dataclass(frozen=True)
class Restart(Action):
    """Restart the model server so that it loads its config; `restart_id` makes it once. Waits until it is ready again."""

    kind: ClassVar[str] = "restart"
    restart_id: str

    @property
    def summary(self) -> str:
        return f"restart the {self.model} server"

    @property
    def past(self) -> str:
        return "Restarted the model server"


@dataclass(frozen=True)
class Isolate(Action):
    """Cut the model server off from every client but forensics; `isolated` False connects it again. No process ends, no version changes."""

    kind: ClassVar[str] = "isolate"
    isolated: bool

    @property
    def summary(self) -> str:
        return f"isolate the {self.model} server, leaving it running" if self.isolated else f"lift the isolation of the {self.model} server"

    @property
    def past(self) -> str:
        return "Isolated the model server, which runs on" if self.isolated else "Lifted the isolation of the model server"


@dataclass(frozen=True)
class UndoRollout(Action):
    """Put the pod template of a former revision of the rollout history back: `kubectl rollout undo --to-revision=N`."""

    kind: ClassVar[str] = "undo_rollout"
    revision: int

    @property
    def summary(self) -> str:
        return f"undo the rollout of {self.model}, back to revision {self.revision}"

    @property
    def past(self) -> str:
        return f"Undid the rollout, back to revision {self.revision}"


@dataclass(frozen=True)
class FlagWorkOrders(Action):
    """Flag every pending predictive work order for human review."""

    kind: ClassVar[str] = "flag_work_orders"
    reason: str = ""

    def target(self) -> dict[str, Any]:
        return {"pending_unflagged": 0}

    @property
    def summary(self) -> str:
        return f"flag all pending predictive work orders of {self.model} for review"

    @property
    def past(self) -> str:
        return "Flagged all pending predictive work orders for review"


@dataclass(frozen=True)
class Materialize(Action):
    """Bring the online rows of these feature views up to the source (runbook, Path B).

    All times ISO 8601. `since` looks back for rows that came late or were loaded wrong; None: from where the last materialisation
    ended. `until`: no row newer than this; None: up to the moment it is carried out. `as_of` is when the rows were looked at: what the
    source had by then must be online afterwards, while newer rows may still be on their way.
    """

    kind: ClassVar[str] = "materialize"
    views: tuple[str, ...]
    since: str | None = None
    until: str | None = None
    as_of: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))  # from JSON it comes as a list

    @property
    def summary(self) -> str:
        back = f" from {self.since} on" if self.since else ""
        return f"materialize {', '.join(self.views)}{back} up to {self.until or 'now'}"

    @property
    def past(self) -> str:
        return f"Materialized {', '.join(self.views)}"


@dataclass(frozen=True)
class ResumeMaterialization(Action):
    """Let the scheduled materialisation of these feature views run again."""

    kind: ClassVar[str] = "resume_materialization"
    views: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))

    @property
    def summary(self) -> str:
        return f"resume the scheduled materialization of {', '.join(self.views)}"

    @property
    def past(self) -> str:
        return f"Resumed the scheduled materialization of {', '.join(self.views)}"


@dataclass(frozen=True)
class Register(Action):
    """Enter a trained version into the registry; nothing serves it yet."""

    kind: ClassVar[str] = "register"
    version: str

    @property
    def summary(self) -> str:
        return f"register {self.model} {self.version}"

    @property
    def past(self) -> str:
        return f"Registered {self.version}"


@dataclass(frozen=True)
class Stage(Action):
    """Put a version into the staging slot, where it scores live requests in the shadow; None empties it."""

    kind: ClassVar[str] = "stage"
    version: str | None

    @property
    def summary(self) -> str:
        return f"stage {self.model} {self.version} in the shadow" if self.version else f"take {self.model}'s candidate out of staging"

    @property
    def past(self) -> str:
        return f"Staged {self.version} in the shadow" if self.version else "Took the candidate out of staging"


@dataclass(frozen=True)
class Promote(Action):
    """Make a retrained version the serving one (runbook, Path C: "After validation, promote to production")."""

    kind: ClassVar[str] = "promote"
    version: str
    reason: str = ""

    @property
    def summary(self) -> str:
        return f"promote {self.model} {self.version} to production"

    @property
    def past(self) -> str:
        return f"Promoted {self.version} to production"


def check_own(model: str, actions: Iterable[Action]) -> None:
    """Refused where an action is about another model: an incident acts on its own model alone."""
    if foreign := next((a for a in actions if a.model != model), None):
        raise Refused(f"{foreign.kind} is about {foreign.model}, and this incident about {model}: nothing was changed")


def lifts_isolation(action: Action) -> bool:
    return isinstance(action, Isolate) and not action.isolated


ACTIONS: dict[str, type[Action]] = {
    a.kind: a
    for a in (
        RollBack,
        RouteTraffic,
        Scale,
        Configure,
        Restart,
        UndoRollout,
        Isolate,
        FlagWorkOrders,
        Materialize,
        ResumeMaterialization,
        Register,
        Stage,
        Promote,
    )
}


@dataclass(frozen=True)
class Plan:
    """What is proposed, why, and what is expected of it. Its digest binds an approval to exactly this content."""

    incident_id: str
    kind: PlanKind
    model: str
    actions: tuple[Action, ...]
    reasons: tuple[str, ...]
    path: Path | None = None
    rule: str | None = None  # the policy rule an automatic plan rests on
    expected: str = ""  # what the approver should expect to see afterwards
    facts: Mapping[str, Any] = field(default_factory=dict)  # numbers the approver is shown
    requested_by: tuple[str, ...] = ()  # the person ids of whoever asked for it; empty: the runbook itself

    def __post_init__(self) -> None:
        check_own(self.model, self.actions)

    def as_dict(self) -> dict[str, Any]:
        body = asdict(self) | {
            "kind": str(self.kind),
            "path": str(self.path) if self.path else None,
            "reasons": list(self.reasons),
            "actions": [a.as_dict() for a in self.actions],
            "requested_by": list(self.requested_by),
        }
        if not self.requested_by:  # what was stored before plans named it keeps its digest
            del body["requested_by"]
        return dict(json.loads(json.dumps(body, default=str), parse_constant=lambda _: None))  # as the store gives it back

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Plan:
        return cls(
            incident_id=body["incident_id"],
            kind=PlanKind(body["kind"]),
            model=body["model"],
            actions=tuple(action_from_dict(a) for a in body["actions"]),
            reasons=tuple(body["reasons"]),
            path=Path(body["path"]) if body.get("path") else None,
            rule=body.get("rule"),
            expected=body.get("expected", ""),
            facts=body.get("facts", {}),
            requested_by=tuple(body.get("requested_by", ())),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def digest_prefix(given: str) -> str:
    """What names a plan: its SHA-256, or at least the first 8 characters of it, in any case. Raises Invalid."""
    prefix = given.strip().lower()
    if not DIGEST_PREFIX.fullmatch(prefix):
        wrong = f"{len(prefix)} characters are not enough" if re.fullmatch("[0-9a-f]{0,7}", prefix) else f"{prefix[:70]!r} is no SHA-256"
        raise Invalid(f"{wrong}: give the plan's SHA-256, or its first 8 characters or more (0-9, a-f)", field="planDigest")
    return prefix


def action_from_dict(body: Mapping[str, Any]) -> Action:
    fields = dict(body)
    try:
        return ACTIONS[fields.pop("kind")](**fields)
    except (KeyError, TypeError) as error:
        raise Invalid(f"not an action of the runbook: {dict(body)}") from error
