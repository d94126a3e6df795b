"""A sender's own JSON: expressions in the policy (`intake.generic`) say where it keeps what an alert needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.words import plain, state_in
from mlrunbook.domain.policy.expressions import Steps, TooMuch, Unreadable, search
from mlrunbook.domain.policy.intake import DEFAULT_MAPPING, EXPRESSIONS, GenericMapping, IntakePolicy
from mlrunbook.gateway.webhooks import sns
from mlrunbook.gateway.webhooks.json_in_text import opened
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, collect, nothing_of, strings, text, time, words_of_state

PARTS = "mlrunbook:alerts"  # under this name alerts that were in a list are kept, so that a replay reads them and no list around them
STEPS, STEPS_OF_MESSAGE = 100_000, 3_000_000
FIELDS = tuple(name for name in EXPRESSIONS if name != "alerts")
NAMING = ("model", "name", "fingerprint")
DECIDING = (*NAMING, "status")  # of the others an alert can do without


def read(mapping: str, received: Received) -> list[Reading]:
    fields, payload = received.policy.generic.get(mapping), received.payload
    if fields is None:
        return nothing_of(received, f"intake.generic has no mapping named {mapping!r}; known: {', '.join(received.policy.generic)}")
    if asked := sns.handshake(payload, received.policy):
        return nothing_of(received, asked)
    if not isinstance(payload, dict | list):
        return nothing_of(received, "not a JSON object")
    steps = Steps(STEPS_OF_MESSAGE)
    try:
        parts, is_list = _parts(payload, fields, steps)
    except Unreadable as error:
        return nothing_of(received, f"the expression `alerts` of the mapping {mapping}: {error}")
    if parts is None:
        return nothing_of(received, f"`alerts` of the mapping {mapping} must pick out a list of alerts: {fields.alerts}")
    words = _words(fields, received.policy)
    usable, unusable = collect(parts, lambda part: _alert(part, mapping, fields, words, steps), _together)
    if is_list:
        usable = [replace(one, part=_together([one.part])) for one in usable]
        unusable = [replace(one, part=_together([one.part])) for one in unusable]
    return [Reading(usable, unusable, delivery_id=sns.message_id(payload))]


def _parts(payload: Any, fields: GenericMapping, steps: Steps) -> tuple[list[Any] | None, bool]:
    """The alerts, and whether they stood in a list that `alerts` names; None where that is no list."""
    if isinstance(payload, dict) and isinstance(kept := payload.get(PARTS), list):
        return kept, True
    found = search(fields.alerts, opened(payload, fields.json_in), steps) if fields.alerts else None
    if found is not None:
        return (found if isinstance(found, list) else None), True
    return (payload if isinstance(payload, list) else [payload]), False  # one alert alone, or a list of them


def _alert(part: Any, mapping: str, fields: GenericMapping, words: Mapping[str, Sequence[str]], of_message: Steps) -> Facts | str:
    if not isinstance(part, dict | list):
        return "an alert must be a JSON object"
    if of_message.left <= 0:
        return "the message takes too long to read: what came before this was read, this was not; replay it"
    steps = Steps(min(STEPS, of_message.left))
    of_message.left -= steps.left
    try:
        return _facts(opened(part, fields.json_in), mapping, fields, words, steps)
    except Unreadable as error:
        return f"the expression {error}"
    finally:
        of_message.left += max(steps.left, 0)


def _facts(part: Any, mapping: str, fields: GenericMapping, words: Mapping[str, Sequence[str]], steps: Steps) -> Facts | str:
    found, unread = dict[str, Any](), dict[str, str]()
    for name in FIELDS:
        try:
            found[name] = _picked(name, search(expression, part, steps)) if (expression := getattr(fields, name)) else None
        except Unreadable as error:
            if name in DECIDING or isinstance(error, TooMuch):
                raise Unreadable(f"`{name}`: {error}") from error
            found[name], unread[name] = None, str(error)
    status = text(found["status"])
    state = state_in(status, words, over=State.RESOLVED) if status else State.FIRING
    if state is None:
        return f"the status {status[:50]!r} is no word of intake.generic.{mapping} or intake.states: list it as firing, resolved or ignored"
    return Facts(
        identity=text(found["fingerprint"]),
        state=State(state),
        state_because=_because(status, state, fields, mapping),
        identified_by=f"fingerprint, as intake.generic.{mapping} finds it",
        title=text(found["name"]),
        said=_said(part, fields, found),
        summary=text(found["summary"], 1_000),
        model_version=text(found["model_version"]),
        levels=(text(found["level"]),),
        seen_at=time(found["started_at"]),
        kept={"unread": unread} if unread else {},
    )


def _said(part: Any, fields: GenericMapping, found: Mapping[str, Any]) -> dict[str, str]:
    said = strings(part)
    if fields.model_version != GenericMapping.model_version:  # then a `version` at the top is that of the message's form
        said.pop("version", None)
    said |= strings(found["labels"])
    if title := text(found["name"]):
        said.setdefault("alertname", title)
    return said | {name: value for name in ("model", "incident_type") if (value := text(found[name]))}


def _because(status: str, state: str, fields: GenericMapping, mapping: str) -> str:
    if not status:
        return "it has no status"
    listed = f"intake.generic.{mapping}.{state}" if getattr(fields, state) else f"intake.states.{state}"
    return f"its status is {status[:50]!r}, which {listed} lists"


def _picked(name: str, found: Any) -> Any:
    """What a filter picks is a list: of one thing, that is meant. `x && y` that came to true or false names nothing. Unreadable where a
    state or an identity is no single value: an end would be taken for a beginning, or for another alert's."""
    if isinstance(found, list) and len(found) < 2:
        found = found[0] if found else None
    if name in ("status", "fingerprint") and isinstance(found, list | dict):
        raise Unreadable(f"it picks {'an object' if isinstance(found, dict) else f'a list of {len(found)} values'}, not one value")
    return None if name in NAMING and isinstance(found, bool) else found


def _words(fields: GenericMapping, policy: IntakePolicy) -> dict[str, tuple[str, ...]]:
    """Of the mapping; where it has none of its own, those of all senders that it does not use for another state."""
    own = {State.FIRING.value: fields.firing, State.RESOLVED.value: fields.resolved, State.IGNORED.value: fields.ignored}
    used = {plain(word) for words in own.values() for word in words}
    general = words_of_state(policy)
    return {state: words or tuple(w for w in general[state] if plain(w) not in used) for state, words in own.items()}


def _together(parts: Sequence[Any]) -> Any:
    return {PARTS: [one for part in parts for one in (part[PARTS] if isinstance(part, dict) and PARTS in part else [part])]}


def format_of(mapping: str = DEFAULT_MAPPING) -> Format:
    """How `/webhooks/generic/<mapping>` is read; whether policy has such a mapping is seen when a message comes."""
    return Format(
        "generic", partial(read, mapping), together=_together, token_in_query=True, mapping="" if mapping == DEFAULT_MAPPING else mapping
    )


FORMAT = format_of()
