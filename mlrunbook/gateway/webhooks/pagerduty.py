"""PagerDuty V3 webhooks: an incident there opens or joins one here, its acknowledgement is ours too. And PagerDuty change events.

Fields: PagerDuty/developer-docs docs/webhooks/01 to 04 and docs/events-API-v2/03 (change events). An incident that our own page made
carries our key (`mlrunbook:<incident id>`) and opens nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import CHANGE_KINDS
from mlrunbook.gateway.webhooks import pagerduty_events
from mlrunbook.gateway.webhooks.parsing import (
    ExternalNote,
    Format,
    Reading,
    Received,
    ReportedChange,
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
UPDATES = ("incident.priority_updated", "incident.service_updated")  # what may change how bad it is, or what it is about
FIELDS_COME = "incident.custom_field_values.updated"


def read(received: Received) -> list[Reading]:
    payload = received.payload
    event = within(payload, "event")
    if isinstance(event, dict):
        return _event(received, event)
    if isinstance(payload, dict) and payload.get("event_action") is not None:
        return pagerduty_events.read(received, payload)
    if isinstance(payload, dict) and isinstance(payload.get("payload"), dict):
        return [replace(reading, part=pagerduty_events.public(payload)) for reading in _change(received, payload["payload"])]
    return nothing_of(received, "neither a PagerDuty V3 webhook (`event`) nor an event of its Events API (`payload`)")


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
    if kind == FIELDS_COME and _id(data):  # of an incident that came without them
        facts = Facts(
            identity=_id(data),
            state=State.FIRING,
            state_because=f"its event_type is {kind}",
            identified_by="incident.id",
            title="",
            said=_custom_fields(data),
            summary="a PagerDuty incident",
            seen_at=time(event.get("occurred_at")),
            is_update=True,
        )
        return [Reading([facts], delivery_id=number)]
    if kind not in OPENS + RESOLVES + UPDATES or _is_merge(data):  # a ping, a status update: nothing to do here
        why = "a merged incident goes on as another" if _is_merge(data) else f"PagerDuty's {kind} neither opens nor ends anything"
        return [Reading(passed_over=why, delivery_id=number)]
    identity, own = text(data.get("id")), own_incident(text(data.get("incident_key")))
    words = []
    if kind == "incident.acknowledged":
        who = person_in("PagerDuty", within(event, "agent", "summary"))
        words = [ExternalNote("acknowledged", who, "", f"pagerduty:{number}", own, identity)]
    elif own and kind in RESOLVES:
        words = [ExternalNote("note", by, f"{by} resolved the page in PagerDuty", f"pagerduty:{number}", own, identity)]
    if own:
        return [Reading(words=words, passed_over="it is about a page of ours", delivery_id=number)]
    if not identity:
        return nothing_of(received, "the incident has no `id`")
    return [Reading([_facts(data, kind, identity)], words=words, delivery_id=number)]


def _is_merge(data: dict[str, Any]) -> bool:
    """It goes on as another incident, and has not ended."""
    return text(within(data, "resolve_reason", "type")) == "merge_resolve_reason"


def _custom_fields(data: dict[str, Any]) -> dict[str, str]:
    given = data.get("custom_fields")
    fields = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    return {text(one.get("name")): text(one.get("value")) for one in fields if text(one.get("name")) and text(one.get("value"))}


def _facts(data: dict[str, Any], kind: str, identity: str) -> Facts:
    """The PagerDuty incident as an alert. It has no labels: what the policy maps is its service, title, key, team and custom fields."""
    said = {
        "service": text(within(data, "service", "summary")),
        "service_id": text(within(data, "service", "id")),
        "title": text(data.get("title")),
        "incident_key": text(data.get("incident_key")),
        "team": text(within(data, "teams", "0", "summary")),
        "priority": text(within(data, "priority", "summary")),
        "urgency": text(data.get("urgency")),
    } | _custom_fields(data)
    said = {name: value for name, value in said.items() if value}
    return Facts(
        identity=identity,
        state=State.RESOLVED if kind in RESOLVES else State.FIRING,
        state_because=f"its event_type is {kind}",
        identified_by="id",
        is_update=kind in UPDATES,
        title=said.get("title", ""),
        said=said,
        summary=said.get("title") or "a PagerDuty incident",
        starts_at=None if kind == "incident.reopened" else time(data.get("created_at")),
        kept={"annotations": {"url": text(data.get("html_url"))}},
    )


def _change(received: Received, change: dict[str, Any]) -> list[Reading]:
    said = {name: value for name, value in strings(change).items() if value} | strings(change.get("custom_details"))
    kind = said.get("kind", "")
    version = said.get("version") or said.get("model_version") or ""
    if kind not in CHANGE_KINDS:
        kind = "deployment" if version else "infrastructure"
    made = Change(
        kind=kind,
        ref=version or said.get("summary") or "a change",
        author=said.get("author") or said.get("source") or "PagerDuty change event",
        at=time(change.get("timestamp")) or received.at,
        detail=said,
    )
    because = "its custom details say which kind" if said.get("kind") == kind else f"it names {'a' if version else 'no'} version"
    facts = Facts("", State.FIRING, said.get("summary", ""), said, state_because=because)
    return [Reading(changes=[ReportedChange(facts, made)])]


def _id(data: dict[str, Any]) -> str:
    """A note names its incident by reference."""
    return text(within(data, "incident", "id"))


FORMAT = Format("pagerduty", read)
