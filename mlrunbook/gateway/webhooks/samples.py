"""A message of each format, signed as its sender would: for `mlrunbook webhook test` and for tests.

Resolved unless asked otherwise: a gateway that knows no tests opens nothing for it either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from mlrunbook.gateway.webhooks.signatures import TOKEN_HEADER

NAME, SUMMARY = "WebhookTest", "A test message of mlrunbook webhook test"


def sample(form: str, model: str, *, now: datetime, firing: bool = False, name: str = NAME, summary: str = SUMMARY) -> Any:
    """The JSON of one message about `model`."""
    at, key = now.astimezone(UTC).isoformat().replace("+00:00", "Z"), uuid.uuid4().hex
    status = "firing" if firing else "resolved"
    labels = {"alertname": name, "severity": "warning", "model": model}
    alert = {"status": status, "labels": labels, "annotations": {"summary": summary}, "startsAt": at, "fingerprint": key[:16]}
    samples: dict[str, Any] = {
        "alertmanager": {"version": "4", "status": status, "groupKey": "{}", "truncatedAlerts": 0, "alerts": [alert]},
        "grafana": {"version": "1", "status": status, "orgId": 1, "truncatedAlerts": 0, "alerts": [alert]},
        "datadog": {
            "alert_cycle_key": key,
            "alert_transition": "Triggered" if firing else "Recovered",
            "alert_type": "warning",
            "alert_title": name,
            "alert_status": summary,
            "date": str(int(now.timestamp() * 1000)),
            "tags": f"model:{model},monitor",
        },
        "pagerduty": {
            "event": {
                "id": key,
                "event_type": "incident.triggered" if firing else "incident.resolved",
                "occurred_at": at,
                "agent": None,
                "data": {
                    "id": key[:8],
                    "type": "incident",
                    "created_at": at,
                    "title": summary,
                    "service": {"summary": model},
                    "custom_fields": [{"name": "model", "value": model}],
                    "urgency": "low",
                },
            }
        },
        "opsgenie": {
            "action": "Create" if firing else "Close",
            "alert": {
                "alertId": key,
                "message": summary,
                "tags": [f"model:{model}", f"alertname:{name}"],
                "createdAt": int(now.timestamp() * 1000),
                "username": NAME,
                "priority": "P3",
            },
        },
        "cloudevents": {
            "specversion": "1.0",
            "type": name if firing else f"{name}.resolved",
            "source": "/mlrunbook/webhook-test",
            "id": key,
            "time": at,
            "datacontenttype": "application/json",
            "data": {"model": model, "severity": "warning", "summary": summary},
        },
        "mlflow": {
            "entity": "model_version_alias",
            "action": "created",
            "timestamp": at,
            "data": {"name": model, "alias": name, "version": summary},
        },
        "pagerduty-events": {
            "event_action": "trigger" if firing else "resolve",
            "dedup_key": key,
            "payload": {
                "summary": summary,
                "source": "mlrunbook webhook test",
                "severity": "warning",
                "class": name,
                "custom_details": {"model": model},
            },
        },
        "generic": {
            "status": status,
            "model": model,
            "kind": name,
            "severity": "warning",
            "summary": summary,
            "started_at": at,
            "dedup_key": key,
        },
    }
    return samples[form]


def as_sent(form: str, model: str, *, now: datetime, firing: bool = False) -> bytes:
    """A sample as it goes over the wire; a mail with its header."""
    if form != "email":
        return json.dumps(sample(form, model, now=now, firing=firing)).encode()
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = (
        f"[{'FIRING' if firing else 'RESOLVED'}] {NAME}",
        "webhook-test@localhost",
        "alerts@localhost",
    )
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@localhost>"
    mail.set_content(f"Model: {model}\nSeverity: warning\nSummary: {SUMMARY}\n")
    return mail.as_bytes()


def content_type(form: str, body: bytes = b"") -> str:
    if form != "cloudevents":
        return "application/json"
    return f"application/cloudevents{'-batch' if body.lstrip().startswith(b'[') else ''}+json"


def proof(form: str, secret: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers with which that sender proves itself by a secret."""
    stamp, delivery = str(int(now.timestamp())), uuid.uuid4().hex

    def digest(message: bytes) -> bytes:
        return hmac.digest(secret.encode(), message, hashlib.sha256)

    match form:
        case "grafana":
            signature = digest(f"{stamp}:".encode() + body).hex()
            return {"X-Grafana-Alerting-Timestamp": stamp, "X-Grafana-Alerting-Signature": signature}
        case "pagerduty":
            return {"X-PagerDuty-Signature": f"v1={digest(body).hex()}"}
        case "generic":
            return {"X-Hub-Signature-256": f"sha256={digest(body).hex()}"}
        case "mlflow":
            signature = base64.b64encode(digest(f"{delivery}.{stamp}.".encode() + body)).decode()
            return {"X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": stamp, "X-MLflow-Signature": f"v1,{signature}"}
        case "opsgenie" | "datadog":
            return {TOKEN_HEADER: secret}
        case _:
            return {"Authorization": f"Bearer {secret}"}
