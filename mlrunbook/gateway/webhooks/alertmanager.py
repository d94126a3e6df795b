"""Prometheus Alertmanager webhook messages, version 4, as alerts of ours.

Fields: prometheus/alertmanager docs/configuration.md#webhook_config and notify/webhook/webhook.go. `notification_reason` (0.33 and
later) is not needed, so older senders work as well. Grafana alerting sends the same members of `alerts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlrunbook.domain.detection.alerts import fingerprint
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, Together, collect, nothing_of, strings, text, time, truncated

VERSION = "4"
SUMMARIES = ("summary", "description", "message")  # the last one was kube-prometheus' for years and is OpenShift's
UNANSWERED = ("DatasourceError", "DatasourceNoData")


def read(received: Received) -> list[Reading]:
    """Each element of `alerts` ends in exactly one list; a payload that is no version 4 message is one unusable part."""
    payload = received.payload
    if not isinstance(payload, dict):
        return nothing_of(received, "not a JSON object: this is no Alertmanager message")
    if payload.get("version") not in (VERSION, int(VERSION)):
        return nothing_of(received, 'not an Alertmanager message of version 4: `version` must be "4"')
    if not isinstance(payload.get("alerts"), list):
        return nothing_of(received, "not an Alertmanager message of version 4: `alerts` must be a list")
    return [members(payload, together)]


def members(payload: Mapping[str, Any], together: Together) -> Reading:
    """The members of `alerts`, as Alertmanager and Grafana send them."""
    usable, unusable = collect(payload["alerts"], _alert, together)
    return Reading(usable, unusable, truncated(payload.get("truncatedAlerts")))


def _alert(part: Any) -> Facts | str:
    """What the alert says, or the sentence that says why it is none."""
    if not isinstance(part, dict):
        return "an alert must be a JSON object"
    labels, annotations = strings(part.get("labels")), strings(part.get("annotations"))
    status = part.get("status")
    if status not in ("firing", "resolved"):
        return "status must be firing or resolved"
    starts_at = time(part.get("startsAt")) if isinstance(part.get("startsAt"), str) else None
    if starts_at is None:
        return "startsAt must be a time as in 2026-01-31T09:00:00Z"
    title = labels.get("alertname", "")
    unanswered = _unanswered(title, annotations)
    summary = next((annotations[name] for name in SUMMARIES if annotations.get(name)), "")
    if unanswered:
        summary = f"Grafana cannot evaluate the rule {labels.get('rulename') or title}: {unanswered}. What it says of the model: nothing"
    return Facts(
        identity=text(part.get("fingerprint")) or fingerprint(labels),
        state=State(status),
        state_because=f"its status is {status}",
        identified_by="fingerprint" if text(part.get("fingerprint")) else "labels",
        title=title,
        said=labels,
        summary=summary,
        unanswered=unanswered,
        starts_at=starts_at,
        kept={"annotations": annotations, "startsAt": starts_at.isoformat(), "generatorURL": text(part.get("generatorURL"))},
    )


def _unanswered(title: str, annotations: Mapping[str, str]) -> str:
    """Grafana's own alerts about a rule whose data source does not answer, or answers nothing."""
    if title not in UNANSWERED:
        return ""
    why = annotations.get("Error") or annotations.get("error")
    return f"{title}: {why}" if why else title


def whole(part: Any, version: str = VERSION) -> Any:
    """One alert as a message, for the quarantine's replay."""
    return part if isinstance(part, dict) and "alerts" in part else together([part], version)


def together(parts: Sequence[Any], version: str = VERSION) -> Any:
    return {"version": version, "alerts": list(parts)}


FORMAT = Format("alertmanager", read, whole, together)
