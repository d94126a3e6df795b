"""What an alias of a model registry named, and when it moved. MLflow keeps no such history, so we keep our own.

A move of ours is written down before it is made (`made` false). One of somebody else is found by looking: then nobody knows who it was, and
when is the moment of that look, or the one that a webhook names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mlrunbook.domain.observed import Change

US, POLL, WEBHOOK, FIRST_LOOK = "us", "poll", "webhook", "first look"
SOMEBODY = "somebody (MLflow keeps no record of who)"


@dataclass(frozen=True)
class Move:
    """`before` and `after` None: the alias named nothing. `kind` is that of `observed.Change`, "seen" for what the first look found.

    `key`: the change of ours that it is, which is made once. `answered`: the servers have followed. `note`: in words, where the versions
    alone do not say it.
    """

    model: str
    alias: str
    before: str | None
    after: str | None
    at: datetime
    kind: str
    by: str
    seen_by: str = US
    key: str | None = None
    made: bool = True
    answered: bool = True
    note: str = ""
    id: int = 0


@dataclass(frozen=True)
class Mark:
    """How far a model's ledger was: its newest entry, and how many are made."""

    newest: int = 0
    made: int = 0


@dataclass(frozen=True)
class Seen:
    """One look at a model: what each alias that we follow names (None: nothing), and of each version the source and run it was made of
    (None: not looked at). `mark`: of the ledger before it; None: the look is newer than all of it."""

    model: str
    aliases: Mapping[str, str | None]
    versions: Mapping[str, str] | None = None
    serving_alias: str = "champion"
    hints: Mapping[str, datetime] = field(default_factory=dict)  # when a webhook says that the alias came to name what it names
    mark: Mark | None = None


def last_of(alias: str, moves: Sequence[Move]) -> Move | None:
    """The newest that was made; `moves` are newest first."""
    return next((m for m in moves if m.alias == alias and m.made), None)


def found(seen: Seen, moves: Sequence[Move], now: datetime) -> list[Move]:
    """What has moved since the newest of `moves`, which are newest first. A move of ours that was only begun, and is seen now, was made: it
    comes with its id."""
    new: list[Move] = []
    for alias, names in seen.aliases.items():
        last = last_of(alias, moves)
        if last is None and not (begun := _begun(alias, names, moves, 0)):
            new.append(Move(seen.model, alias, None, names, now, "seen", SOMEBODY, FIRST_LOOK))
        elif last is None or last.after != names:
            begun = _begun(alias, names, moves, last.id if last else 0)
            new.append(begun or _of_somebody(seen, alias, names, last, moves, now))
    return new


def _begun(alias: str, names: str | None, moves: Sequence[Move], after_id: int) -> Move | None:
    return next((m for m in moves if m.alias == alias and not m.made and m.after == names and m.id > after_id), None)


def _of_somebody(seen: Seen, alias: str, names: str | None, last: Move | None, moves: Sequence[Move], now: datetime) -> Move:
    before = last.after if last else None
    hint = seen.hints.get(alias)
    told = hint if hint and (last is None or hint > last.at) else None
    is_serving = alias == seen.serving_alias
    served = {m.after for m in moves if m.alias == alias and m.made}
    kind = "staging" if not is_serving else "config" if names is None else "rollback" if names in served else "deployment"
    note = ""
    if names is None and is_serving:
        gone = seen.versions is not None and before not in seen.versions
        why = f"version {before}, which served, was deleted" if gone else f"version {before} no longer carries the alias {alias}"
        note = f"{why}: the registry names no serving version of {seen.model}"
    return Move(seen.model, alias, before, names, told or now, kind, SOMEBODY, WEBHOOK if told else POLL, note=note)


def altered(seen: Seen, known: Mapping[str, str], now: datetime) -> list[Move]:
    """Versions that are made of something else than when we first saw them. MLflow changes none: somebody has changed its database."""
    return [
        Move(
            seen.model, "", version, version, now, "config", SOMEBODY, POLL,
            note=f"version {version} of {seen.model} is not what it was: its source was {known[version]} and is now {made_of}",
        )
        for version, made_of in (seen.versions or {}).items()
        if version in known and known[version] != made_of
    ]  # fmt: skip


def previous(alias: str, serving: str, moves: Sequence[Move]) -> str | None:
    """The version that served before `serving` did; None where nobody knows. A move of ours that was begun counts once the registry shows
    it."""
    for move in moves:
        if move.alias != alias or (not move.made and move.after != serving):
            continue
        for version in (move.after, move.before):
            if version not in (None, serving):
                return version
    return None


def deployed(alias: str, serving: str, moves: Sequence[Move]) -> Move | None:
    """The move that made `serving` serve; None where it did at the first look."""
    newest = next((m for m in moves if m.alias == alias and (m.made or m.after == serving)), None)
    return newest if newest and newest.after == serving and newest.kind != "seen" else None


def as_changes(moves: Sequence[Move], *, since: datetime) -> list[Change]:
    """Newest first; what the first look found is no change."""
    shown = [m for m in moves if m.made and m.kind != "seen" and m.at >= since]
    return sorted((_change(m) for m in shown), key=lambda c: c.at, reverse=True)


def _change(move: Move) -> Change:
    ref = move.note or move.after or f"{move.before} taken out of staging"
    versions = {"from_version": move.before, "to_version": move.after}
    return Change(move.kind, ref, move.by, move.at, {"alias": move.alias, "seen_by": move.seen_by, **versions})


def in_words(move: Move) -> str:
    """For the timeline of an open incident."""
    if move.note:
        return f"{move.note[0].upper()}{move.note[1:]}"
    names = f"names version {move.after}, before {move.before or 'none'}" if move.after else f"names no version; before {move.before}"
    return f"In the registry {move.alias} of {move.model} {names}; moved by {move.by}"
