"""The only way to write what an auditor rests on: the row and, in the same transaction, an event of the incident's chain that holds it.

`verify` replays the events and compares them with the rows as they stand: what was edited, deleted or put in past these functions has no
event, or another one. An event holds every column as text; one that is long, or bytes, as its SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Delete,
    LargeBinary,
    Table,
    Text,
    Update,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import Insert as Upsert

from mlrunbook.domain import chain
from mlrunbook.store import chain_heads
from mlrunbook.store.chain_heads import Tip
from mlrunbook.store.tables import action_items, actions, approvals, evidence, incidents, plans, records, row_events

LONG_BYTES = 200
CONTENT, AT = "_content", "_at"
COVERED: Mapping[Table, str] = {
    incidents: "id",
    plans: "digest",
    approvals: "id",
    actions: "id",
    records: "step",
    evidence: "name",
    action_items: "id",
}
"""By table: the column that names a row within its incident."""
NOT_COVERED = {incidents: frozenset({"alert_count"})}  # a repeated alert counts up and is news to nobody; each alert has its own row


def add(conn: Connection, incident_id: str, statement: Upsert) -> dict[str, Any] | None:
    """Insert one row, or what its ON CONFLICT makes of it; the row as it stands now, or None when nothing was written."""
    conn.execute(select(incidents.c.id).where(incidents.c.id == incident_id).with_for_update())  # before the row: everybody's order
    rows = _run(conn, statement, statement.table)
    return rows[0] if rows else None


def change(conn: Connection, statement: Update | Delete) -> list[dict[str, Any]]:
    """Update or delete rows, of one incident or of many at once; returns them."""
    table = _covered(statement.table)
    where = statement.whereclause
    if where is None:
        raise AssertionError(f"a change of {table.name} names its rows")
    ids = select(of_incident(table)).where(where)
    conn.execute(select(incidents.c.id).where(incidents.c.id.in_(ids)).order_by(incidents.c.id).with_for_update())
    return _run(conn, statement, table)


def _covered(table: Any) -> Table:
    if table not in COVERED:
        raise AssertionError(f"{table} is not in the chain")
    return table  # type: ignore[no-any-return]


def of_incident(table: Table) -> Column[str]:
    return table.c.id if table is incidents else table.c.incident_id


def key_of(table: Table) -> ColumnElement[str]:
    return cast(table.c[COVERED[table]], Text)


def _run(conn: Connection, statement: Any, table: Any) -> list[dict[str, Any]]:
    shown = [c for c in _covered(table).c if not isinstance(c.type, LargeBinary)]
    found = conn.execute(statement.returning(*shown, content(table).label(CONTENT), func.now().label(AT)))
    rows = [dict(row._mapping) for row in found]
    own, gone = of_incident(table).key, isinstance(statement, Delete)
    for incident_id, group in groupby(sorted(rows, key=lambda row: str(row[own])), key=lambda row: str(row[own])):
        written = [(str(row[COVERED[table]]), None if gone else row[CONTENT]) for row in group]
        _append(conn, incident_id, table, written, at=rows[0][AT])
    return [{column.name: row[column.name] for column in shown} for row in rows]


def _append(conn: Connection, incident_id: str, table: Table, written: list[tuple[str, dict[str, Any] | None]], *, at: datetime) -> None:
    """One event a row; `content` None: the row is gone."""
    last, events = chain_heads.last_event(conn, incident_id), []
    for key, content_ in written:
        values = {"incident_id": incident_id, "seq": last.number + 1, "at": at, "table_name": table.name, "key": key, "content": content_}
        hash_ = chain.link(values, last.hash)
        events.append({**values, "prev_hash": last.hash, "hash": hash_})
        last = Tip(last.number + 1, hash_)
    conn.execute(insert(row_events), events)
    chain_heads.set_event(conn, incident_id, last)


@cache
def content(table: Table) -> ColumnElement[Any]:
    """A row as its event holds it. Made by PostgreSQL, from its own text of each value: nothing is lost on the way to us and back.

    As text that is written once: SQLAlchemy compiles an INSERT ... ON CONFLICT anew each time, and this is most of it.
    """
    written = _content(table).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    return literal_column(str(written), type_=JSONB)


def _content(table: Table) -> ColumnElement[Any]:
    pairs: list[ColumnElement[Any]] = []
    for column in table.c:
        if column.name in NOT_COVERED.get(table, ()):
            continue
        name, digest_name = (cast(literal(n, Text), Text) for n in (column.name, column.name + chain.DIGEST))
        if isinstance(column.type, LargeBinary):
            pairs += [digest_name, _hex_digest(column)]
            continue
        as_text = _time_text(column) if isinstance(column.type, DateTime) else cast(column, Text)
        is_long = func.octet_length(as_text) > LONG_BYTES
        digest = _hex_digest(func.convert_to(as_text, "UTF8"))
        pairs += [case((is_long, digest_name), else_=name), case((is_long, digest), else_=as_text)]
    return func.jsonb_build_object(*pairs)


def _time_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Whatever the session's time zone; of times that `to_char` cannot tell apart (infinity, before Christ) PostgreSQL's own words."""
    usual = column.between(func.timestamptz("0001-01-01 00:00:00+00"), func.timestamptz("9999-12-31 00:00:00+00"))
    return case((usual, func.to_char(func.timezone("UTC", column), "YYYY-MM-DD HH24:MI:SS.US")), else_=cast(column, Text))


def _hex_digest(value: ColumnElement[Any]) -> ColumnElement[str]:
    return func.encode(func.sha256(value), "hex")
