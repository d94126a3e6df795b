"""Times without a zone: which offset from UTC holds when, so that any database can do the sum without knowing zones itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Offset:
    """`ahead_s` seconds ahead of UTC, for local times before `until` (naive); None: for all later ones."""

    until: datetime | None
    ahead_s: int


def offsets(zone: str, since: datetime, until: datetime) -> Sequence[Offset]:
    """Of the local times of [since, until). The hour that a clock shows twice counts as its first showing, as Python's `fold=0` has it.

    >>> offsets("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC))
    [Offset(until=datetime.datetime(2026, 3, 29, 3, 0), ahead_s=3600), Offset(until=None, ahead_s=7200)]
    """
    info, at = ZoneInfo(zone), since.astimezone(UTC)
    found, ahead_s = [], _ahead_s(info, at)
    while at < until:
        then = min(at + _DAY, until.astimezone(UTC))
        if _ahead_s(info, then) != ahead_s:
            changes = _changes_at(info, at, then)
            later_s = _ahead_s(info, changes)
            found.append(Offset(changes.replace(tzinfo=None) + timedelta(seconds=max(ahead_s, later_s)), ahead_s))
            ahead_s = later_s
        at = then
    return [*found, Offset(None, ahead_s)]


def local(at: datetime, zone: str) -> datetime:
    """What a clock in `zone` shows, without its zone."""
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def _ahead_s(info: ZoneInfo, at: datetime) -> int:
    offset = at.astimezone(info).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _changes_at(info: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second of the later offset."""
    was, low, high = _ahead_s(info, before), int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _ahead_s(info, datetime.fromtimestamp(middle, UTC)) == was else (low, middle)
    return datetime.fromtimestamp(high, UTC)
