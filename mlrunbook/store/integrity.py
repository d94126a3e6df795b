"""Reads a chain page by page and says what no longer fits: links, rows against their last events, the heads noted with each page.

Read inside one snapshot (`snapshot`): what is appended meanwhile is no fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, select, text, true

from mlrunbook.domain import chain
from mlrunbook.domain.chain import GENESIS, Fault, Head, Length, Proof, Witness
from mlrunbook.domain.errors import Invalid
from mlrunbook.store import chain_heads
from mlrunbook.store.row_events import COVERED, content, key_of, of_incident
from mlrunbook.store.tables import row_events as events
from mlrunbook.store.tables import timeline
from mlrunbook.store.timeline import LINKED

AT_ONCE = 500
PAGE_LINKS, PAGE_BYTES = 5_000, 8 << 20
MOST_FAULTS = 100
EVENT_LINKED = ("incident_id", "seq", "at", "table_name", "key", "content")
HEAD = "chain_head"  # in the data of the timeline's entry of a page: what was sent out with it


def snapshot(conn: Connection) -> None:
    """First in the transaction."""
    conn.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


@dataclass
class Page:
    """What was found in one page. `upto`: how far both strands are read; `more`: there is another page."""

    upto: Length
    more: bool = False
    faults: list[Fault] = field(default_factory=list)
    broken_at: int | None = None
    noted: list[Head] = field(default_factory=list)


@dataclass
class _Budget:
    links: int = PAGE_LINKS
    bytes: int = PAGE_BYTES

    def fits(self, row: Any, names: Sequence[str]) -> bool:
        """Whether the row has its own hash; what it weighs is spent."""
        try:
            body = chain.canonical({name: getattr(row, name) for name in names}, row.prev_hash) if row.at is not None else b""
        except RecursionError:
            body = b""
        self.links -= 1
        self.bytes -= len(body)
        return bool(body and row.hash == hashlib.sha256(body).hexdigest())

    @property
    def is_spent(self) -> bool:
        return self.links <= 0 or self.bytes <= 0


def read(conn: Connection, incident_id: str, after: Length, *, links: int = PAGE_LINKS) -> Page:
    """The links after `after`: first the timeline's, then the row events."""
    page, budget = Page(after), _Budget(links)
    if after == Length():
        page.faults += _before_first(conn, timeline, incident_id, chain.ENTRY_PUT_IN)
        page.faults += _before_first(conn, events, incident_id, chain.EVENT_PUT_IN)
    entries = _walk(conn, incident_id, page, budget, after.entries)
    page.upto = Length(entries, after.events)
    if not budget.is_spent:
        page.upto = Length(entries, _walk_events(conn, incident_id, page, budget, after.events))
    page.more = budget.is_spent and page.upto != length(conn, incident_id)
    return page


def _before_first(conn: Connection, strand: Any, incident_id: str, words: str) -> list[Fault]:
    """Links are numbered from 1: what stands before is in no hash, and whoever looks for an entry of its kind would find it."""
    query = select(strand.c.seq).where(strand.c.incident_id == incident_id, strand.c.seq < 1).order_by(strand.c.seq).limit(MOST_FAULTS)
    return [Fault(words.format(seq)) for seq in conn.execute(query).scalars()]


def length(conn: Connection, incident_id: str) -> Length:
    def last(strand: Any) -> Any:
        return select(func.coalesce(func.max(strand.c.seq), 0)).where(strand.c.incident_id == incident_id).scalar_subquery()

    return Length(*conn.execute(select(last(timeline), last(events))).one())


def _walk(conn: Connection, incident_id: str, page: Page, budget: _Budget, after: int) -> int:
    prev, seq = _hash_at(conn, timeline, incident_id, after), after
    for row in _rows(conn, timeline, incident_id, after, page, budget):
        for gone in range(seq + 1, min(row.seq, seq + 1 + MOST_FAULTS)):
            _note(page, Fault(chain.ENTRY_GONE.format(gone), gone))
        fits = budget.fits(row, LINKED)
        if not fits or (row.prev_hash != prev and row.seq == seq + 1):
            _note(page, Fault(chain.ENTRY_CHANGED.format(row.seq), row.seq))
        if isinstance(row.data, dict) and HEAD in row.data:
            _note_head(page, row)
        prev, seq = row.hash, row.seq
    return seq


def _walk_events(conn: Connection, incident_id: str, page: Page, budget: _Budget, after: int) -> int:
    prev, seq = _hash_at(conn, events, incident_id, after), after
    for row in _rows(conn, events, incident_id, after, page, budget):
        for gone in range(seq + 1, min(row.seq, seq + 1 + MOST_FAULTS)):
            _note(page, Fault(chain.EVENT_GONE.format(gone)))
        fits = budget.fits(row, EVENT_LINKED)
        if not fits or (row.prev_hash != prev and row.seq == seq + 1):
            _note(page, Fault(chain.EVENT_CHANGED.format(row.seq)))
        prev, seq = row.hash, row.seq
    return seq


def _note_head(page: Page, row: Any) -> None:
    try:
        page.noted.append(Head.parse(str(row.data[HEAD])))
    except Invalid:
        _note(page, Fault(chain.ENTRY_CHANGED.format(row.seq), row.seq))


def _note(page: Page, fault: Fault) -> None:
    if fault.entry is not None and page.broken_at is None:
        page.broken_at = fault.entry
    if len(page.faults) < MOST_FAULTS:
        page.faults.append(fault)


