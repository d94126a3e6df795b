"""All that `connect` makes of one model, and what the registry says serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.domain.connecting.columns import LogGuess
from mlrunbook.domain.connecting.guesses import Guess, likely, nothing, snake, sure, undecided
from mlrunbook.domain.connecting.objects import ObjectsGuess
from mlrunbook.domain.connecting.promql import LiveGuess
from mlrunbook.domain.connecting.seen import RegisteredModel, TableSeen

SERVING = ("champion", "production", "prod", "live", "serving", "current", "active", "deployed")
CANDIDATE = ("challenger", "candidate", "staging", "shadow", "canary", "next", "stage")
_NO_ID = re.compile(r"[^A-Za-z0-9._-]+")
AN_OFFSET = timedelta(minutes=30)  # every zone's offset is a multiple of it, or of half of it
A_CLOCK = timedelta(minutes=2)


@dataclass(frozen=True)
class ModelGuess:
    """`model`: its id in the policy. None: that part of the world was not looked at."""

    model: str
    registered: RegisteredModel
    in_registry: bool = True
    serving: Guess | None = None
    candidate: Guess | None = None
    log: LogGuess | None = None
    objects: ObjectsGuess | None = None
    live: LiveGuess | None = None
    views: tuple[str, ...] = ()
    views_guess: Guess | None = None
    zone: str | None = None
    trouble: tuple[str, ...] = ()

    @property
    def serving_version(self) -> str | None:
        return self.registered.aliases.get(self.serving.value) if self.serving and self.serving.value else None


def model_id(name: str) -> str:
    """What the policy may call it.

    >>> model_id("Churn Model (EU)"), model_id("churn")
    ('Churn_Model_EU', 'churn')
    """
    return _NO_ID.sub("_", name).strip("._-")[:100] or "model"


def guess_serving(model: RegisteredModel) -> Guess:
    """The alias that the serving version carries."""
    named = [alias for word in SERVING for alias in model.aliases if snake(alias) == word]
    if named and all(model.aliases[a] == model.aliases[named[0]] for a in named):
        return sure(named[0], f"version {model.aliases[named[0]]} carries it")
    if named:
        said = ", ".join(f"{a} on version {model.aliases[a]}" for a in named)
        return undecided(named, f"several aliases may mean it: {said}")
    others = [a for a in model.aliases if snake(a) not in CANDIDATE]
    if len(others) == 1:
        return likely(others[0], f"the only alias that is no candidate's; version {model.aliases[others[0]]} carries it")
    if others:
        return undecided(others, f"which of {', '.join(others)} serves?")
    newest = model.versions[-1] if model.versions else "1"
    if production := model.stages.get("Production"):
        reason = f"version {production} is in stage Production, an older way of MLflow that has no alias: set one on version {production}"
        return nothing(reason)
    return nothing(
        f"no version carries an alias, so nothing says what serves: set champion on the version that does (the newest is {newest})"
    )


def guess_candidate(model: RegisteredModel) -> Guess:
    named = [alias for word in CANDIDATE for alias in model.aliases if snake(alias) == word]
    if named:
        return sure(named[0], f"version {model.aliases[named[0]]} carries it")
    return nothing("no version carries one now")


def clock_trouble(table: TableSeen, column: str, now: datetime, zone: str) -> str | None:
    """What the newest prediction's time, read as UTC or as its own zone says, tells of clocks and zones."""
    newest = table.newest.get(column)
    if newest is None:
        return None
    ahead = newest - now
    if ahead <= A_CLOCK and not -timedelta(hours=14, minutes=15) < ahead < -AN_OFFSET + A_CLOCK:
        return None
    hours = round(ahead / AN_OFFSET) / 2
    exact = abs(ahead - timedelta(hours=hours)) <= A_CLOCK
    said = f"{table.name}: the newest {column} is {_span(abs(ahead))} {'ahead of' if ahead > timedelta() else 'behind'} now"
    if exact and hours:
        return f"{said}, to the minute: its times look like {_utc(hours)}, not {zone}; set time_zone to the zone that writes them"
    if ahead > A_CLOCK:
        return f"{said}: the clock of whoever writes it is wrong, or its times are of another zone than {zone}; set time_zone"
    return None


def _utc(hours: float) -> str:
    whole, half = divmod(abs(hours) * 60, 60)
    return f"UTC{'+' if hours > 0 else '-'}{whole:.0f}" + (f":{half:02.0f}" if half else "")


def _span(of: timedelta) -> str:
    minutes = round(of.total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def answers(guesses: Mapping[str, Guess], given: Mapping[str, str]) -> dict[str, Guess]:
    """The guesses, with what a person said in the place of what was open."""
    return {part: sure(given[part], "you said so") if part in given else guess for part, guess in guesses.items()}
