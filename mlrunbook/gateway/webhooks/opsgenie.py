"""Opsgenie outgoing webhooks (integration "Webhook"): created, acknowledged, closed, noted.

Fields: docs.opsgenie.com, webhook integration and alert action data. Opsgenie signs nothing: it sends a header that it is given.
"""

from __future__ import annotations

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.gateway.webhooks.parsing import (
    LEVEL_OF_PRIORITY,
    ExternalNote,
    Format,
    Reading,
    Received,
    body,
    model_in,
    nothing_of,
    own_incident,
    person,
    person_in,
    strings,
    tags,
    text,
    time,
    within,
)

FIRING = ("create", "acknowledge", "unacknowledge", "escalate")
RESOLVED = ("close", "delete")


def read(received: Received) -> list[Reading]:
    alert = within(received.payload, "alert")
    action = text(within(received.payload, "action")).lower()
    identity = text(within(alert, "alertId"))
    if not isinstance(alert, dict) or not action or not identity:
        return nothing_of(received, "not an Opsgenie webhook: it has `action` and `alert.alertId`")
    by = person(alert.get("username"), otherwise="Opsgenie")
    key = f"{identity}:{action}:{text(alert.get('updatedAt'))}"
    own = own_incident(text(alert.get("alias")))
    words = []
    if action == "acknowledge":
        words = [ExternalNote("acknowledged", person_in("Opsgenie", alert.get("username")), "", key, own, identity)]
    elif action == "addnote":
        words = [ExternalNote("note", by, f"{by} noted in Opsgenie: {text(alert.get('note'), 1000)}", key, own, identity)]
    elif own and action in RESOLVED:
        words = [ExternalNote("note", by, f"{by} closed the alert in Opsgenie", key, own, identity)]
    if own or action not in FIRING + RESOLVED:  # an alert that we sent ourselves opens nothing
        return [Reading(words=words)]
    said = tags(alert.get("tags")) | strings(alert.get("details"))
    fields = {name: value for name, value in strings(alert).items() if value and name not in said}
    model, problem = model_in(fields | said, received.policy, what="tag or detail")
    if problem:
        return nothing_of(received, problem)
    name = said.get("alertname") or text(alert.get("message")) or "alert"
    found = NormalisedAlert(
        fingerprint=identity,
        firing=action in FIRING,
        name=name,
        model=model,
        model_version=said.get("model_version") or said.get("version") or None,
        level=LEVEL_OF_PRIORITY.get(fields.get("priority", ""), ""),
        incident_type=said.get("incident_type") or None,
        summary=text(alert.get("message")) or f"{name} on {model}",
        starts_at=time(alert.get("createdAt")) or received.at,
        body=body(said | {"alertname": name}, fields),
        start_is_stated=time(alert.get("createdAt")) is not None,
    )
    return [Reading([found], words=words)]


FORMAT = Format("opsgenie", read)
