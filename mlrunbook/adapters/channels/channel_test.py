"""One test message through a channel, the way a page goes: by a delivery process, with a page's deadline. No incident knows of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from mlrunbook.adapters.channels import pagerduty
from mlrunbook.adapters.channels.delivery_process import PAGE_DEADLINE_S, DeliveryProcesses
from mlrunbook.domain.errors import Refused, RunbookError
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message


def pages(address: str) -> bool:
    """Whether a message by this address opens an alert that calls somebody until it is resolved."""
    return urlsplit(address).scheme == pagerduty.SCHEME


def message(channel: str, *, asked_by: str, at: datetime) -> Message:
    """Nobody can take it for an incident. Its key is its own, so that no alert of an incident is joined or resolved."""
    key = f"channel-test-{at:%Y%m%dT%H%M%S}Z-{secrets.token_hex(3)}"
    subject = f"[TEST] mlrunbook: test of the channel {channel}, there is no incident"
    body = f"This is a test. {asked_by} asked for it at {at:%Y-%m-%d %H:%M:%S} UTC with `mlrunbook channel test {channel}`.\nNothing to do."
    return Message(key, key, channel, subject, body, page=False, severity="high")


class ChannelTest:
    """Sends from a process of its own, which is killed at the deadline: a channel that hangs fails the test as it fails a page."""

    def __init__(self, *, deadline_s: float = PAGE_DEADLINE_S) -> None:
        self._processes = DeliveryProcesses(deadline_s=deadline_s)

    def __enter__(self) -> ChannelTest:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def send(self, test: Message, address: str) -> str:
        """What the service said. Refused, with its answer and without the address, when it did not take the message."""
        try:
            taken = self._processes.deliver(test, address)
        except RunbookError as error:
            raise Refused("; ".join([f"not delivered: {error}", *getattr(error, "__notes__", ())])) from error
        if taken.refused:
            raise Refused(f"not delivered to all: {taken.said}; check the recipients in {channel_variable(test.channel)}")
        return taken.said

    def ring(self, test: Message, address: str, *, meanwhile: Callable[[], None]) -> str:
        """Open a test alert, wait, resolve it: nobody stays paged, also when the wait is broken off."""
        said = self.send(test, address)
        try:
            meanwhile()
        finally:
            try:
                resolved = self._processes.deliver(test, address, action="resolve").said
            except RunbookError as error:
                open_ = f"the test alert {pagerduty.dedup_key(test.incident_id)} is still open: resolve it there by hand"
                raise Refused(f"{said}; but {open_} ({error})") from error
        return f"{said}; resolved again: {resolved}"
