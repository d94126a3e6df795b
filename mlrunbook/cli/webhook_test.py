"""How `mlrunbook webhook test` delivers a message: as its sender would, marked as a test."""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlrunbook.cli import target
from mlrunbook.cli.incidents import connect
from mlrunbook.domain.errors import Invalid, Refused, Transient

PAGERDUTY_EVENTS, MAIL = "pagerduty-events", "email"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  the gateway listens there; from this machine it is reached by loopback
TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Message:
    """`at`: when the test was made; None: it is for real."""

    format: str
    mapping: str
    body: bytes
    at: datetime | None
    signed_at: datetime

    @property
    def place(self) -> str:
        return f"{self.format}/{self.mapping}" if self.mapping else self.format

    @property
    def mark(self) -> dict[str, str]:
        from mlrunbook.gateway.webhooks.explaining import TEST_HEADER

        return {TEST_HEADER: f"{self.at.timestamp():.0f}"} if self.at else {}


@dataclass(frozen=True)
class Delivered:
    """Where it went, what proved it, and what was answered."""

    to: str
    proven_by: str
    answer: Mapping[str, Any]


def deliver(message: Message, token_file: Path | None) -> Delivered:
    if message.format == MAIL:
        return _mail(message, token_file)
    return _post_event(message, token_file) if message.format == PAGERDUTY_EVENTS else _post(message, token_file)


def _post(message: Message, token_file: Path | None) -> Delivered:
    from mlrunbook.base.settings import webhook_secrets
    from mlrunbook.gateway.webhooks import samples

    secrets = webhook_secrets(message.place)
    proof = samples.proof(message.format, secrets[0], message.body, message.signed_at) if secrets else {}
    headers = {"Content-Type": samples.content_type(message.format, message.body)} | proof | message.mark
    with connect(token_file) as gateway:
        receipt = gateway.webhook(message.place, message.body, headers, signed=bool(secrets))
    return Delivered(f"/webhooks/{message.place}", "the secret" if secrets else "your token", receipt)


def _post_event(message: Message, token_file: Path | None) -> Delivered:
    """With the token where such a sender has its routing key."""
    try:
        event = json.loads(message.body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"an event of PagerDuty's Events API is JSON: {error}", field="file") from error
    if not isinstance(event, dict):
        raise Invalid("an event of PagerDuty's Events API is a JSON object", field="file")
    body = json.dumps(event | {"routing_key": target.gateway(token_file)[1]}).encode()
    with connect(token_file) as gateway:
        answer = gateway.webhook(message.place, body, {"Content-Type": "application/json"} | message.mark, signed=True)
    return Delivered(f"/webhooks/{message.place}", "your token as routing key", answer)


def _mail(message: Message, token_file: Path | None) -> Delivered:
    """To the gateway's own mailbox: it has no TLS, so not over a network."""
    env = target.environment()
    host, port = env.get("MLRUNBOOK_SMTP_HOST", LOOPBACK[0]), env.get("MLRUNBOOK_SMTP_PORT", "")
    if not port.isdecimal():
        raise Invalid("MLRUNBOOK_SMTP_PORT is not set: set it to the port that the gateway takes mail on, as it is set for the gateway")
    host = LOOPBACK[0] if host in EVERYWHERE else host
    if host not in LOOPBACK:
        raise Invalid(f"your token would go to {host} in plain text: run this on the gateway's machine", field="MLRUNBOOK_SMTP_HOST")
    token = target.gateway(token_file)[1]
    header = "".join(f"{name}: {value}\n" for name, value in message.mark.items()).encode()
    content = re.sub(rb"\r?\n", b"\r\n", header + message.body)
    try:
        with smtplib.SMTP(host, int(port), timeout=TIMEOUT_S) as client:
            client.ehlo()
            client.mail("webhook-test@localhost")
            code, said = client.rcpt(f"alerts+{token}@localhost")
            if code < 400:
                code, said = client.data(content)
    except smtplib.SMTPDataError as error:
        code, said = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
    except (OSError, OverflowError, smtplib.SMTPException) as error:
        raise Transient(f"no mailbox answers on {host}:{port} ({error}): has the gateway MLRUNBOOK_SMTP_PORT set?") from error
    words = said.decode("utf-8", "replace")
    if code >= 400:
        raise (Refused if code >= 500 else Transient)(f"the mailbox answers {code} {words}")
    return Delivered(f"the mailbox on {host}:{port}", "your token in the recipient", {"message": words.removeprefix("2.0.0 ")})
