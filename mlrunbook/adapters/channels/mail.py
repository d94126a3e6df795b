"""Mail by SMTP, all mails of one incident in one thread.

Address: `smtp://host:port/?to=a@example.com,b@example.com&from=runbook@example.com`, with `user:password@` before the host where it asks
for them; `smtps://` speaks TLS from the start, `smtp://` as soon as the server offers it. A password never goes over plain text but to
this machine. Threads: RFC 5322, section 3.6.4 (Message-ID, In-Reply-To, References).
"""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

SCHEMES = ("smtp", "smtps")
TIMEOUT_S = 15.0
DOMAIN = "mlrunbook.invalid"  # RFC 2606: of ids only, nobody is meant to write there
LOCAL = ("127.0.0.1", "::1", "localhost")


def send(message: Message, address: str, *, first_key: str | None) -> int:
    """How many recipients the server refused while it took others.

    `first_key` is the key of the incident's first mail to this channel, which the thread hangs on; None: this is the first.

    Transient when the server does not take it now, Refused when it never will.
    """
    parts = urlsplit(address)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    to = [one.strip() for one in query.get("to", "").split(",") if "@" in one]
    if not host or not to:
        raise Refused(f"{channel_variable(message.channel)} is no address of a mail server: write smtp://host:587/?to=team@example.com")
    mail = _mail(message, to, query.get("from") or f"mlrunbook@{host}", first_key)
    try:
        refused = _hand_over(mail, parts.scheme, host, port, unquote(parts.username or ""), unquote(parts.password or ""), message.channel)
    except smtplib.SMTPRecipientsRefused as error:
        raise _failed(message.channel, next(iter(error.recipients.values()))[0]) from None
    except smtplib.SMTPResponseException as error:
        raise _failed(message.channel, error.smtp_code) from None
    except (OSError, smtplib.SMTPException) as error:  # its text may hold what was said about the password
        raise Transient(f"channel {message.channel}: {host} does not take mail ({type(error).__name__})") from None
    return len(refused)


def _mail(message: Message, to: list[str], sender: str, first_key: str | None) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, sender, ", ".join(to)
    mail["Date"], mail["Message-ID"] = formatdate(), _id(message.key)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice answers it
    mail["X-Incident"] = line(message.incident_id)
    if first_key and first_key != message.key:
        mail["In-Reply-To"] = mail["References"] = _id(first_key)
    mail.set_content(message.body.encode(errors="replace").decode())
    return mail


def _id(key: str) -> str:
    return f"<{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:32]}@{DOMAIN}>"


def _hand_over(
    mail: EmailMessage, scheme: str, host: str, port: int | None, user: str, password: str, channel: str
) -> Mapping[str, object]:
    """The recipients that the server refused, where it took others."""
    context = ssl.create_default_context()
    kind = smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S, context=context) if scheme == "smtps" else None
    with kind or smtplib.SMTP(host, port or 587, timeout=TIMEOUT_S) as server:
        secure = kind is not None
        server.ehlo()
        if not secure and server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
            secure = True
        if user:
            if not secure and host not in LOCAL:
                raise Refused(f"channel {channel}: {host} offers no TLS, and a password is not sent without: use smtps://")
            server.login(user, password)
        return server.send_message(mail)


def _failed(channel: str, code: int) -> Transient | Refused:
    """4yz is worth another try, 5yz is not (RFC 5321, section 4.2.1)."""
    if code >= 500:
        return Refused(f"channel {channel}: the mail server refuses with {code}: check {channel_variable(channel)}")
    return Transient(f"channel {channel}: the mail server answered {code}")
