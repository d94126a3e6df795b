"""What every alert format shares: what is read out of one message, and the small readers of text, times and labels.

A normaliser is `read(received)`. It never raises, whatever it is given: what it cannot use is in `Reading.unusable`, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from mlrunbook.base.edge import json_pieces
from mlrunbook.domain import people
from mlrunbook.domain.blackout import shown
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import OWN_KEY, IntakePolicy
from mlrunbook.gateway.text import MAX_TEXT, clean

MAX_PIECES = 400_000  # of one message; the most alerts that one may hold have 120,000
LABEL_CHARS = 500
MAX_LABELS = 1_000  # of one alert: whoever looks at its incident reads all of them
MAX_NAME = 100
MAX_TRUNCATED = 1_000_000_000
MAX_PARTS = 10_000  # of one message are taken in, a whole storm in one Alertmanager group; the rest waits, so that others need not


@dataclass(frozen=True)
class Received:
    """One message as it came. `payload` is its JSON, or None with `problem` when it is none; header names are in small letters."""

    payload: Any
    headers: Mapping[str, str]
    at: datetime
    policy: IntakePolicy
    problem: str | None = None


def read_json(body: bytes, headers: Mapping[str, str], policy: IntakePolicy, at: datetime) -> Received:
    """The message, its JSON read if it is any."""
    if (pieces := json_pieces(body)) > MAX_PIECES:
        too_many = f"it has {pieces} lists, objects and values, more than {MAX_PIECES}: nothing of it was read"
        return Received(None, headers, at, policy, too_many)
    try:
        payload, problem = json.loads(body), None
    except (ValueError, RecursionError) as error:
        payload, problem = None, f"not JSON: {error}"
    return Received(payload, headers, at, policy, problem)


@dataclass(frozen=True)
class Unusable:
    """A part of a message that is no alert of ours, and the sentence that says why. `part` None: the whole message."""

    part: Any
    reason: str


@dataclass(frozen=True)
class ReportedChange:
    """A change, and what was said of it: which model it is about is not judged yet."""

    facts: Facts
    change: Change


@dataclass(frozen=True)
class ExternalNote:
    """What somebody did or wrote elsewhere about an incident that is known here, by its id or by the sender's alert."""

    kind: Literal["acknowledged", "note"]
    by: str
    text: str
    key: str  # said once
    incident_id: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Reading:
    """All that one message says. A `delivery_id` that was seen before changes nothing; None: the sender numbers nothing."""

    alerts: Sequence[Facts] = ()
    unusable: Sequence[Unusable] = ()
    truncated: int = 0
    changes: Sequence[ReportedChange] = ()
    words: Sequence[ExternalNote] = ()
    passed_over: str = ""  # why nothing of it has to be heard of, where nothing of it has
    delivery_id: str | None = None
    part: Any = None  # of the message that this is; None: the message is all about it, or each alert has its own


Read = Callable[[Received], list[Reading]]
Together = Callable[[Sequence[Any]], Any]  # parts of a message as a message


def nothing_of(received: Received, reason: str, part: Any = None) -> list[Reading]:
    """The whole message cannot be used."""
    return [Reading(unusable=[Unusable(part, received.problem or reason)])]


def collect(parts: Sequence[Any], read: Callable[[Any], Facts | str], together: Together) -> tuple[list[Facts], list[Unusable]]:
    """Each part in exactly one of the two lists; those over the limit as one, which is a message again."""
    usable: list[Facts] = []
    unusable: list[Unusable] = over_limit(parts, together)
    for part in parts[:MAX_PARTS]:
        found = read(part)
        if isinstance(found, str):
            unusable.append(Unusable(part, found))
        else:
            usable.append(replace(found, part=part))
    return usable, unusable


def over_limit(parts: Sequence[Any], together: Together, limit: int = MAX_PARTS) -> list[Unusable]:
    """What is not read of a message with so many parts: one thing to look at, and to replay."""
    if len(parts) <= limit:
        return []
    reason = f"the message has {len(parts)} parts: the first {limit} were read, these {len(parts) - limit} were not; replay them"
    return [Unusable(together(parts[limit:]), reason)]


