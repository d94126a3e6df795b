"""Sends one message by the address of its channel: PagerDuty, SMTP, else whatever apprise knows. Here and now, in this process."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from mlrunbook.adapters.channels import mail, pagerduty
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

if TYPE_CHECKING:
    from apprise import NotifyBase


HIDDEN = "***"


class Delivery(NamedTuple):
    """What took a message, as the ledger names it, what it said, and how many of its recipients it refused."""

    by: str
    said: str
    refused: int = 0


def deliver(message: Message, address: str, *, first_key: str | None = None) -> Delivery:
    """Send it by the channel's address. Transient when the channel did not take it, Refused when its address is not one. What apprise said
    of the failure, without the address, is in the notes of the error.

    `first_key`: the key of the incident's first mail, on which a mail's thread hangs.
    """
    scheme = scheme_of(address)
    plain = replace(message, subject=_without_mentions(line(message.subject)), body=_without_mentions(message.body))
    if scheme == pagerduty.SCHEME:
        return Delivery(scheme, pagerduty.send(plain, address))
    if scheme in mail.SCHEMES:
        refused = mail.send(plain, address, first_key=first_key)
        return Delivery(scheme, f"the mail server took it{f', but refused {refused} of its recipients' if refused else ''}", refused)
    target = _target(message.channel, address)
    try:
        with _apprise_log() as said:
            sent = target.notify(body=plain.body or plain.subject, title=plain.subject, body_format="text")
    except Exception as error:  # a plugin's own error; its text may hold the address, so it is not repeated
        raise Transient(f"channel {message.channel} failed with {type(error).__name__}: {_advice(message.channel)}") from None
    if not sent:
        failed = Transient(f"channel {message.channel} did not take the message: {_advice(message.channel)}")
        for row in said.getvalue().splitlines():
            failed.add_note(_without(address, row))
        raise failed
    return Delivery("apprise", f"{target.service_name or type(target).__name__} accepted it")


def scheme_of(address: str) -> str:
    return address.partition("://")[0].lower()


def _target(channel: str, address: str) -> NotifyBase:
    import apprise  # 0.2 s and more: only where something is sent

    target = apprise.Apprise.instantiate(address)
    if target is None:
        raise Refused(f"{channel_variable(channel)} is not an address apprise knows; write it as in slack://... or mailto://...")
    if "redirect=" not in address:
        target.redirects = False  # a sign-in page that answers 200 after a redirect would count as delivered
    if "overflow=" not in address:
        target.overflow_mode = apprise.OverflowMode.SPLIT  # a list too long for one message becomes two, never a cut list
    return target


def _apprise_log() -> Any:
    """Why a delivery failed: apprise itself returns no more than a no."""
    import apprise

    capture: Any = apprise.LogCapture
    return capture(level=logging.WARNING, fmt="%(message)s")


def _without(address: str, said: str) -> str:
    """No part of the address is repeated: any may be the secret."""
    parts = {unquote(part) for part in re.split(r"[/:@?&=#,]+", address.rpartition("://")[2])}
    for part in sorted((p for p in parts if len(p) >= 4), key=len, reverse=True):
        said = said.replace(part, HIDDEN)
    return said


def _advice(channel: str) -> str:
    return f"check {channel_variable(channel)} and that the service answers"


def _without_mentions(text: str) -> str:
    """Alert text must not ping a whole channel: a word joiner, which nobody sees, takes the effect from @here and <!channel>."""
    return re.sub(r"(<!|@)(?=(?:everyone|here|channel|subteam)\b)", "\\1\u2060", text)
