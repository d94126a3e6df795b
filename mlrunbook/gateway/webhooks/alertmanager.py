"""Prometheus Alertmanager webhook messages, version 4, as alerts of ours.

Fields: prometheus/alertmanager docs/configuration.md#webhook_config and notify/webhook/webhook.go. `notification_reason` (0.33 and
later) is not needed, so older senders work as well. Grafana alerting sends the same members of `alerts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.gateway.webhooks.parsing import (
    Format,
    Reading,
    Received,
    Together,
    body,
    collect,
    fingerprint,
    model_in,
    nothing_of,
    strings,
    text,
    time,
    truncated,
)

VERSION = "4"


def read(received: Received) -> list[Reading]:
    """Each element of `alerts` ends in exactly one list; a payload that is no version 4 message is one unusable part."""
    payload = received.payload
    if not isinstance(payload, dict):
        return nothing_of(received, "not a JSON object: this is no Alertmanager message")
    if payload.get("version") not in (VERSION, int(VERSION)):
        return nothing_of(received, 'not an Alertmanager message of version 4: `version` must be "4"')
    if not isinstance(payload.get("alerts"), list):
        return nothing_of(received, "not an Alertmanager message of version 4: `alerts` must be a list")
    return [members(payload, received.policy, together)]


def members(payload: Mapping[str, Any], policy: IntakePolicy, together: Together) -> Reading:
    """The members of `alerts`, as Alertmanager and Grafana send them."""
    usable, unusable = collect(payload["alerts"], lambda part: _alert(part, policy), together)
    return Reading(usable, unusable, truncated(payload.get("truncatedAlerts")))


def _alert(part: Any, policy: IntakePolicy) -> NormalisedAlert | str:
    """The alert, or the sentence that says why it is none."""
    if not isinstance(part, dict):
        return "an alert must be a JSON object"
    labels, annotations = strings(part.get("labels")), strings(part.get("annotations"))
    model, problem = model_in(labels, policy)
    if problem:
        return problem
    status = part.get("status")
    if status not in ("firing", "resolved"):
        return "status must be firing or resolved"
    starts_at = time(part.get("startsAt")) if isinstance(part.get("startsAt"), str) else None
    if starts_at is None:
        return "startsAt must be a time as in 2026-01-31T09:00:00Z"
    name = labels.get("alertname") or "alert"
    return NormalisedAlert(
        fingerprint=text(part.get("fingerprint")) or fingerprint(labels),
        firing=status == "firing",
        name=name,
        model=model,
        model_version=labels.get("model_version") or None,
        level=labels.get("severity", "").lower(),
        incident_type=labels.get("incident_type") or None,
        summary=annotations.get("summary") or annotations.get("description") or f"{name} on {model}",
        starts_at=starts_at,
        body=body(labels, annotations, startsAt=starts_at.isoformat(), generatorURL=text(part.get("generatorURL"))),
    )


def whole(part: Any, version: str = VERSION) -> Any:
    """One alert as a message, for the quarantine's replay."""
    return part if isinstance(part, dict) and "alerts" in part else together([part], version)


def together(parts: Sequence[Any], version: str = VERSION) -> Any:
    return {"version": version, "alerts": list(parts)}


FORMAT = Format("alertmanager", read, whole, together)
