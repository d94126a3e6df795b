"""Grafana alerting webhook messages, version 1: Alertmanager's alerts in an envelope of Grafana's own.

Fields: grafana/alerting templates/template_data.go and receivers/webhook/v1/webhook.go. A rule without data or with a failing query
fires as `DatasourceNoData` or `DatasourceError` with the rule's name in `rulename`.
"""

from __future__ import annotations

from typing import Any

from mlrunbook.gateway.alertmanager import alert
from mlrunbook.gateway.reading import Format, Reading, Received, collect, nothing_of, truncated

VERSION = "1"


def read(received: Received) -> list[Reading]:
    payload = received.payload
    if not isinstance(payload, dict) or payload.get("version") not in (VERSION, int(VERSION)):
        return nothing_of(received, 'not a Grafana alerting message: `version` must be "1"')
    if not isinstance(payload.get("alerts"), list):
        return nothing_of(received, "not a Grafana alerting message: `alerts` must be a list")
    usable, unusable = collect(payload["alerts"], lambda part: alert(part, received.policy))
    return [Reading(usable, unusable, truncated(payload.get("truncatedAlerts")))]


def whole(part: Any) -> Any:
    """One alert as a message, for the quarantine's replay."""
    return part if isinstance(part, dict) and "alerts" in part else {"version": VERSION, "alerts": [part]}


FORMAT = Format("grafana", read, whole)
