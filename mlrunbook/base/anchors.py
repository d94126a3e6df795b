"""Heads of chains kept outside of the database: `<data>/anchors/<incident>.jsonl`, one line a head, appended and synced.

Whoever can edit the database finds here what it said before. The file is read by `verify`; it is never rewritten.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from mlrunbook.domain.chain import Head, Length, Witness, key_id, said_at, signed
from mlrunbook.domain.errors import Invalid

_LINE = re.compile(rb'\{"entries": (\d+), ')
DISORDER_BYTES = 1 << 16  # two gateways append to one file: their lines are in order but for what both see in the same seconds
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")


@dataclass(frozen=True)
class Anchors:
    """`keys`: the first signs, all are believed; the database holds none of them."""

    folder: Path
    keys: Sequence[str] = ()

    @property
    def signs_with(self) -> str | None:
        """The id of the key."""
        return key_id(self.keys[0]) if self.keys else None

    def add(self, incident_id: str, head: Head, *, now: datetime) -> None:
        """Sign it and keep it."""
        head = signed(incident_id, head, self.keys)
        entry = {"entries": head.length.entries, "head": str(head), "at": now.isoformat()}
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file(incident_id), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            line = _after_a_torn_one(descriptor) + json.dumps(entry).encode() + b"\n"
            if os.write(descriptor, line) < len(line):  # one write: lines of two processes do not mix
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _file(self, incident_id: str) -> Path:
        if not _NAME.fullmatch(incident_id):
            raise Invalid(f"{incident_id[:100]!r} is no incident's id")
        return self.folder / f"{incident_id}.jsonl"

    def size(self, incident_id: str) -> int:
        """How much there is now: read before the chain, so that no anchor is newer than that."""
        try:
            return self._file(incident_id).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, incident_id: str, *, size: int, above: int, upto: int | None) -> Iterator[Witness]:
        """Those whose timeline had more than `above` entries, and at most `upto`. A line that a crash cut short says nothing."""
        if not size:
            return
        with open(self._file(incident_id), "rb") as lines:
            at, beyond = _begin(lines, size, above), 0
            lines.seek(at)
            for line in lines:
                at += len(line)
                if at > size or beyond > DISORDER_BYTES:
                    return
                number = _number(line)
                if number is not None and upto is not None and number > upto:
                    beyond += len(line)
                elif number is not None and number > above and (one := _witness(line)):
                    yield one

    def cut(self, incident_id: str, length: Length) -> None:
        """Leave out what is longer: after a restore, of which there is no chain."""
        file = self._file(incident_id)
        kept = [
            line for line in file.read_bytes().splitlines(keepends=True) if (w := _witness(line)) is None or _fits(w.head.length, length)
        ]
        file.write_bytes(b"".join(kept))

    def newest(self, incident_id: str) -> Witness | None:
        """The longest chain that was anchored."""
        there = self.read(incident_id, size=self.size(incident_id), above=-1, upto=None)
        return max(there, key=lambda w: w.head.length, default=None)

    def incidents(self) -> list[str]:
        """All that were ever anchored here."""
        if not self.folder.is_dir():
            return []
        return sorted(path.stem for path in self.folder.glob("*.jsonl") if _NAME.fullmatch(path.stem))


def _after_a_torn_one(descriptor: int) -> bytes:
    """What ends a line that a crash or a full disk cut short, or the next one would be lost with it."""
    size = os.fstat(descriptor).st_size
    return b"" if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"


def _begin(lines: IO[bytes], size: int, above: int) -> int:
    """Where a line with more than `above` entries may begin: lines are nearly in order, and a file may hold hundreds of thousands."""
    low, high = 0, size
    while high - low > DISORDER_BYTES:
        middle = (low + high) // 2
        lines.seek(middle)
        lines.readline()
        number = _number(lines.readline())
        low, high = (middle, high) if number is not None and number <= above else (low, middle)
    lines.seek(max(0, low - DISORDER_BYTES))
    if low > DISORDER_BYTES:
        lines.readline()  # the rest of one
    return lines.tell()


def _number(line: bytes) -> int | None:
    found = _LINE.match(line)
    return int(found[1]) if found else None


def _fits(one: Length, within: Length) -> bool:
    return one.entries <= within.entries and one.events <= within.events


def _witness(line: bytes) -> Witness | None:
    try:
        entry = json.loads(line)
        return Witness(Head.parse(entry["head"]), f"the anchor of {said_at(datetime.fromisoformat(entry['at']))}")
    except (ValueError, KeyError, TypeError, Invalid):
        return None
