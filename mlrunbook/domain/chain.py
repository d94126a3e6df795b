"""An incident's hash chain: what one link is, the head that is sent out, and the words for what no longer fits.

The chain has two strands, both append-only: the timeline's entries, and one event for every row written of what an auditor rests on
(incident, plans, approvals, journal, records, evidence, action items). A head names the length of both and one hash over their last links:
"31/57 9f3a... a1b2c3-5d2e...". The last part is an HMAC-SHA256 under a key that the database does not hold.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from mlrunbook.domain.errors import Invalid

GENESIS = "0" * 64
SHORT = 24  # characters: 96 bits of each are enough against a forger, and a page stays readable
KEY_ID = 6
UNSIGNED = "unsigned"
_HEAD = re.compile(
    rf"(?:chain\s+)?(\d{{1,9}})/(\d{{1,9}})\s+([0-9a-f]{{{SHORT}}})(?:\s+([0-9a-f]{{{KEY_ID}}}-[0-9a-f]{{{SHORT}}}|{UNSIGNED}))?", re.I
)


def link(values: Mapping[str, Any], prev: str) -> str:
    """The hash of one link: its values, its time and the hash of the link before it."""
    return hashlib.sha256(canonical(values, prev)).hexdigest()


def canonical(values: Mapping[str, Any], prev: str) -> bytes:
    """What is hashed, as JSON that has one form."""
    return json.dumps({**values, "at": values["at"].isoformat(), "prev": prev}, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, order=True)
class Length:
    """How many links of each strand."""

    entries: int = 0
    events: int = 0

    def __str__(self) -> str:
        return f"{self.entries}/{self.events}"

    @property
    def words(self) -> str:
        return f"{self.entries} timeline entries and {self.events} row events"


@dataclass(frozen=True)
class Head:
    """Where a chain stood. `hash` is short; `signature` None: it was sent out unsigned."""

    length: Length
    hash: str
    signature: str | None = None

    def __str__(self) -> str:
        return f"{self.length} {self.hash} {self.signature or UNSIGNED}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """As a page shows it, or as `str` writes it."""
        found = _HEAD.search(text.replace("·", " "))
        if found is None:
            raise Invalid(
                f"{text[:80]!r} is no head: copy the last line of a page, such as 'Chain 31/57 9f3a... a1b2c3-5d2e...'", field="head"
            )
        entries, events, hash_, signature = found.groups()
        if signature is None and (rest := found.string[found.end() :].partition("\n")[0].strip()):
            raise Invalid(f"{rest[:80]!r} is no signature: copy the whole last line of the page, to its end", field="head")
        signed = None if signature is None or signature.lower() == UNSIGNED else signature.lower()
        return cls(Length(int(entries), int(events)), hash_.lower(), signed)


def head_of(length: Length, last_entry: str, last_event: str) -> Head:
    return Head(length, hashlib.sha256(f"{last_entry}{last_event}".encode()).hexdigest()[:SHORT])


def signed(incident_id: str, head: Head, keys: Sequence[str]) -> Head:
    """By the first key; without one it stays unsigned."""
    return Head(head.length, head.hash, _signature(incident_id, head, keys[0])) if keys else head


@cache
def key_id(key: str) -> str:
    """Names a key without giving it away."""
    return hashlib.sha256(b"mlrunbook chain key\n" + key.encode()).hexdigest()[:KEY_ID]


def _signature(incident_id: str, head: Head, key: str) -> str:
    said = f"mlrunbook chain\n{incident_id}\n{head.length}\n{head.hash}"
    return f"{key_id(key)}-{hmac.digest(key.encode(), said.encode(), 'sha256').hex()[:SHORT]}"


class Proof(StrEnum):
    """What a head's signature is worth to somebody with these keys."""

    GOOD = "good"
    FORGED = "forged"
    OTHER_KEY = "other_key"
    UNSIGNED = "unsigned"


