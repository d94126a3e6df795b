"""Is an incident what was written of it? Its chain, its rows, its evidence, and the heads that were sent out, in the store and outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from sqlalchemy import Connection, select

from mlrunbook.domain.chain import Fault, Head, Length, Witness
from mlrunbook.domain.errors import NotFound
from mlrunbook.response.containment.evidence import check as check_evidence
from mlrunbook.response.world import World
from mlrunbook.store import chain_heads, integrity
from mlrunbook.store.tables import incidents

AT_ONCE = 1_000
T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """One page. `upto`: how far it went; `more`: the next page begins there, and what is of the whole comes with the last."""

    upto: Length
    more: bool
    faults: Sequence[Fault]
    broken_at: int | None = None
    evidence_faults: Sequence[str] | None = None
    heads: int = 0
    heads_signed: int = 0


def check(
    world: World, incident_id: str, *, after: Length = Length(), pasted: Head | None = None, links: int = integrity.PAGE_LINKS
) -> Checked:
    """A page of the chain after `after`, against every head that was sent out of it; with the last page also the rows and the evidence.

    `pasted`: a head that somebody has from a page, for the first page.
    """
    keys = world.anchors.keys if world.anchors else ()
    size = world.anchors.size(incident_id) if world.anchors else 0  # before the snapshot: what is newer is not held against it
    with world.transaction() as conn:
        integrity.snapshot(conn)
        _must_exist(conn, world, incident_id)
        page = integrity.read(conn, incident_id, after, links=links)
        tally = _Tally(conn, incident_id, keys)
        given = [Witness(pasted, "the head you gave")] if pasted else []
        tally.hear(
            chain(
                given,
                (Witness(head, "the timeline's note of a message") for head in page.noted),
                _anchored(world, incident_id, size, after, page),
            )
        )
        faults = page.faults + tally.faults
        if not page.more:
            faults += integrity.of_head(conn, incident_id) + integrity.of_rows(conn, incident_id)
    evidence = None if page.more else check_evidence(world, incident_id)
    broken_at = page.broken_at if page.broken_at is not None else min((f.entry for f in faults if f.entry), default=None)
    return Checked(page.upto, page.more, faults[: integrity.MOST_FAULTS], broken_at, evidence, tally.heads, tally.signed)


def _anchored(world: World, incident_id: str, size: int, after: Length, page: integrity.Page) -> Iterator[Witness]:
    if world.anchors is None:
        return iter(())
    above = after.entries if after != Length() else -1
    return world.anchors.read(incident_id, size=size, above=above, upto=page.upto.entries if page.more else None)


class _Tally:
    """Hears witnesses, some at a time: an incident may have hundreds of thousands."""

    def __init__(self, conn: Connection, incident_id: str, keys: Sequence[str]) -> None:
        self._conn, self._incident_id, self._keys = conn, incident_id, keys
        self.faults: list[Fault] = []
        self.heads = self.signed = 0

    def hear(self, witnesses: Iterable[Witness]) -> None:
        for some in _some(witnesses):
            heard = integrity.hear(self._conn, self._incident_id, some, self._keys)
            self.heads += len(some)
            self.signed += heard.signed
            self.faults = (self.faults + heard.faults)[: integrity.MOST_FAULTS]


def _some(many: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(many)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def check_all(world: World, incident_id: str) -> list[str]:
    """Every page: what is not as it was written, in sentences."""
    after, more, found = Length(), True, list[str]()
    while more:
        page = check(world, incident_id, after=after)
        found += [fault.sentence for fault in page.faults] + list(page.evidence_faults or ())
        after, more = page.upto, page.more
    return found


def _must_exist(conn: Connection, world: World, incident_id: str) -> None:
    if not _there(conn, [incident_id]):
        said = _was_there(conn, world, incident_id)
        raise NotFound(said or f"there is no incident {incident_id!r}; list them with `mlrunbook incidents list`")


def _there(conn: Connection, ids: Sequence[str]) -> set[str]:
    """By their ids alone: a row whose other values nobody can read is still there."""
    return set(conn.execute(select(incidents.c.id).where(incidents.c.id.in_(ids))).scalars())


def _was_there(conn: Connection, world: World, incident_id: str) -> str | None:
    """That an incident was deleted, if anything still knows of it."""
    anchor = world.anchors.newest(incident_id) if world.anchors else None
    if anchor:
        return f"{incident_id} was deleted from the database: {anchor.source} saw {anchor.head.length.words}; restore it from a backup"
    head = chain_heads.get(conn, incident_id)
    return f"{incident_id} was deleted from the database: its chain had {head.length.words}; restore it from a backup" if head else None


def deleted(world: World) -> list[str]:
    """Incidents that were anchored, or have a chain, and have no row any more: a sentence each."""
    anchored = world.anchors.incidents() if world.anchors else []
    with world.transaction() as conn:
        there: set[str] = set()
        for some in _some(anchored):
            there |= _there(conn, some)
        gone = sorted({*anchored} - there | {*chain_heads.without_incident(conn)})[:AT_ONCE]
        return [said for one in gone if (said := _was_there(conn, world, one))]
