"""CloudEvents 1.0 over HTTP: structured, batched and binary.

cloudevents/spec: spec.md, formats/json-format.md, bindings/http-protocol-binding.md; http-webhook.md for the handshake and the answers.
An event is an alert of its `type`; one whose data has a `kind` of change and a `ref` is a recent change.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

from mlrunbook.domain.detection.alerts import fingerprint
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.words import plain, state_in
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import CHANGE_KINDS, VERSION_OF_TYPE, IntakePolicy
from mlrunbook.gateway.webhooks.parsing import (
    Format,
    Reading,
    Received,
    ReportedChange,
    Unusable,
    nothing_of,
    over_limit,
    strings,
    text,
    time,
    words_of_state,
)

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
MAX_EVENTS = 1_000  # of one batch: each is a delivery of its own, and the order in which they come counts
REQUIRED = ("id", "source", "type")
OVER = re.compile(r"[._-](resolved|recovered|cleared|closed|ended)$", re.IGNORECASE)
LIFECYCLE = frozenset(
    {
        "new",
        "create",
        "created",
        "started",
        "active",
        "activated",
        "open",
        "opened",
        "upgraded",
        "monitoring",
        "inprogress",
        "onhold",
        "unknown",
    }
)
NOTHING = ("false", "0", "0.0", "no", "none", "")
FINDINGS = ("drift", "driftdetected", "isdrift", "datadrift", "datadriftdetected", "violations", "violationcount", "anomaly", "anomalies")
BEGINS = re.compile(r"[._-](detected|reported|triggered|raised|opened|firing|started)$", re.IGNORECASE)  # what OVER is the other end of
OF_SUBJECT = re.compile(r"\bmodels/(?P<model>[^/:@]+)(?:(?:/versions/|[:@])(?P<model_version>[^/:@]+))?")


def accepts(headers: Mapping[str, str]) -> bool:
    """One of the three content modes; a structured event may also come as plain JSON without `ce-` headers, which the JSON shows."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in (STRUCTURED, BATCH) or (media_type in ("application/json", "") and "ce-specversion" in headers)


def read(received: Received) -> list[Reading]:
    """One reading an event, each with the event's own number."""
    if "ce-specversion" in received.headers:
        attributes = {name[3:]: unquote(value) for name, value in received.headers.items() if name.startswith("ce-")}
        event = attributes | {"data": received.payload}
        return [replace(_event(event, received), part=event)]
    if received.problem:
        return nothing_of(received, received.problem)
    events = received.payload if isinstance(received.payload, list) else [received.payload]
    over = [Reading(unusable=left)] if (left := over_limit(events, list, MAX_EVENTS)) else []
    return [replace(_event(event, received), part=event) for event in events[:MAX_EVENTS]] + over


def _event(event: Any, received: Received) -> Reading:
    if not isinstance(event, dict) or event.get("specversion") != "1.0" or not all(text(event.get(name)) for name in REQUIRED):
        return Reading(unusable=[Unusable(event, 'not a CloudEvent: it has `specversion` "1.0", `id`, `source` and `type`')])
    said, named = _said(event, _data(event)), _of_subject(event)
    delivery = f"{text(event['source'])} {text(event['id'])}"
    facts = replace(_facts(event, said, received), model=named)
    kind, why = _kind(event, said, received.policy)
    if found := _found_nothing(_data(event)):
        kind, why = "ignored", f"a report that found nothing: its {found[:50]!r} says so"
    if kind == "ignored":
        facts = replace(facts, state=State.IGNORED, state_because=why)
    if kind in CHANGE_KINDS and facts.state is not State.IGNORED:
        facts = replace(facts, state_because=why)
        ref = said.get("ref") or said.get("version") or named[1] or said.get("artifactId") or text(event["id"])
        at = facts.seen_at or received.at
        change = Change(kind, ref, said.get("author") or text(event["source"]), at, said)
        return Reading(changes=[ReportedChange(facts, change)], delivery_id=delivery)
    return Reading([facts], delivery_id=delivery)


