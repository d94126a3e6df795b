"""One test message through a channel, on the way that pages go, and what came back. Neither store nor ledger knows of it."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from mlrunbook.adapters.channels import delivery, mail, pagerduty
from mlrunbook.domain.errors import Refused, RunbookError, Transient
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

HIDDEN = "***"


def pages(address: str) -> bool:
    """Whether a message by this address opens an alert that calls somebody until it is resolved."""
    return urlsplit(address).scheme == pagerduty.SCHEME


def message(channel: str, *, asked_by: str, at: datetime) -> Message:
    """Nobody can take it for an incident. Its key is its own, so that no alert of an incident is joined or resolved."""
    key = f"channel-test-{at:%Y%m%dT%H%M%S}Z-{secrets.token_hex(3)}"
    subject = f"[TEST] mlrunbook: test of the channel {channel}, there is no incident"
    body = f"This is a test. {asked_by} asked for it at {at:%Y-%m-%d %H:%M:%S} UTC with `mlrunbook channel test {channel}`.\nNothing to do."
    return Message(key, key, channel, subject, body, page=False, severity="high")


def send(test: Message, address: str) -> str:
    """What the service said. Refused, with its answer and without the address, when it did not take the message."""
    heard: list[str] = []
    try:
        with _listening(address, heard):
            taken = delivery.deliver(test, address)
    except Transient as error:
        raise Refused("; ".join([f"not delivered: {error}", *heard])) from error
    except RunbookError as error:  # of a wrong address: what is logged of it holds it
        raise Refused(f"not delivered: {error}") from error
    if taken.refused:
        raise Refused(f"not delivered to all: {taken.said}; check the recipients in {channel_variable(test.channel)}")
    return taken.said


def ring(test: Message, address: str, *, meanwhile: Callable[[], None]) -> str:
    """Open a test alert, wait, resolve it: nobody stays paged, also when the wait is broken off."""
    said = send(test, address)
    try:
        meanwhile()
    finally:
        try:
            resolved = pagerduty.send(test, address, "resolve")
        except RunbookError as error:
            open_ = f"the test alert {pagerduty.dedup_key(test.incident_id)} is still open: resolve it there by hand"
            raise Refused(f"{said}; but {open_} ({error})") from error
    return f"{said}; resolved again: {resolved}"


@contextlib.contextmanager
def _listening(address: str, heard: list[str]) -> Iterator[None]:
    """Collect what apprise logs of a failure: it returns no more than a no."""
    if pages(address) or urlsplit(address).scheme in mail.SCHEMES:
        yield
        return
    import apprise

    capture: Any = apprise.LogCapture
    with capture(level=logging.WARNING, fmt="%(message)s") as log:
        try:
            yield
        finally:
            heard += [_without(address, line) for line in log.getvalue().splitlines()]


def _without(address: str, said: str) -> str:
    """No part of the address is repeated: any may be the secret."""
    parts = {unquote(part) for part in re.split(r"[/:@?&=#,]+", address.rpartition("://")[2])}
    for part in sorted((p for p in parts if len(p) >= 4), key=len, reverse=True):
        said = said.replace(part, HIDDEN)
    return said
