"""Grafana alerting webhook messages, version 1: Alertmanager's alerts in an envelope of Grafana's own.

Fields: grafana/alerting templates/template_data.go and receivers/webhook/v1/webhook.go. A rule without data or with a failing query
fires as `DatasourceNoData` or `DatasourceError` with the rule's name in `rulename`.
"""

from __future__ import annotations

from functools import partial

from mlrunbook.gateway.webhooks import alertmanager
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, nothing_of

VERSION = "1"


def read(received: Received) -> list[Reading]:
    payload = received.payload
    if not isinstance(payload, dict) or payload.get("version") not in (VERSION, int(VERSION)):
        return nothing_of(received, 'not a Grafana alerting message: `version` must be "1"')
    if not isinstance(payload.get("alerts"), list):
        return nothing_of(received, "not a Grafana alerting message: `alerts` must be a list")
    return [alertmanager.members(payload, together)]


together = partial(alertmanager.together, version=VERSION)
FORMAT = Format("grafana", read, partial(alertmanager.whole, version=VERSION), together)
