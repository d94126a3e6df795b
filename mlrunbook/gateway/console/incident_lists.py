"""What else the page of an incident lists: who was told, what was preserved, the law's deadlines, the timeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlrunbook.gateway.console.incident_view import When
from mlrunbook.store.timeline import Entry


@dataclass(frozen=True)
class Message:
    """A page or notice. `state`: delivered, waiting, not delivered (with the error), cancelled."""

    kind: str
    to: str
    channel: str
    text: str
    state: str
    note: str
    at: When

    @property
    def is_trouble(self) -> bool:
        return self.state == "not delivered"


def messages(rows: Iterable[Mapping[str, Any]], now: datetime) -> tuple[Message, ...]:
    """Of the outbox, newest first; what others wrote into a payload is shown as text, whatever shape it has."""
    found = [_message(row, now) for row in rows if row["kind"] in ("page", "message") and isinstance(row["payload"], Mapping)]
    return tuple(reversed(found))


def _message(row: Mapping[str, Any], now: datetime) -> Message:
    payload, error = row["payload"], str(row["last_error"] or "")
    state, at, note = "waiting", row["not_before"], error
    if row["delivered_at"] is not None:
        state, at, note = "delivered", row["delivered_at"], ""
    elif row["cancelled_at"] is not None:
        state, at, note = "cancelled", row["cancelled_at"], "no longer needed"
    elif row["attempts"] and error:
        state, note = "not delivered", f"tried {row['attempts']} times: {error}"
    text = str(payload.get("subject") or payload.get("reason") or "")
    return Message(
        "page" if row["kind"] == "page" else "notice", str(payload.get("to", "")), str(payload.get("channel", "")), text, state, note,
        When.of(at, now),
    )  # fmt: skip


@dataclass(frozen=True)
class EntryView:
    """A line of the timeline."""

    seq: int
    at: When
    kind: str
    actor: str
    text: str

    @classmethod
    def of(cls, entry: Entry) -> EntryView:
        actor = "" if entry.text.startswith(entry.actor) else entry.actor
        return cls(entry.seq, When.of(entry.at), entry.kind.replace("_", " "), actor, entry.text)


@dataclass(frozen=True)
class File:
    name: str
    size: str
    sha256: str
    at: When


def size_words(count: int) -> str:
    """
    >>> size_words(900), size_words(2048), size_words(5 << 20)
    ('900 bytes', '2 kB', '5.2 MB')
    """
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


@dataclass(frozen=True)
class ClockView:
    name: str
    law: str
    sentence: str
    runs: bool
    is_overdue: bool


@dataclass(frozen=True)
class DutyView:
    duty: str
    role: str
    name: str
