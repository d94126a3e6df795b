"""Which containment is in force, what ended it, and how long it kept people from being served: from the journal, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Promote,
    RollBack,
    RouteTraffic,
    Scale,
    Stage,
    UndoRollout,
)
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.observed import ServingState


@dataclass(frozen=True)
class Change:
    """One journaled change to a model. `contains`: its plan limits damage, and it does not take such a change back. `certain` False: nobody
    knows whether it happened."""

    id: str
    action: Action
    before: Mapping[str, Any]
    at: datetime
    contains: bool = False
    certain: bool = True
    undone: bool = False
    why_kept: str = ""


@dataclass(frozen=True)
class Seen:
    """What was observed of the model just now. None: not looked at."""

    serving: ServingState | None = None
    flagged_work_orders: int | None = None  # pending ones that wait for their review

    def still(self, key: str, value: Any) -> bool | None:
        """Whether `key` has that value; None where that was not seen."""
        if key == "work_orders":
            return None if self.flagged_work_orders is None else self.flagged_work_orders > 0
        if self.serving is None:
            return None
        known = {"replicas": self.serving.replicas, "route": self.serving.route_version, "isolated": self.serving.isolated}
        known |= {f"config.{k}": v for k, v in self.serving.config.as_dict().items()} if self.serving.config else {}
        return known[key] == value if key in known else None


UNSEEN = Seen()


def sets(action: Action) -> dict[str, Any]:
    """What an action makes so, by the thing it is about. A restart or a materialization leaves nothing behind."""
    match action:
        case Scale():
            return {"replicas": action.replicas}
        case RouteTraffic():
            return {"route": action.version}
        case Configure():
            return {f"config.{key}": value for key, value in action.settings.items()}
        case Isolate():
            return {"isolated": action.isolated}
        case FlagWorkOrders():
            return {"work_orders": "flagged"}
        case RollBack():
            return {"serving": action.target_version}
        case Promote():
            return {"serving": action.version, "staging": None}
        case Stage():
            return {"staging": action.version}
        case UndoRollout():
            return {"template": action.revision}
    return {}


def in_force(change: Change, changes: Sequence[Change], seen: Seen = UNSEEN) -> bool:
    """Something of this containment still holds: nobody has taken it back, nothing later has set the same thing, and what was seen does
    not say otherwise."""
    if not change.contains or change.undone or not _changed_something(change):
        return False
    return any(
        _ended_by(change, key, changes) is None and seen.still(key, value) is not False for key, value in sets(change.action).items()
    )


def over_since(change: Change, changes: Sequence[Change]) -> datetime | None:
    """When the last of what it set was set anew, as far as the journal knows."""
    ends = [ended.at for key in sets(change.action) if (ended := _ended_by(change, key, changes))]
    return max(ends, default=None)


def _ended_by(change: Change, key: str, changes: Sequence[Change]) -> Change | None:
    """The next change of the same thing. Containment that was ordered once more and found it so already ends nothing."""
    at = next((i for i, c in enumerate(changes) if c is change), 0)
    later = [c for i, c in enumerate(changes) if (c.at, i) > (change.at, at) and c.certain and key in sets(c.action)]
    return next((c for c in later if not c.contains or _changed_something(c)), None)


def _changed_something(change: Change) -> bool:
    return any(change.before.get(key) != value for key, value in change.action.target().items())


@dataclass(frozen=True)
class Outage:
    """A time in which containment kept predictions from the people who ask for them, or gave them those of another version. `end` None: it
    lasts; `over`: it was seen to be over, and nobody knows since when."""

    change: Change
    end: datetime | None
    over: bool = False

    @property
    def sentence(self) -> str:
        """'Serving was stopped from 2026-03-02 10:02:11 to 10:14:02 UTC (11 minutes 51 seconds): every prediction request failed'."""
        subject, verb, effect = _WORDS[type(self.change.action)]
        if isinstance(self.change.action, RouteTraffic):
            verb = f"routed to {self.change.action.version}"
        begin = self.change.at.astimezone(UTC)
        maybe = "" if self.change.certain else " (as far as is known)"
        if self.end is None:
            end = ", and was ended outside mlrunbook" if self.over else ""
            return f"{subject} has been {verb}{maybe} since {begin:%Y-%m-%d %H:%M:%S} UTC{end}: {effect}"
        end_at = self.end.astimezone(UTC)
        until = f"{end_at:%H:%M:%S}" if end_at.date() == begin.date() else f"{end_at:%Y-%m-%d %H:%M:%S}"
        took = in_words(self.end - self.change.at)
        return f"{subject} was {verb}{maybe} from {begin:%Y-%m-%d %H:%M:%S} to {until} UTC ({took}): {effect}"


_WORDS: dict[type[Action], tuple[str, str, str]] = {
    Scale: ("Serving", "stopped", "no prediction request is answered meanwhile"),
    Isolate: ("The model server", "isolated", "nobody but forensics reaches it meanwhile"),
    RouteTraffic: ("Traffic", "routed", "that version answers meanwhile"),
}
_THING = {Scale: "replicas", Isolate: "isolated", RouteTraffic: "route"}


def outages(changes: Sequence[Change], seen: Seen = UNSEEN) -> Iterator[Outage]:
    """What containment cost in service, in the order of time."""
    for change in changes:
        if not (change.contains and _keeps_from_being_served(change.action) and _changed_something(change)):
            continue
        key = _THING[type(change.action)]
        ended = _ended_by(change, key, changes)
        over = ended is None and seen.still(key, sets(change.action)[key]) is False
        yield Outage(change, ended.at if ended else None, over)


def _keeps_from_being_served(action: Action) -> bool:
    match action:
        case Scale():
            return action.replicas == 0
        case Isolate():
            return action.isolated
        case RouteTraffic():
            return action.version is not None
    return False
