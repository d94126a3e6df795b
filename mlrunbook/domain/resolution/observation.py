"""What would have been done for a model in mode observe, and how that compares with what people did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from mlrunbook.domain.actions import (
    Action,
    Configure,
    Isolate,
    Materialize,
    Path,
    Plan,
    Promote,
    Restart,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.observed import Change
from mlrunbook.domain.records import IsoTime, Record, Recorded

OURS = "mlrunbook"
AFTERWARDS = timedelta(hours=24)  # what people do within this time after the end is still an answer to it


@dataclass(frozen=True)
class Would:
    """One change that was not made."""

    kind: str
    summary: str
    target: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan | None) -> tuple[Would, ...]:
        return tuple(cls(a.kind, a.summary, a.target()) for a in plan.actions) if plan else ()


@dataclass(frozen=True)
class WouldContain(Recorded, key=Record.WOULD_CONTAIN):
    """Step 2: what would have been done at once, and what a person would have been asked."""

    at: IsoTime
    at_once: tuple[Would, ...] = ()
    asked: tuple[Would, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class WouldResolve(Recorded, key=Record.WOULD_RESOLVE):
    """Step 4: the plan that would have been proposed; without changes, `why` says why there is none."""

    at: IsoTime
    headline: str
    changes: tuple[Would, ...] = ()
    path: Path | None = None
    why: str = ""


@dataclass(frozen=True)
class ObservationOver(Recorded, key=Record.OBSERVATION_OVER):
    """Nothing is left to observe. `by`: the person who says so; "": its alerts ended."""

    at: IsoTime
    why: str
    by: str = ""


def said(contain: WouldContain, resolve: WouldResolve) -> str:
    """For the timeline and the channel.

    >>> said(WouldContain(datetime(2026, 3, 1)), WouldResolve(datetime(2026, 3, 1), "Bad release", why="look at the findings"))
    'Bad release. Nothing would be changed at once. No plan would be proposed: look at the findings'
    """
    parts = [resolve.headline, f"At once: {_listed(contain.at_once)}" if contain.at_once else "Nothing would be changed at once"]
    if contain.asked:
        parts.append(f"A person would be asked to {_listed(contain.asked)}")
    if resolve.changes:
        parts.append(f"Then this plan would be proposed: {_listed(resolve.changes)}" + (f" ({resolve.why})" if resolve.why else ""))
    else:
        parts.append(f"No plan would be proposed: {resolve.why}")
    return ". ".join(part.rstrip(".") for part in parts if part)


def _listed(changes: Iterable[Would]) -> str:
    return "; ".join(one.summary for one in changes)


# --- against what happened


class Happened(StrEnum):
    """What came of an incident that was only observed."""

    SAME = "people did the same"
    OTHERWISE = "people did something else"
    BY_ITSELF = "it ended without anybody"
    TAKEN_UP = "a person reported or ordered"
    OPEN = "it is still open"


@dataclass(frozen=True)
class Observed:
    """One incident: what would have been done, and what the world shows since."""

    incident_id: str
    model: str
    severity: Severity
    detected_at: datetime
    contain: WouldContain
    resolve: WouldResolve | None = None
    over: ObservationOver | None = None
    is_open: bool = True
    is_taken_up: bool = False
    changes: Sequence[Change] = ()  # near the model, since the detection

    @property
    def would(self) -> tuple[Would, ...]:
        return (*self.contain.at_once, *self.contain.asked, *(self.resolve.changes if self.resolve else ()))

    @property
    def by_people(self) -> list[Change]:
        """Those that answer this incident."""
        until = self.over.at + AFTERWARDS if self.over else None
        later = [c for c in self.changes if c.at >= self.detected_at and c.author != OURS]
        return sorted((c for c in later if until is None or c.at <= until), key=lambda c: c.at)

    @property
    def same(self) -> list[Change]:
        """What people did that would have been done."""
        return [change for change in self.by_people if any(_is_same(one, change) for one in self.would)]

    @property
    def minutes_sooner(self) -> int | None:
        """How much sooner it would have been done, or asked, than people did the same."""
        since = self.contain.at if self.contain.at_once or self.contain.asked else self.resolve.at if self.resolve else None
        return round((self.same[0].at - since).total_seconds() / 60) if since and self.same else None

    @property
    def happened(self) -> Happened:
        if self.is_taken_up:
            return Happened.TAKEN_UP
        if self.same:
            return Happened.SAME
        if self.by_people or (self.over and self.over.by):
            return Happened.OTHERWISE
        return Happened.OPEN if self.is_open else Happened.BY_ITSELF


# What of the change history shows that somebody did such a change, and the key of its target that the change must name.
_SHOWS: dict[type[Action], tuple[frozenset[str], str | None]] = {
    RollBack: (frozenset({"rollback", "deployment"}), "target_version"),
    Promote: (frozenset({"deployment"}), "version"),
    RouteTraffic: (frozenset({"rollback", "deployment", "infrastructure", "config"}), "version"),
    Scale: (frozenset({"infrastructure"}), None),
    Restart: (frozenset({"infrastructure", "config"}), None),
    Isolate: (frozenset({"infrastructure"}), None),
    UndoRollout: (frozenset({"infrastructure", "rollback", "deployment"}), None),
    Configure: (frozenset({"config"}), None),
    Materialize: (frozenset({"feature_store", "data_pipeline"}), None),
    ResumeMaterialization: (frozenset({"feature_store", "data_pipeline"}), None),
}
_BY_KIND = {action.kind: shows for action, shows in _SHOWS.items()}


def _is_same(would: Would, change: Change) -> bool:
    kinds, key = _BY_KIND.get(would.kind, (frozenset[str](), None))
    if change.kind not in kinds:
        return False
    version = would.target.get(key) if key else None
    named = {change.ref, *map(str, change.detail.values())}
    return version is None or any(str(version) in text for text in named)


def summary(found: Sequence[Observed]) -> str:
    """The line under the table.

    >>> summary([])
    'nothing was observed'
    """
    if not found:
        return "nothing was observed"
    would = [one for one in found if one.would]
    at_once = sum(bool(one.contain.at_once) for one in found)
    parts = [f"{len(found)} observed", f"would have acted in {len(would)} ({at_once} of them at once)"]
    for happened in Happened:
        if count := sum(one.happened is happened for one in found):
            parts.append(f"{happened}: {count}")
    return "; ".join(parts)
