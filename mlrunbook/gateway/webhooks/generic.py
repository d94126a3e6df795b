"""A team's own JSON: dotted paths in the policy (`intake.generic`) say where it keeps what an alert needs."""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.words import meaning, plain
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.gateway.webhooks.parsing import (
    Format,
    Reading,
    Received,
    collect,
    nothing_of,
    strings,
    text,
    time,
    within,
    words_of_state,
)

HANDSHAKES = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


def read(received: Received) -> list[Reading]:
    where = received.policy.generic.alerts
    if text(within(received.payload, "Type")) in HANDSHAKES and within(received.payload, "SubscribeURL"):
        return nothing_of(received, f"Amazon SNS asks whether it may send: open {text(within(received.payload, 'SubscribeURL'))} yourself")
    if not isinstance(received.payload, dict | list):
        return nothing_of(received, "not a JSON object")
    parts = within(received.payload, *where.split(".")) if where else None
    if parts is None:  # one alert alone, or a list of them
        parts = received.payload if isinstance(received.payload, list) else [received.payload]
    if not isinstance(parts, list):
        return nothing_of(received, f"`{where}` must be a list of alerts")
    usable, unusable = collect(parts, lambda part: _alert(part, received.policy), list)
    return [Reading(usable, unusable)]


def _alert(part: Any, policy: IntakePolicy) -> Facts | str:
    if not isinstance(part, dict | list):
        return "an alert must be a JSON object"
    paths = policy.generic

    def at(path: str) -> str:
        return text(within(part, *path.split(".")))

    said = strings(part)
    if named := at(paths.model):
        said |= {"model": named}
    if kind := at(paths.incident_type):
        said |= {"incident_type": kind}
    status = at(paths.status)
    words = _words(policy)
    state = meaning(status, words) if status else State.FIRING
    if state is None:
        return f"the status {status[:50]!r} is no word of intake.generic or intake.states: list it as firing, resolved or ignored"
    return Facts(
        identity=at(paths.fingerprint),
        state=State(state),
        state_because=f"its status is {status[:50]!r}" if status else "it has no status",
        title=at(paths.name),
        said=said,
        summary=at(paths.summary),
        model_version=at(paths.model_version),
        levels=(at(paths.level),),
        seen_at=time(within(part, *paths.started_at.split("."))),
    )


def _words(policy: IntakePolicy) -> dict[str, tuple[str, ...]]:
    """Of the mapping; where it has none of its own, those of all senders that it does not use for another state."""
    own = {
        State.FIRING.value: policy.generic.firing,
        State.RESOLVED.value: policy.generic.resolved,
        State.IGNORED.value: policy.generic.ignored,
    }
    used = {plain(word) for words in own.values() for word in words}
    general = words_of_state(policy)
    return {state: words or tuple(w for w in general[state] if plain(w) not in used) for state, words in own.items()}


FORMAT = Format("generic", read, together=list)