def as_it_came(part: Any) -> str:
    """A part of a message as JSON, to be kept beside what was read of it; of a long one the beginning."""
    try:
        whole = json.dumps(part, ensure_ascii=False)
        if len(whole) > MAX_TEXT:  # what is cut is no JSON any more, in which a secret could be told by its name
            whole = json.dumps(shown(part), ensure_ascii=False)
    except (ValueError, RecursionError):
        return "(nested too deep to be kept)"
    return clean(whole[: MAX_TEXT + 1])


def own_incident(key: str) -> str | None:
    """The incident of ours that a page elsewhere was made for, by the key we gave it."""
    return key.removeprefix(OWN_KEY) if key.startswith(OWN_KEY) else None


def text(value: Any, limit: int = LABEL_CHARS) -> str:
    """A scalar as one clean text; empty for nothing, a list or an object."""
    if value is None or isinstance(value, list | dict):
        return ""
    with contextlib.suppress(ValueError):  # an integer of more digits than Python prints
        return clean(value if isinstance(value, str) else json.dumps(value), limit)
    return ""


def person(name: Any, *, otherwise: str = "somebody") -> str:
    """Who did something elsewhere. What they did holds whatever their name is; one that could deceive is not repeated."""
    try:
        return people.checked(said, "name") if (said := text(name, MAX_NAME)) else otherwise
    except Invalid:
        return "somebody"


def person_in(where: str, name: Any) -> str:
    """And where the name is from, so that it is taken for nobody here."""
    return f"{person(name)} in {where}"


def strings(mapping: Any) -> dict[str, str]:
    """An object's scalars as texts, long ones kept long; of very many the first."""
    if not isinstance(mapping, dict):
        return {}
    said = islice(mapping.items(), MAX_LABELS)
    return {text(key): clean(value) if isinstance(value, str) else text(value) for key, value in said}


def within(value: Any, *path: str) -> Any:
    """`value[path[0]][path[1]]...`, a digit picks from a list; None where there is no such thing.

    >>> within({"teams": [{"summary": "ML"}]}, "teams", "0", "summary")
    'ML'
    """
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 6:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def tags(value: Any) -> dict[str, str]:
    """`["model:pump", "prod"]` or `"model:pump,prod"` as {"model": "pump", "prod": ""}."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return {}
    pairs = (text(tag).partition(":") for tag in value)
    return {name.strip(): given.strip() for name, _, given in pairs if name.strip()}


def time(value: Any) -> datetime | None:
    """ISO 8601 text, or the time since 1970 in s, ms, us or ns, as a number or as digits; without a zone it is UTC."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str) and not value.strip().isdigit():
            at = datetime.fromisoformat(value.strip())
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            seconds = float(value)
            while math.isfinite(seconds) and seconds > 1e11:  # the year 5138 in seconds, 1973 in milliseconds
                seconds /= 1000
            return datetime.fromtimestamp(seconds, UTC)
    return None


def words_of_state(policy: IntakePolicy) -> dict[str, tuple[str, ...]]:
    """By the value of the state."""
    states = policy.states
    return {State.FIRING.value: states.firing, State.RESOLVED.value: states.resolved, State.IGNORED.value: states.ignored}


def truncated(value: Any) -> int:
    return min(value, MAX_TRUNCATED) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


@dataclass(frozen=True)
class Format:
    """One way of writing alerts.

    `whole` makes of a quarantined part a message that `read` takes again, `together` one of several (None: a message is one part); the
    headers that `read` looks at are kept with it. `accepts` says by the headers whether it is this format at all (else 415).
    `is_paced`: its senders are told to wait when they are too many, and know what to do then; any other would lose an alert.
    """

    name: str
    read: Read
    whole: Callable[[Any], Any] = field(default=lambda part: part)
    together: Together | None = None
    header_names: tuple[str, ...] = ()
    header_prefix: str | None = None
    media_types: tuple[str, ...] = ("application/json",)
    accepts: Callable[[Mapping[str, str]], bool] = field(default=lambda _: True)
    is_paced: bool = False
    token_in_query: bool = False
    mapping: str = ""  # of `intake.generic`; "": the one without a name, or a format that needs none

    @property
    def source(self) -> str:
        """What its messages are known by: what two mappings number alike is not the same."""
        return f"{self.name}/{self.mapping}" if self.mapping else self.name
