"""Alerts by mail: a small SMTP server beside the gateway, off unless MLRUNBOOK_SMTP_PORT is set.

A token of scope intake proves the sender: in the recipient (`alerts+mlrb_...@host`) or in the subject (`[mlrb_...]`). The message says
what it is about in lines such as `Model: predictive_maintenance`. 250 is answered when all of it is stored, 451 when the store is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.errors import Invalid, RunbookError
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, body, fingerprint, model_in, nothing_of, text, time
from mlrunbook.response.world import World

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
MAX_LINES = 200
TOKEN = re.compile(r"mlrb_[0-9a-f]{8}_[A-Za-z0-9_-]{30,60}")
FIELD = re.compile(r"^\s*([A-Za-z][A-Za-z _-]{0,30}?)\s*[:=]\s*(\S.*)$")
STATUS = re.compile(r"\b(firing|triggered|alerting|resolved|recovered|ok|closed)\b(:\d+)?", re.IGNORECASE)
OVER = ("resolved", "recovered", "ok", "closed")


def read(received: Received) -> list[Reading]:
    """`payload` is what `as_json` makes of a mail."""
    payload = received.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
        return nothing_of(received, "not a mail")
    subject, said = text(payload.get("subject")), _fields(payload["text"])
    delivery = text(payload.get("message_id")) or None
    model, problem = model_in({"subject": subject, "from": text(payload.get("from"))} | said, received.policy, what="line `Model: ...` or")
    if problem:
        return nothing_of(received, problem)
    found = STATUS.search(subject)
    status = said.get("status", found[1] if found else "firing").lower()
    name = said.get("alertname") or said.get("alert") or re.sub(r"\W+", " ", STATUS.sub("", subject)).strip() or "alert"
    alert = NormalisedAlert(
        fingerprint=fingerprint(model, name),
        firing=status not in OVER,
        name=name,
        model=model,
        model_version=said.get("model_version") or said.get("version") or None,
        level=said.get("severity", "").lower(),
        incident_type=said.get("incident_type") or None,
        summary=said.get("summary") or subject or f"{name} on {model}",
        starts_at=time(said.get("started_at")) or received.at,
        body=body(said | {"alertname": name}, {"subject": subject, "from": text(payload.get("from"))}),
        start_is_stated=False,
    )
    return [Reading([alert], delivery_id=delivery)]


def _fields(lines: str) -> dict[str, str]:
    """`Model name: x` as {"model_name": "x"}; the first line of a name counts, because a quoted mail stands below."""
    found: dict[str, str] = {}
    for line in lines.splitlines()[:MAX_LINES]:
        if match := FIELD.match(line):
            name = "_".join(match[1].split()).replace("-", "_")
            found.setdefault("modelId" if name == "modelId" else name.lower(), text(match[2]))
    return found


FORMAT = Format("email", read)


def as_json(mail: EmailMessage) -> bytes:
    """What is kept of a mail: its text, and no token."""
    part = mail.get_body(("plain", "html"))
    content = part.get_content() if part is not None else ""
    content = content if isinstance(content, str) else ""
    if part is not None and part.get_content_subtype() == "html":
        content = _Text.of(content)
    fields = {"subject": mail.get("Subject", ""), "from": mail.get("From", ""), "message_id": mail.get("Message-ID", ""), "text": content}
    return json.dumps({name: clean(TOKEN.sub("", str(value)).replace("[]", ""), 20_000) for name, value in fields.items()}).encode()


class _Text(HTMLParser):
    """The words of an HTML mail, a line a block."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = 0

    @classmethod
    def of(cls, html: str) -> str:
        reader = cls()
        reader.feed(html)
        return "".join(reader.words)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("script", "style")
        if tag in ("br", "p", "div", "tr", "li", "h1", "h2", "h3"):
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


class Inbox:
    """What aiosmtpd asks for each mail."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        return await asyncio.to_thread(self.deliver, envelope.content, [str(to) for to in envelope.rcpt_tos])

    def deliver(self, content: Any, recipients: list[str]) -> str:
        """The SMTP answer."""
        try:
            mail = message_from_bytes(content if isinstance(content, bytes) else b"", policy=policy.default)
            kept = as_json(mail)
            presented = TOKEN.findall(" ".join([*recipients, str(mail.get("Subject", ""))]))
        except (ValueError, LookupError, TypeError, AttributeError, IndexError, RecursionError) as error:
            log.info("a mail could not be read: %s", type(error).__name__)
            return "554 5.6.0 this mail cannot be read"
        try:
            sender = self._owner(presented)
            if sender is None:
                return "550 5.7.1 no valid token of scope intake in the recipient or the subject"
            receipt = ingest(self._world, FORMAT, received(kept, {}, self._world), kept, sender=sender.name)
        except RunbookError as error:
            log.warning("a mail waits at its sender: %s", error)
            return "451 4.3.0 the incident store does not answer, send it again"
        except Exception:
            log.exception("a mail could not be stored")
            return "451 4.3.0 it could not be stored, send it again"
        return f"250 2.0.0 stored: {receipt.accepted} taken in, {receipt.quarantined} quarantined"

    def _owner(self, presented: list[str]) -> Identity | None:
        with self._world.transaction() as conn:
            owners = [tokens.verify(conn, one) for one in presented[:5]]
        return next((owner for owner in owners if owner and Scope.INTAKE in owner.scopes), None)


class Mailbox:
    """The SMTP server in a thread of its own."""

    def __init__(self, world: World, host: str, port: int) -> None:
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # it would write recipients, and with them tokens
        self.port = port
        self._controller = Controller(Inbox(world), hostname=host, port=port, data_size_limit=MAX_BYTES, ident="mlrunbook", timeout=60)

    def start(self) -> None:
        """Invalid when the port is taken."""
        try:
            self._controller.start()
        except (OSError, TimeoutError) as error:
            where = f"{self._controller.hostname}:{self._controller.port}"
            raise Invalid(f"cannot take mail on {where} ({error}): choose another MLRUNBOOK_SMTP_PORT", field="smtp_port") from error

    def stop(self) -> None:
        self._controller.stop(no_assert=True)
