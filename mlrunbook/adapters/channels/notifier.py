"""Delivers messages to a channel's address (PagerDuty, SMTP, else apprise), and always as a file, which is the only way without one.

`<messages_dir>/<incident>/<NNN>-<key>.md` holds each message; `<messages_dir>/ledger.jsonl` one line per delivery. The ledger says
what was delivered: a message that could not be sent has its file, and no line yet. Safe from several processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mlrunbook.adapters.channels import mail, pagerduty
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.policy import channel_variable
from mlrunbook.ports import Message

if TYPE_CHECKING:
    from apprise import NotifyBase

LEDGER = "ledger.jsonl"


class Delivery(NamedTuple):
    """What took a message, as the ledger names it, what it said, and how many of its recipients it refused."""

    by: str
    said: str
    refused: int = 0


class ChannelNotifier:
    """`address_of` gives the apprise URL of a channel, or None. URLs hold secrets: they are never logged nor put into an error."""

    def __init__(self, messages_dir: Path, address_of: Callable[[str], str | None]) -> None:
        self._dir = messages_dir
        self._address_of = address_of

    def send(self, message: Message) -> None:
        """Write the file, then deliver. Transient when the channel did not take it (the next try writes no second file);
        Refused when its address is not one.

        Sent again with the same key, an addressed channel gets it again: a repeated page is better than a missed one.
        """
        address = self._address_of(message.channel)
        with self._locked():
            self._write(message)
            if address is None:
                if not self._is_recorded(message.key):
                    self._record(message, delivered_by="file")
                return
        # May take seconds: other processes must not wait for it.
        delivery = deliver(message, address, first_key=self._first_key(message) if _scheme(address) in mail.SCHEMES else None)
        with self._locked():
            self._record(message, delivered_by=delivery.by)

    def settle(self, message: Message, action: Literal["acknowledge", "resolve"]) -> bool:
        address = self._address_of(message.channel)
        if address is None or _scheme(address) != pagerduty.SCHEME:
            return False
        pagerduty.send(message, address, action)
        return True

    def has_address(self, channel: str) -> bool:
        return self._address_of(channel) is not None

    def _write(self, message: Message) -> None:
        """The message's file, whole or not at all; the same key keeps its file."""
        folder = self._dir / _file_name(message.incident_id)
        folder.mkdir(exist_ok=True)
        name = f"{_file_name(message.key)}.md"
        numbers = {rest: int(number) for number, _, rest in (path.name.partition("-") for path in folder.glob("[0-9]*-*.md"))}
        number = numbers.get(name) or max(numbers.values(), default=0) + 1
        path = folder / f"{number:03d}-{name}"
        temporary = path.with_suffix(".new")
        with open(temporary, "w", encoding="utf-8") as out:
            out.write(_as_file(message).encode(errors="replace").decode())
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)

    def _is_recorded(self, key: str) -> bool:
        return any(f'"key": {json.dumps(key)},' in entry for entry in self._ledger())

    def _first_key(self, message: Message) -> str | None:
        """The key of the first message of this incident that went out by this channel."""
        of_incident = f'"incident_id": {json.dumps(message.incident_id)},'
        for entry in self._ledger():
            if of_incident not in entry:
                continue  # reading every line of a long ledger as JSON would take seconds
            with contextlib.suppress(ValueError):  # a line that a crash cut short
                row = json.loads(entry)
                if (row["incident_id"], row["channel"]) == (message.incident_id, message.channel) and row["delivered_by"] != "file":
                    return str(row["key"])
        return None

    def _ledger(self) -> list[str]:
        try:
            return (self._dir / LEDGER).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _record(self, message: Message, *, delivered_by: str) -> None:
        entry: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(),
            "key": message.key,
            "incident_id": message.incident_id,
            "channel": message.channel,
            "subject": line(message.subject),
            "page": message.page,
            "delivered_by": delivered_by,
        }
        with open(self._dir / LEDGER, "a+b") as out:
            if out.tell() and (out.seek(-1, os.SEEK_END), out.read(1))[1] != b"\n":
                out.write(b"\n")  # a line that a crash cut short must not swallow this one
            out.write(json.dumps(entry).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._dir.mkdir(parents=True, exist_ok=True)
        with open(self._dir / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def deliver(message: Message, address: str, *, first_key: str | None = None) -> Delivery:
    """Send it by the channel's address. Transient when the channel did not take it, Refused when its address is not one.

    `first_key`: the key of the incident's first mail, on which a mail's thread hangs.
    """
    scheme = _scheme(address)
    plain = replace(message, subject=_without_mentions(line(message.subject)), body=_without_mentions(message.body))
    if scheme == pagerduty.SCHEME:
        return Delivery(scheme, pagerduty.send(plain, address))
    if scheme in mail.SCHEMES:
        refused = mail.send(plain, address, first_key=first_key)
        return Delivery(scheme, f"the mail server took it{f', but refused {refused} of its recipients' if refused else ''}", refused)
    target = _target(message.channel, address)
    try:
        sent = target.notify(body=plain.body or plain.subject, title=plain.subject, body_format="text")
    except Exception as error:  # a plugin's own error; its text may hold the address, so it is not repeated
        raise Transient(f"channel {message.channel} failed with {type(error).__name__}: {_advice(message.channel)}") from None
    if not sent:
        raise Transient(f"channel {message.channel} did not take the message: {_advice(message.channel)}")
    return Delivery("apprise", f"{target.service_name or type(target).__name__} accepted it")


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower()


def _target(channel: str, address: str) -> NotifyBase:
    import apprise  # 0.2 s and more: only where something is sent

    target = apprise.Apprise.instantiate(address)
    if target is None:
        raise Refused(f"{channel_variable(channel)} is not an address apprise knows; write it as in slack://... or mailto://...")
    if "overflow=" not in address:
        target.overflow_mode = apprise.OverflowMode.SPLIT  # a list too long for one message becomes two, never a cut list
    return target


def _advice(channel: str) -> str:
    return f"check {channel_variable(channel)} and that the service answers"


def _without_mentions(text: str) -> str:
    """Alert text must not ping a whole channel: a word joiner, which nobody sees, takes the effect from @here and <!channel>."""
    return re.sub(r"(<!|@)(?=(?:everyone|here|channel|subteam)\b)", "\\1\u2060", text)


def _as_file(message: Message) -> str:
    kind = "page" if message.page else "message"
    return f"{kind.capitalize()} to: {line(message.channel)}\nSubject: {line(message.subject)}\n\n{message.body}\n"


def _file_name(text: str) -> str:
    """`text` as a safe file name, ":" written as "."; where more had to change, a digest keeps two different texts apart."""
    safe = re.sub(r"[^A-Za-z0-9_:-]+", "-", text).strip(":-")[:80].replace(":", ".")
    if "." not in text and safe == text.replace(":", "."):
        return safe
    return f"{safe}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}".lstrip("-")