def _kind(event: dict[str, Any], said: dict[str, str], policy: IntakePolicy) -> tuple[str, str]:
    """("alert", "ignored" or a kind of change, and what decided that). What the sender says itself counts first; of one that says it
    fires, no type makes nothing: "failed" does, "created" is also said of what is no alert."""
    if said.get("kind") in CHANGE_KINDS and said.get("ref"):
        return said["kind"], f"its data says kind {said['kind']}"
    fires = any(stands.state is State.FIRING and plain(stands.word) not in LIFECYCLE for stands in _stands(said, policy))
    if fires or said.get("alertname"):
        return "alert", ""
    kind, pattern = policy.cloudevents.kind_of(VERSION_OF_TYPE.sub("", text(event["type"]))) or ("alert", "")
    where = kind if kind == "ignored" else "changes"
    return kind, f"its type fits intake.cloudevents.{where} {pattern!r}"


def _found_nothing(data: Any) -> str:
    """Of a report that looked for drift or violations and says of all that there is none: the field that says so; else ""."""
    found = list(_findings(data))
    return "" if any(is_found for _, is_found in found) else next((name for name, _ in found), "")


def _findings(data: Any, depth: int = 3) -> Iterator[tuple[str, bool]]:
    """(the field, whether something was found)."""
    for name, value in data.items() if isinstance(data, dict) and depth else ():
        if plain(str(name)) in FINDINGS and not isinstance(value, dict):
            yield from ((text(name), text(one).casefold() not in NOTHING) for one in (value if isinstance(value, list) else [value]))
        else:
            yield from _findings(value, depth - 1)


def _facts(event: dict[str, Any], said: dict[str, str], received: Received) -> Facts:
    type_ = VERSION_OF_TYPE.sub("", text(event["type"]))
    plain = OVER.sub("", type_)
    measured = " ".join(filter(None, (said.get("metric"), said.get("feature"), said.get("value"))))
    limit = f" against {said['threshold']}" if said.get("threshold") else ""
    title = said.get("alertname") or plain
    ended = (State.RESOLVED, f"its type ends in {type_.removeprefix(plain)!r}")
    stands = next(((one.state, one.because) for one in _stands(said, received.policy)), (State.FIRING, "nothing says that it is over"))
    state, because = ended if type_ != plain else stands
    return Facts(
        identity=fingerprint(text(event["source"]), BEGINS.sub("", plain), text(event.get("subject")), said.get("dedup_key", "")),
        identified_by="source, type and subject",
        state=state,
        state_because=because,
        title=title,
        said=said,
        summary=said.get("summary") or said.get("message") or (f"{title}: {measured}{limit}" if measured else ""),
        seen_at=time(event.get("time")),
    )


class _Stands(NamedTuple):
    """What a field says about how the alert stands."""

    state: State
    word: str
    because: str


def _stands(said: Mapping[str, str], policy: IntakePolicy) -> list[_Stands]:
    """As far as policy knows the words."""
    words, named = words_of_state(policy), {name.casefold(): value for name, value in said.items()}
    found = [(name, named[name], state_in(named[name], words, over=State.RESOLVED)) for name in ("status", "state") if named.get(name)]
    return [
        _Stands(State(state), word, f"its {name} is {word[:50]!r}, which intake.states.{state} lists")
        for name, word, state in found
        if state
    ]


def _said(event: dict[str, Any], data: Any) -> dict[str, str]:
    """Attributes, then the data: it knows better."""
    attributes = {name: value for name, value in strings(event).items() if value and name not in ("data", "data_base64")}
    return attributes | {name: value for name, value in strings(data).items() if value}


def _of_subject(event: dict[str, Any]) -> tuple[str, str]:
    found = OF_SUBJECT.search(text(event.get("subject")))
    return (found["model"], found["model_version"] or "") if found else ("", "")


def _data(event: dict[str, Any]) -> Any:
    encoded = event.get("data_base64")
    if isinstance(encoded, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(base64.b64decode(encoded, validate=True))
        return None
    return event.get("data")


FORMAT = Format(
    "cloudevents",
    read,
    together=list,
    header_prefix="ce-",
    media_types=(STRUCTURED, BATCH, "application/json"),
    accepts=accepts,
    is_paced=True,
    token_in_query=True,
)
