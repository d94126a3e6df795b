"""CloudEvents 1.0 over HTTP: structured, batched and binary.

cloudevents/spec: spec.md, formats/json-format.md, bindings/http-protocol-binding.md; http-webhook.md for the handshake and the answers.
An event is an alert of its `type`; one whose data has a `kind` of change and a `ref` is a recent change.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import CHANGE_KINDS
from mlrunbook.gateway.webhooks.parsing import (
    Format,
    Reading,
    Received,
    ReportedChange,
    Unusable,
    body,
    fingerprint,
    model_in,
    nothing_of,
    over_limit,
    strings,
    text,
    time,
)

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
MAX_EVENTS = 1_000  # of one batch: each is a delivery of its own, and the order in which they come counts
REQUIRED = ("id", "source", "type")
OVER = re.compile(r"[._-](resolved|recovered|cleared)$")
OF_SUBJECT = re.compile(r"\bmodels/(?P<model>[^/]+)(/versions/(?P<model_version>[^/]+))?")


def accepts(headers: Mapping[str, str]) -> bool:
    """One of the three content modes; a structured event may also come as plain JSON without `ce-` headers, which the JSON shows."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in (STRUCTURED, BATCH) or (media_type in ("application/json", "") and "ce-specversion" in headers)


def read(received: Received) -> list[Reading]:
    """One reading an event, each with the event's own number."""
    if "ce-specversion" in received.headers:
        attributes = {name[3:]: unquote(value) for name, value in received.headers.items() if name.startswith("ce-")}
        return [_event(attributes | {"data": received.payload}, received)]
    if received.problem:
        return nothing_of(received, received.problem)
    events = received.payload if isinstance(received.payload, list) else [received.payload]
    over = [Reading(unusable=left)] if (left := over_limit(events, list, MAX_EVENTS)) else []
    return [replace(_event(event, received), part=event) for event in events[:MAX_EVENTS]] + over


def _event(event: Any, received: Received) -> Reading:
    if not isinstance(event, dict) or event.get("specversion") != "1.0" or not all(text(event.get(name)) for name in REQUIRED):
        return Reading(unusable=[Unusable(event, 'not a CloudEvent: it has `specversion` "1.0", `id`, `source` and `type`')])
    data = _data(event)
    said = _said(event, data)
    delivery = f"{text(event['source'])} {text(event['id'])}"
    model, problem = model_in(said, received.policy, what="field of its data")
    if problem:
        return Reading(unusable=[Unusable(event, problem)])
    at = time(event.get("time")) or received.at
    if said.get("kind") in CHANGE_KINDS and said.get("ref"):
        change = Change(said["kind"], said["ref"], said.get("author") or text(event["source"]), at, said)
        return Reading(changes=[ReportedChange(model, change)], delivery_id=delivery)
    return Reading([_alert(event, said, model, at)], delivery_id=delivery)


def _alert(event: dict[str, Any], said: dict[str, str], model: str, at: Any) -> NormalisedAlert:
    type_ = text(event["type"])
    plain = OVER.sub("", type_)
    name = said.get("alertname") or plain
    measured = " ".join(filter(None, (said.get("metric"), said.get("feature"), said.get("value"))))
    limit = f" against {said['threshold']}" if said.get("threshold") else ""
    return NormalisedAlert(
        fingerprint=fingerprint(text(event["source"]), plain, text(event.get("subject")), said.get("dedup_key", "")),
        firing=type_ == plain and said.get("status", "").lower() not in ("resolved", "recovered", "ok"),
        name=name,
        model=model,
        model_version=said.get("model_version") or said.get("version"),
        level=said.get("severity", "").lower(),
        incident_type=said.get("incident_type"),
        summary=said.get("summary") or said.get("message") or f"{name} on {model}" + (f": {measured}{limit}" if measured else ""),
        starts_at=at,
        body=body(said | {"alertname": name}, {}),
        start_is_stated=False,
        part=event,
    )


def _said(event: dict[str, Any], data: Any) -> dict[str, str]:
    """Attributes, then what the subject names, then the data: the later ones know better."""
    attributes = {name: value for name, value in strings(event).items() if value and name not in ("data", "data_base64")}
    of_subject = OF_SUBJECT.search(text(event.get("subject")))
    found = {k: v for k, v in of_subject.groupdict().items() if v} if of_subject else {}
    return attributes | found | {name: value for name, value in strings(data).items() if value}


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