def proof(incident_id: str, head: Head, keys: Sequence[str]) -> Proof:
    if head.signature is None:
        return Proof.UNSIGNED
    for key in keys:
        if head.signature.startswith(f"{key_id(key)}-"):
            return Proof.GOOD if hmac.compare_digest(head.signature, _signature(incident_id, head, key)) else Proof.FORGED
    return Proof.OTHER_KEY


@dataclass(frozen=True)
class Witness:
    """A head that was sent out, and where it stands: a page, an anchor file, the timeline's own note of a page."""

    head: Head
    source: str


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was written. `entry`: of the timeline."""

    sentence: str
    entry: int | None = None


ENTRY_GONE = "Entry {} of the timeline is gone"
ENTRY_CHANGED = "Entry {} of the timeline was changed after it was written"
ENTRY_PUT_IN = "Entry {} of the timeline was put into the database past mlrunbook: entries are numbered from 1"
EVENT_GONE = "Row event {} is gone"
EVENT_CHANGED = "Row event {} was changed after it was written"
TOO_DEEP = "The chain holds a value that is nested deeper than mlrunbook writes any: it was changed, and what is after it was not read"
EVENT_PUT_IN = "Row event {} was put into the database past mlrunbook: events are numbered from 1"


def unlike(witness: Witness, proved: Proof, stands: Length, hash_now: str | None) -> Fault | None:
    """What a witness says against the chain of length `stands`, whose hash at the witness's length is `hash_now` now."""
    head = witness.head
    if proved is Proof.FORGED:
        return Fault(f"The head {head.length} in {witness.source} has a signature that our key did not make: somebody forged it")
    if head.length.entries > stands.entries or head.length.events > stands.events:
        lost = ", ".join(
            f"{many - there} {what}"
            for many, there, what in (
                (head.length.entries, stands.entries, "timeline entries"),
                (head.length.events, stands.events, "row events"),
            )
            if many > there
        )
        return Fault(
            f"The end of the chain was cut off, or an older backup restored: {witness.source} saw {head.length.words}; {lost} are gone"
        )
    if head.hash != hash_now:
        return Fault(
            f"The chain was rewritten: its first {head.length.words} are not those that {witness.source} saw",
            head.length.entries or None,
        )
    return None


def foreign_event(table: str, key: str) -> str:
    row = f"{_NAMES.get(table, table)} {key}"
    return f"{row[:1].upper()}{row[1:]} cannot be compared: its last event is none that mlrunbook wrote"


def changed_row(table: str, key: str, written: Mapping[str, str | None] | None, found: Mapping[str, str | None] | None) -> str:
    """One row against its last event, in words. None: there is no such row, or none should be."""
    row = f"{_NAMES.get(table, table)} {key}"
    if written is None:
        return f"{row} was put into the database past mlrunbook: the chain has no event for it" if found else f"{row} fits"
    if found is None:
        return f"{row} was deleted from the database past mlrunbook"
    columns = sorted({name.removesuffix(DIGEST) for name, _ in written.items() ^ found.items()})
    said = (f"{column} was {_value(written, column)} and is {_value(found, column)}" for column in columns)
    return f"{row} was changed past mlrunbook: {'; '.join(said)}"


DIGEST = ":sha256"
_NAMES = {
    "incidents": "incident",
    "plans": "plan",
    "approvals": "approval",
    "actions": "change",
    "records": "record",
    "action_items": "action item",
}


def _value(row: Mapping[str, str | None], column: str) -> str:
    if f"{column}{DIGEST}" in row:
        return f"a text of SHA-256 {str(row[f'{column}{DIGEST}'])[:12]}"
    value = row.get(column)
    return "empty" if value is None else repr(value if len(value) <= 60 else value[:59] + "…")


def advice(incident_id: str) -> str:
    return (
        f"Compare with a backup and with the pages of that time (`mlrunbook incidents verify {incident_id} --head ...`), "
        "and find out who can write to the database"
    )


def said_at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
