"""The ledger of a registry's aliases in the store: what moved, by whom as far as anybody knows, and a word of it on open incidents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from mlrunbook.base import db
from mlrunbook.domain import alias_moves
from mlrunbook.domain.alias_moves import FIRST_LOOK, US, Mark, Move, Seen
from mlrunbook.store import incidents, recent_changes, registry_moves, timeline

HINTS_OF = timedelta(days=1)
ALIAS_EVENT = "model_version_alias."  # of an MLflow webhook: a hint that something may have moved


class StoreLedger:
    """`ports.RegistryLedger`."""

    def __init__(self, engine: Callable[[], Engine], now: Callable[[], datetime]) -> None:
        self._engine, self._now = engine, now

    def moves(self, model: str) -> Sequence[Move]:
        with db.transaction(self._engine()) as conn:
            return registry_moves.of_model(conn, model)

    def mark(self, model: str) -> Mark:
        with db.transaction(self._engine()) as conn:
            return registry_moves.mark(conn, model)

    def begin(self, move: Move) -> Move:
        with db.transaction(self._engine()) as conn:
            registry_moves.lock(conn, move.model)
            earlier = registry_moves.with_key(conn, move.key) if move.key else None
            return earlier or registry_moves.put(conn, move)

    def answered(self, move: Move) -> None:
        with db.transaction(self._engine()) as conn:
            registry_moves.set_answered(conn, move)

    def saw(self, seen: Seen) -> Sequence[Move]:
        with db.transaction(self._engine()) as conn:
            if not any(self._found(conn, seen)):  # most looks: nothing is locked, nothing written
                return ()
            registry_moves.lock(conn, seen.model)
            new, fresh = self._found(conn, seen)
            registry_moves.put_versions(conn, seen.model, fresh, now=self._now())
            return [self._taken_down(conn, seen, move) for move in new]

    def _found(self, conn: Connection, seen: Seen) -> tuple[list[Move], dict[str, str]]:
        """What moved, and the versions that are new or made of something else."""
        now = self._now()
        moves, known = registry_moves.of_model(conn, seen.model), registry_moves.versions(conn, seen.model)
        new = alias_moves.found(seen, moves, now)
        if new and seen.mark is not None and seen.mark != registry_moves.mark(conn, seen.model):
            new = [move for move in new if move.id]  # it moved since this look: what it saw may be over, and the next one tells
        if new:
            new = alias_moves.found(replace(seen, hints=_hints(conn, seen, now)), moves, now)
        fresh = {version: what for version, what in (seen.versions or {}).items() if known.get(version) != what}
        return [*new, *alias_moves.altered(seen, known, now)], fresh

    def _taken_down(self, conn: Connection, seen: Seen, move: Move) -> Move:
        if move.id:
            registry_moves.set_made(conn, move)
            return move
        stored = registry_moves.put(conn, move)
        if move.seen_by not in (US, FIRST_LOOK):
            for incident in incidents.find(conn, model=seen.model, only_open=True):
                incidents.get(conn, incident.id, lock=True)
                timeline.append(conn, incident.id, "change", alias_moves.in_words(move), actor="registry", at=self._now())
        return stored


def is_hint(detail: object) -> bool:
    """A webhook about an alias: the ledger says whether it moved. Setting the same version again sends one as well."""
    event = detail.get("event") if isinstance(detail, dict) else None
    return isinstance(event, str) and event.startswith(ALIAS_EVENT)


def _hints(conn: Connection, seen: Seen, now: datetime) -> dict[str, datetime]:
    """By alias, when a webhook said that it came to name what it names now."""
    told = [c for c in recent_changes.of_model(conn, seen.model, since=now - HINTS_OF) if is_hint(c.detail)]
    hints: dict[str, datetime] = {}
    for change in told:  # newest first
        alias = str(change.detail.get("alias"))
        if alias in seen.aliases and change.detail.get("version") == seen.aliases[alias]:
            hints.setdefault(alias, min(change.at, now))
    return hints