def _hash_at(conn: Connection, strand: Any, incident_id: str, seq: int) -> str:
    """Of the link before: it was checked with the page before."""
    query = select(strand.c.hash).where(strand.c.incident_id == incident_id, strand.c.seq == seq)
    return GENESIS if seq == 0 else str(conn.execute(query).scalar_one_or_none())


def _rows(conn: Connection, strand: Any, incident_id: str, after: int, page: Page, budget: _Budget) -> Iterator[Any]:
    # A time that Python cannot read is none that we wrote.
    at = case((strand.c.at.between(func.timestamptz("0001-01-02 00:00:00+00"), func.timestamptz("9999-12-30 00:00:00+00")), strand.c.at))
    query = select(*(c for c in strand.c if c.name != "at"), at.label("at"))
    query = query.where(strand.c.incident_id == incident_id, strand.c.seq > after).order_by(strand.c.seq)
    try:
        with conn.execute(query, execution_options={"yield_per": AT_ONCE}) as rows:
            for row in rows:
                yield row
                if budget.is_spent:
                    return
    except RecursionError:
        _note(page, Fault(chain.TOO_DEEP))


def of_rows(conn: Connection, incident_id: str) -> list[Fault]:
    """Every row of the covered tables against its last event."""
    found: list[Fault] = []
    for table in COVERED:
        if len(found) < MOST_FAULTS:
            try:
                found += _of_table(conn, incident_id, table)
            except RecursionError:
                found.append(Fault(chain.TOO_DEEP))
    return found[:MOST_FAULTS]


def _of_table(conn: Connection, incident_id: str, table: Any) -> list[Fault]:
    mine = (events.c.incident_id == incident_id) & (events.c.table_name == table.name)
    newest = select(func.max(events.c.seq).label("seq")).where(mine).group_by(func.md5(events.c.key)).subquery()
    written = (
        select(events.c.key, events.c.seq, events.c.content)
        .join(newest, true())
        .where(events.c.incident_id == incident_id, events.c.seq == newest.c.seq)
        .subquery()
    )
    there = select(key_of(table).label("key"), content(table).label("content")).where(of_incident(table) == incident_id).subquery()
    # A column that a later release has added is in the row and in no event of before: what the event holds must be in the row.
    fits = there.c.content.op("@>")(written.c.content)
    query = (
        select(func.coalesce(there.c.key, written.c.key).label("key"), written.c.content.label("written"), there.c.content.label("found"))
        .select_from(there.outerjoin(written, there.c.key == written.c.key, full=True))
        .where(fits.is_not(True), there.c.content.is_not(None) | written.c.content.is_not(None))
        .order_by("key")
        .limit(MOST_FAULTS)
    )
    known = {c.name for c in table.c}
    return [fault for row in conn.execute(query) if (fault := _of_row(table.name, row, known))]


def _of_row(table: str, row: Any, known: set[str]) -> Fault | None:
    """None where only a column is missing that this release does not have any more."""
    if not _is_written_by_us(row.written):
        return Fault(chain.foreign_event(table, row.key))
    written = None if row.written is None else {k: v for k, v in row.written.items() if k.removesuffix(chain.DIGEST) in known}
    found = row.found
    if written is not None and found is not None:
        same = {name.removesuffix(chain.DIGEST) for name in written}
        found = {k: v for k, v in found.items() if k.removesuffix(chain.DIGEST) in same}
    if written == found:
        return None
    said = chain.changed_row(table, row.key, written, found)
    return Fault(said[:1].upper() + said[1:])


def _is_written_by_us(content: Any) -> bool:
    """By its form alone: its hash is checked where the events are."""
    values = content.values() if isinstance(content, dict) else ()
    return content is None or (isinstance(content, dict) and all(value is None or isinstance(value, str) for value in values))


class Heard(NamedTuple):
    """What witnesses said: what does not fit, and how many of their signatures are by our keys."""

    faults: list[Fault]
    signed: int


def hear(conn: Connection, incident_id: str, witnesses: Sequence[Witness], keys: Sequence[str]) -> Heard:
    """What was sent out, against the chain as it stands."""
    stands = length(conn, incident_id)
    now = chain_heads.at(conn, incident_id, [w.head.length for w in witnesses])
    proved = [chain.proof(incident_id, w.head, keys) for w in witnesses]
    found = (chain.unlike(w, proof, stands, now.get(w.head.length)) for w, proof in zip(witnesses, proved, strict=True))
    return Heard(list(dict.fromkeys(fault for fault in found if fault))[:MOST_FAULTS], proved.count(Proof.GOOD))


def of_head(conn: Connection, incident_id: str) -> list[Fault]:
    """The head that the store keeps of the chain against its last links."""
    kept = chain_heads.get(conn, incident_id)
    if kept is None:
        return [Fault("The store's own note of where the chain stands is gone")]
    return hear(conn, incident_id, [Witness(kept, "the store's own note")], ()).faults


def altered(conn: Connection, incident_id: str) -> list[str]:
    """All of it at once, without what lies outside of the store: sentences."""
    found: list[Fault] = []
    after, more = Length(), True
    while more:
        page = read(conn, incident_id, after)
        noted = [Witness(head, "the timeline's note of a page") for head in page.noted]
        found += page.faults + hear(conn, incident_id, noted, ()).faults
        after, more = page.upto, page.more
    return [fault.sentence for fault in found + of_head(conn, incident_id) + of_rows(conn, incident_id)]
