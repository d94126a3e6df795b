"""Sends one message by the address of its channel: PagerDuty, SMTP, else whatever apprise knows. Here and now, in this process."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from mlrunbook.adapters.channels import mail, pagerduty
from mlrunbook.adapters.channels.rendering import Format, block, cut, format_of, inert, parts, rendered
from mlrunbook.domain.communication.console_links import LABEL
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

if TYPE_CHECKING:
    from apprise import NotifyBase, NotifyType


MAX_TITLE = 250
AROUND_TITLE = 40  # what apprise puts around a title that it sends within the body
MIN_BODY = 100


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
    plain = replace(message, subject=inert(line(message.subject)), body=inert(block(message.body)))
    if scheme == pagerduty.SCHEME:
        return Delivery(scheme, pagerduty.send(plain, address))
    if scheme in mail.SCHEMES:
        refused = mail.send(plain, address, first_key=first_key)
        return Delivery(scheme, f"the mail server took it{f', but refused {refused} of its recipients' if refused else ''}", refused)
    target = _target(message.channel, address)
    try:
        with _apprise_log() as said:
            sent = all(
                target.notify(body=body, title=title, notify_type=_kind(message), body_format="text")
                for title, body in _rendered(message, target)
            )
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


def _kind(message: Message) -> NotifyType:
    """What some services do depends on it: told of something that only informs, Opsgenie closes an alert and opens none."""
    import apprise

    return apprise.NotifyType.FAILURE if message.page else apprise.NotifyType.WARNING


def _format(target: Any) -> Format:
    return format_of(target.schemas())


def _rendered(message: Message, target: NotifyBase) -> Iterator[tuple[str, str]]:
    """Title and body of every message that this one becomes there, in the format that the service reads. Apprise itself escapes nothing
    where one target is notified."""
    form, subject = _format(target), line(message.subject)
    in_body = target.title_maxlen <= 0 or target.overflow_amalgamate_title
    most = min(target.title_maxlen, MAX_TITLE) if target.title_maxlen > 0 else MAX_TITLE
    title = cut(subject, Format.SLACK_TITLE if form is Format.SLACK else form, most)
    room = max(MIN_BODY, target.body_maxlen - (len(title) + AROUND_TITLE if in_body else 0))
    text = block(message.body) or subject
    if message.link and len(label := f"{LABEL}{message.link}") >= room:  # a text message: an address in two pieces opens nothing
        text = "\n".join(one for one in text.split("\n") if one != label)
        yield ("" if in_body else title), rendered(label if len(label) < target.body_maxlen else message.link, form)
    for body in parts(text, form, room):
        yield title, body


def _target(channel: str, address: str) -> NotifyBase:
    import apprise  # 0.2 s and more: only where something is sent

    target = apprise.Apprise.instantiate(address)
    if target is None:
        raise Refused(f"{channel_variable(channel)} is not an address apprise knows; write it as in slack://... or mailto://...")
    if "redirect=" not in address:
        target.redirects = False  # a sign-in page that answers 200 after a redirect would count as delivered
    if "overflow=" not in address:
        target.overflow_mode = apprise.OverflowMode.SPLIT  # a list too long for one message becomes two, never a cut list
    # Whatever the address says of a format: what we send is text, and no markup of anybody's is to be read in it.
    target.notify_format = apprise.NotifyFormat.HTML if _format(target) is Format.HTML else apprise.NotifyFormat.TEXT
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
