"""Delivers messages to a channel's address (PagerDuty, SMTP, else apprise), and as a file, which is the only way without one.

`<messages_dir>/<incident>/<NNN>-<key>.md` holds each message; `<messages_dir>/ledger.jsonl` one line per delivery. The ledger says
what was delivered: a message that could not be sent has its file, and no line yet. Safe from several processes. A disk that is full,
read-only or hangs keeps no message from its address: the file is what is missing then, and the log says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlrunbook.adapters.channels import mail, pagerduty
from mlrunbook.adapters.channels.delivery import scheme_of
from mlrunbook.adapters.channels.delivery_process import DeliveryProcesses
from mlrunbook.adapters.channels.rendering import block
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Transient
from mlrunbook.ports import Message

log = logging.getLogger(__name__)

LEDGER = "ledger.jsonl"
LOCK_S = 10.0  # it is held for milliseconds; one that is not let go is trouble of the disk
DISK_S = 3.0  # how long a message with an address waits for its file
MAX_HANGING = 4
POLL_S = 0.01

T = TypeVar("T")


class ChannelNotifier:
    """`address_of` gives the apprise URL of a channel, or None. URLs hold secrets: they are never logged nor put into an error."""

    def __init__(self, messages_dir: Path, address_of: Callable[[str], str | None], processes: DeliveryProcesses | None = None) -> None:
        self._dir = messages_dir
        self._address_of = address_of
        self._processes = processes or DeliveryProcesses()
        self._at_the_disk: set[threading.Thread] = set()

    def warm(self) -> None:
        """Take what the first page needs while there is enough of it: a process, with its descriptors."""
        try:
            self._processes.warm()
        except OSError as error:
            log.warning("no process to deliver with yet (%s): started with the first message", _why(error))

    def send(self, message: Message) -> None:
        """Deliver, and keep a file of it. Transient when the channel did not take it (the next try writes no second file);
        Refused when its address is not one.

        Sent again with the same key, an addressed channel gets it again: a repeated page is better than a missed one.
        """
        address = self._address_of(message.channel)
        if address is None:
            self._keep_as_file(message)
            return
        first_key = self._beside(lambda: self._first_key(message)) if scheme_of(address) in mail.SCHEMES else None
        by: str | None = None
        try:
            by = self._processes.deliver(message, address, first_key=first_key).by
        finally:  # sent or not, there is a file
            self._beside(lambda: self._file(message, by))

    def settle(self, message: Message, action: Literal["acknowledge", "resolve"]) -> bool:
        address = self._address_of(message.channel)
        if address is None or scheme_of(address) != pagerduty.SCHEME:
            return False
        self._processes.deliver(message, address, action=action)
        return True

    def has_address(self, channel: str) -> bool:
        return self._address_of(channel) is not None

    def _keep_as_file(self, message: Message) -> None:
        try:
            with self._locked():
                self._write(message)
                if not self._is_recorded(message.key):
                    self._record(message, delivered_by="file")
        except OSError as error:
            raise Transient(f"channel {message.channel} has no address, and its file cannot be written ({_why(error)})") from error

    def _file(self, message: Message, delivered_by: str | None) -> None:
        with self._locked():
            self._write(message)
            if delivered_by:
                self._record(message, delivered_by=delivered_by)

    def _beside(self, act: Callable[[], T]) -> T | None:
        """Do it in a thread beside; None, and a line in the log, when the disk refuses or hangs: that keeps no message with an address."""
        self._at_the_disk = {t for t in self._at_the_disk if t.is_alive()}
        if len(self._at_the_disk) >= MAX_HANGING:
            log.error("the folder of messages hangs: the message goes out without its file")
            return None
        done: Future[T] = Future()
        try:
            thread = threading.Thread(target=_into, args=(done, act), name="messages-folder", daemon=True)
            thread.start()
            return done.result(DISK_S)
        except TimeoutError:
            self._at_the_disk |= {thread}
            log.error("the folder of messages hangs: the message goes out without its file")
        except Exception as error:
            log.error("the folder of messages cannot be used: the message goes out without its file (%s)", error)
        return None

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
            until = time.monotonic() + LOCK_S
            while not _takes(lock.fileno()):
                if time.monotonic() > until:
                    raise TimeoutError("another process does not let go of the folder of messages")
                time.sleep(POLL_S)  # a lock of a file can be waited for without an end, or be asked for again
            yield


def _takes(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _into(done: Future[T], act: Callable[[], T]) -> None:
    try:
        done.set_result(act())
    except BaseException as error:
        done.set_exception(error)


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _as_file(message: Message) -> str:
    kind = "page" if message.page else "message"
    return f"{kind.capitalize()} to: {line(message.channel)}\nSubject: {line(message.subject)}\n\n{block(message.body)}\n"


def _file_name(text: str) -> str:
    """`text` as a safe file name, ":" written as "."; where more had to change, a digest keeps two different texts apart."""
    safe = re.sub(r"[^A-Za-z0-9_:-]+", "-", text).strip(":-")[:80].replace(":", ".")
    if "." not in text and safe == text.replace(":", "."):
        return safe
    return f"{safe}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}".lstrip("-")
