"""PagerDuty Events API v2: one alert an incident, triggered, acknowledged and resolved under one key.

Address: `pagerduty-events://ROUTING_KEY`, with `?host=events.eu.pagerduty.com` for another region (`&tls=no` for a host of a test).
Fields and answers: PagerDuty/developer-docs docs/events-API-v2. A trigger under the key of an alert that is open there joins it and
calls nobody anew: give each role that must be called a routing key of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx

from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.intake import OWN_KEY
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

SCHEME = "pagerduty-events"
HOST = "events.pagerduty.com"
TIMEOUT_S = 10.0
MAX_SUMMARY, MAX_BODY = 1024, 100_000  # characters; an event is at most 512 KB
SEVERITY = {"critical": "critical", "high": "error", "medium": "warning", "low": "info"}

Action = Literal["trigger", "acknowledge", "resolve"]


@dataclass(frozen=True)
class Service:
    routing_key: str
    url: str


def service(channel: str, address: str) -> Service:
    """Refused when the address is none; it is a secret and not repeated."""
    parts = urlsplit(address)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if len(parts.netloc) != 32 or not parts.netloc.isalnum():
        raise Refused(
            f"{channel_variable(channel)} is no {SCHEME}://ROUTING_KEY: the key of an Events API v2 integration has 32 characters"
        )
    scheme = "http" if query.get("tls") == "no" else "https"
    return Service(parts.netloc, f"{scheme}://{query.get('host', HOST)}/v2/enqueue")


def dedup_key(incident_id: str) -> str:
    return f"{OWN_KEY}{incident_id}"[:255]


def send(message: Message, address: str, action: Action = "trigger") -> str:
    """PagerDuty's answer in words. Transient on 429, 5xx and no answer; Refused on 400."""
    to = service(message.channel, address)
    event: dict[str, Any] = {
        "routing_key": to.routing_key,
        "dedup_key": dedup_key(message.incident_id),
        "event_action": action,
        "client": "mlrunbook",
    }
    if action == "trigger":
        event["payload"] = {
            "summary": message.subject[:MAX_SUMMARY],
            "source": "mlrunbook",
            "severity": SEVERITY.get(message.severity or "", "error"),
            "custom_details": {"incident_id": message.incident_id, "message": message.body[:MAX_BODY]},
        }
        if message.link:
            event |= {"client_url": message.link, "links": [{"href": message.link, "text": "Open in the console"}]}
    try:
        answer = httpx.post(to.url, json=event, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise Transient(f"channel {message.channel}: PagerDuty does not answer ({type(error).__name__})") from None
    if answer.status_code == 400:
        raise Refused(f"channel {message.channel}: PagerDuty refuses the event: {_said(answer)}")
    if not answer.is_success:
        raise Transient(f"channel {message.channel}: PagerDuty answered {answer.status_code}: {_said(answer)}")
    return f"PagerDuty answered {answer.status_code}: {_said(answer)}"


def _said(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        return line("; ".join([str(body["message"]), *map(str, body.get("errors", ()))]))[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.reason_phrase
