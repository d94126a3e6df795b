"""A team's own JSON: dotted paths in the policy (`intake.generic`) say where it keeps what an alert needs."""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.policy.intake import MODEL_LABELS
from mlrunbook.gateway.webhooks.parsing import (
    Format,
    Reading,
    Received,
    body,
    collect,
    fingerprint,
    model_in,
    nothing_of,
    strings,
    text,
    time,
    within,
)


def read(received: Received) -> list[Reading]:
    where = received.policy.generic.alerts
    if not isinstance(received.payload, dict | list):
        return nothing_of(received, "not a JSON object")
    parts = [received.payload] if where is None else within(received.payload, *where.split("."))
    if parts is None and where is not None:  # one alert alone, or some, as the quarantine keeps them
        parts = received.payload if isinstance(received.payload, list) else [received.payload]
    if not isinstance(parts, list):
        return nothing_of(received, f"`{where}` must be a list of alerts")
    usable, unusable = collect(parts, lambda part: _alert(part, received), list)
    return [Reading(usable, unusable)]


def _alert(part: Any, received: Received) -> NormalisedAlert | str:
    if not isinstance(part, dict | list):
        return "an alert must be a JSON object"
    paths, policy = received.policy.generic, received.policy

    def at(path: str) -> Any:
        return within(part, *path.split("."))

    said = strings(part)
    named = text(at(paths.model))
    model, problem = model_in(said | ({MODEL_LABELS[0]: named} if named else {}), policy, what="field")
    if problem:
        return problem
    status = text(at(paths.status)).lower()
    if status and status not in paths.firing + paths.resolved:
        return f"the status {status[:50]!r} is none of intake.generic.firing and intake.generic.resolved"
    name = text(at(paths.name)) or "alert"
    starts_at = time(at(paths.started_at))
    return NormalisedAlert(
        fingerprint=text(at(paths.fingerprint)) or fingerprint(model, name),
        firing=status not in paths.resolved or not status,
        name=name,
        model=model,
        model_version=text(at(paths.model_version)) or None,
        level=text(at(paths.level)).lower(),
        incident_type=text(at(paths.incident_type)) or None,
        summary=text(at(paths.summary)) or f"{name} on {model}",
        starts_at=starts_at or received.at,
        body=body(said | {"alertname": name}, {}),
        start_is_stated=False,
    )


FORMAT = Format("generic", read, together=list)
