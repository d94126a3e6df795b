"""PagerDuty V3 webhooks: an incident there opens or joins one here, its acknowledgement is ours too. And PagerDuty change events.

Fields: PagerDuty/developer-docs docs/webhooks/01 to 04 and docs/events-API-v2/03 (change events). An incident that our own page made
carries our key (`mlrunbook:<incident id>`) and opens nothing.
"""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import CHANGE_KINDS
from mlrunbook.gateway.webhooks.parsing import (
    LEVEL_OF_PRIORITY,
    ExternalNote,
    Format,
    Reading,
    Received,
    ReportedChange,
    body,
    model_in,
    nothing_of,
    own_incident,
    person,
    person_in,
    strings,
    text,
    time,
    within,
)

OPENS = ("incident.triggered", "incident.acknowledged", "incident.reopened", "incident.escalated", "incident.unacknowledged")
RESOLVES = ("incident.resolved",)


def read(received: Received) -> list[Reading]:
    payload = received.payload
    event = within(payload, "event")
    if isinstance(event, dict):
        return _event(received, event)
    if isinstance(within(payload, "payload"), dict) and within(payload, "event_action") is None:
        return _change(received, payload["payload"])
    return nothing_of(received, "neither a PagerDuty V3 webhook (`event`) nor a change event (`payload`)")


def _event(received: Received, event: dict[str, Any]) -> list[Reading]:
    kind, number = text(event.get("event_type")), text(event.get("id")) or None
    data = event.get("data")
    if not kind or not isinstance(data, dict):
        return nothing_of(received, "a PagerDuty event has `event_type` and `data`")
    by = person(within(event, "agent", "summary"), otherwise="PagerDuty")
    if kind == "incident.annotated":
        words = [
            ExternalNote("note", by, f"{by} noted in PagerDuty: {text(data.get('content'), 1000)}", f"pagerduty:{number}", None, _id(data))
        ]
        return [Reading(words=words, delivery_id=number)]
    if kind not in OPENS + RESOLVES:  # a ping, a new priority, a status update: nothing to do here
        return [Reading(delivery_id=number)]
    identity, own = text(data.get("id")), own_incident(text(data.get("incident_key")))
    words = []
    if kind == "incident.acknowledged":
        who = person_in("PagerDuty", within(event, "agent", "summary"))
        words = [ExternalNote("acknowledged", who, "", f"pagerduty:{number}", own, identity)]
    elif own and kind in RESOLVES:
        words = [ExternalNote("note", by, f"{by} resolved the page in PagerDuty", f"pagerduty:{number}", own, identity)]
    if own:
        return [Reading(words=words, delivery_id=number)]
    alert = _alert(received, data, firing=kind in OPENS)
    if isinstance(alert, str):
        return nothing_of(received, alert)  # without the delivery's number: sent again after the policy is mended, it is read
    return [Reading([alert], words=words, delivery_id=number)]


def _alert(received: Received, data: dict[str, Any], *, firing: bool) -> NormalisedAlert | str:
    """The PagerDuty incident as an alert. It has no labels: what the policy maps is its service, title, key, team and custom fields."""
    said = {
        "service": text(within(data, "service", "summary")),
        "service_id": text(within(data, "service", "id")),
        "title": text(data.get("title")),
        "incident_key": text(data.get("incident_key")),
        "team": text(within(data, "teams", "0", "summary")),
        "priority": text(within(data, "priority", "summary")),
        "urgency": text(data.get("urgency")),
    }
    custom = data.get("custom_fields")
    if isinstance(custom, list):
        said |= {text(f.get("name")): text(f.get("value")) for f in custom if isinstance(f, dict) and text(f.get("name"))}
    said = {name: value for name, value in said.items() if value}
    model, problem = model_in(said, received.policy, what="custom field")
    if problem:
        return problem
    starts_at = time(data.get("created_at"))
    identity = text(data.get("id"))
    if not identity:
        return "the incident has no `id`"
    return NormalisedAlert(
        fingerprint=identity,
        firing=firing,
        name=said.get("title", "alert"),
        model=model,
        model_version=said.get("model_version"),
        level=LEVEL_OF_PRIORITY.get(said.get("priority", "")) or {"high": "critical", "low": "info"}.get(said.get("urgency", ""), ""),
        incident_type=said.get("incident_type"),
        summary=said.get("title") or f"PagerDuty incident on {model}",
        starts_at=starts_at or received.at,
        body=body(said, {"url": text(data.get("html_url"))}),
        start_is_stated=starts_at is not None,
    )


def _change(received: Received, change: dict[str, Any]) -> list[Reading]:
    said = {name: value for name, value in strings(change).items() if value} | strings(change.get("custom_details"))
    model, problem = model_in(said, received.policy, what="custom detail")
    if problem:
        return nothing_of(received, problem)
    kind = said.get("kind", "")
    version = said.get("version") or said.get("model_version") or ""
    if kind not in CHANGE_KINDS:
        kind = "deployment" if version else "infrastructure"
    told = Change(
        kind=kind,
        ref=version or said.get("summary") or "a change",
        author=said.get("author") or said.get("source") or "PagerDuty change event",
        at=time(change.get("timestamp")) or received.at,
        detail=said,
    )
    return [Reading(changes=[ReportedChange(model, told)])]


def _id(data: dict[str, Any]) -> str:
    """A note names its incident by reference."""
    return text(within(data, "incident", "id"))


FORMAT = Format("pagerduty", read)
