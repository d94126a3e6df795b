"""Prometheus Alertmanager webhook messages, version 4, as alerts of ours.

Fields: prometheus/alertmanager docs/configuration.md#webhook_config and notify/webhook/webhook.go. `notification_reason` (0.33 and
later) is not needed, so older senders work as well.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks import MODEL_ID, Normalised, Unusable
from mlrunbook.intake import NormalisedAlert

MODEL_LABELS = ("model", "model_name", "modelId")
LABEL_CHARS = 500
MAX_TRUNCATED = 1_000_000_000


def normalise(payload: Any) -> Normalised:
    """(usable alerts, unusable parts, how many the sender cut off). Never raises, whatever JSON it is given.

    Each element of `alerts` ends in exactly one of the two lists; a payload that is no version 4 message is one unusable part.
    """
    if not isinstance(payload, dict):
        return [], [Unusable(payload, "not a JSON object: this is no Alertmanager message")], 0
    if payload.get("version") not in ("4", 4):
        return [], [Unusable(payload, 'not an Alertmanager message of version 4: `version` must be "4"')], 0
    if not isinstance(payload.get("alerts"), list):
        return [], [Unusable(payload, "not an Alertmanager message of version 4: `alerts` must be a list")], 0
    usable: list[NormalisedAlert] = []
    unusable: list[Unusable] = []
    for part in payload["alerts"]:
        found = _alert(part)
        if isinstance(found, NormalisedAlert):
            usable.append(found)
        else:
            unusable.append(Unusable(part, found))
    return usable, unusable, _truncated(payload.get("truncatedAlerts"))


def _alert(part: Any) -> NormalisedAlert | str:
    """The alert, or the sentence that says why it is none."""
    if not isinstance(part, dict):
        return "an alert must be an object"
    labels, annotations = _strings(part.get("labels")), _strings(part.get("annotations"))
    model = next((labels[name] for name in MODEL_LABELS if labels.get(name)), None)
    if model is None:
        return f"the alert names no model: give it a label {', '.join(MODEL_LABELS)}"
    if not MODEL_ID.fullmatch(model):
        return f"{model[:100]!r} is no model id: letters, digits, '.', '_' and '-', 100 at most"
    status = part.get("status")
    if status not in ("firing", "resolved"):
        return "status must be firing or resolved"
    starts_at = _time(part.get("startsAt"))
    if starts_at is None:
        return "startsAt must be a time as in 2026-01-31T09:00:00Z"
    name = labels.get("alertname") or "alert"
    return NormalisedAlert(
        fingerprint=_text(part.get("fingerprint")) or _fingerprint(labels),
        firing=status == "firing",
        name=name,
        model=model,
        model_version=labels.get("model_version") or None,
        level=labels.get("severity", "").lower(),
        incident_type=labels.get("incident_type") or None,
        summary=annotations.get("summary") or annotations.get("description") or f"{name} on {model}",
        starts_at=starts_at,
        body={
            "labels": labels,
            "annotations": annotations,
            "startsAt": starts_at.isoformat(),
            "generatorURL": _text(part.get("generatorURL")),
        },
    )


def _strings(mapping: Any) -> dict[str, str]:
    """Labels and annotations are strings by Alertmanager's own rules; anything else becomes its text."""
    if not isinstance(mapping, dict):
        return {}
    return {_text(key): clean(value) if isinstance(value, str) else _text(value) for key, value in mapping.items()}


def _text(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return ""
    return clean(value if isinstance(value, str) else json.dumps(value), LABEL_CHARS)


def _fingerprint(labels: dict[str, str]) -> str:
    """For a sender that gives none: the same for the same labels, as Alertmanager's own."""
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _truncated(value: Any) -> int:
    return min(value, MAX_TRUNCATED) if isinstance(value, int) and value > 0 else 0
