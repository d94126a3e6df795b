"""Datadog monitor webhooks, with the payload of `deployments/receivers/datadog.json` (the body is the operator's own template).

Variables: docs.datadoghq.com/integrations/webhooks. `alert_cycle_key` stays the same from trigger to recovery: it is the identity.
"""

from __future__ import annotations

import re

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.gateway.webhooks.parsing import (
    LEVEL_OF_PRIORITY,
    Format,
    Reading,
    Received,
    body,
    fingerprint,
    model_in,
    nothing_of,
    strings,
    tags,
    text,
    time,
)

FIRING = ("triggered", "re-triggered", "no data", "re-no data", "warn", "re-warn", "renotify")
RESOLVED = ("recovered",)
LEVEL_OF_TYPE = {"error": "critical", "warning": "warning", "info": "info", "success": "info"}


def read(received: Received) -> list[Reading]:
    payload = received.payload
    if not isinstance(payload, dict):
        return nothing_of(received, "not a JSON object: this is no Datadog webhook")
    transition = text(payload.get("alert_transition")).lower()
    if transition not in FIRING + RESOLVED:
        return nothing_of(received, "`alert_transition` is none we know: use the payload of deployments/receivers/datadog.json")
    said = tags(payload.get("tags")) | tags(payload.get("alert_scope"))
    fields = {name: value for name, value in strings(payload).items() if value and name not in said}
    model, problem = model_in(fields | said, received.policy, what="tag")
    if problem:
        return nothing_of(received, problem)
    title = text(payload.get("alert_title"))
    name = said.get("alertname") or re.sub(r"^(\[[^\]]*\]\s*)+", "", title) or "alert"
    level = LEVEL_OF_PRIORITY.get(fields.get("alert_priority", "")) or LEVEL_OF_TYPE.get(fields.get("alert_type", ""), "")
    alert = NormalisedAlert(
        fingerprint=text(payload.get("alert_cycle_key")) or fingerprint(text(payload.get("alert_id")), said),
        firing=transition in FIRING,
        name=name,
        model=model,
        model_version=said.get("model_version") or said.get("version") or None,
        level="warning" if transition in ("warn", "re-warn") else level,
        incident_type=said.get("incident_type") or None,
        summary=fields.get("alert_status") or title or f"{name} on {model}",
        starts_at=time(payload.get("date")) or received.at,
        body=body(said | {"alertname": name}, fields),
        start_is_stated=False,
    )
    return [Reading([alert])]


FORMAT = Format("datadog", read)
