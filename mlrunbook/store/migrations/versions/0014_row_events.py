"""What an auditor rests on is bound into the hash chain: an event for every row written. What is there already gets one "as found"."""

import hashlib
import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014_row_events"
down_revision = "0013_approvals_person"

GENESIS = "0" * 64
LONG_BYTES = 200
COVERED = {
    "incidents": ("id", "id"),
    "plans": ("incident_id", "digest"),
    "approvals": ("incident_id", "id"),
    "actions": ("incident_id", "id"),
    "records": ("incident_id", "step"),
    "evidence": ("incident_id", "name"),
    "action_items": ("incident_id", "id"),
}
AT_ONCE = 500


def upgrade() -> None:
    op.create_table(
        "row_events",
        sa.Column("incident_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("content", JSONB),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_index("row_events_of_row", "row_events", ["incident_id", "table_name", sa.text("md5(key)"), "seq"])
    op.create_table(
        "chain_heads",
        sa.Column("incident_id", sa.Text, primary_key=True),
        sa.Column("entries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("entries_hash", sa.Text, nullable=False, server_default=GENESIS),
        sa.Column("events", sa.Integer, nullable=False, server_default="0"),
        sa.Column("events_hash", sa.Text, nullable=False, server_default=GENESIS),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("chain_heads_by_change", "chain_heads", ["changed_at", "incident_id"])
    conn = op.get_bind()
    conn.execute(
        sa.text(
            "INSERT INTO chain_heads (incident_id, entries, entries_hash, changed_at)"
            " SELECT DISTINCT ON (incident_id) incident_id, seq, hash, now() FROM timeline ORDER BY incident_id, seq DESC"
        )
    )
    ids = conn.execute(sa.text("SELECT id FROM incidents ORDER BY number")).scalars().all()
    contents = {table: _content(conn, table) for table in COVERED}
    for begin in range(0, len(ids), AT_ONCE):
        _found(conn, list(ids[begin : begin + AT_ONCE]), contents)


def _found(conn: sa.Connection, ids: list[str], contents: dict[str, str]) -> None:
    """The events of these incidents' rows."""
    at = conn.execute(sa.text("SELECT now()")).scalar_one()
    last: dict[str, tuple[int, str]] = {}
    events = []
    for table, incident_id, key, content in _rows(conn, ids, contents):
        seq, prev = last.get(incident_id, (0, GENESIS))
        values = {"incident_id": incident_id, "seq": seq + 1, "at": at, "table_name": table, "key": key, "content": content}
        canonical = json.dumps({**values, "at": at.isoformat(), "prev": prev}, sort_keys=True, separators=(",", ":"))
        last[incident_id] = (seq + 1, hashlib.sha256(canonical.encode()).hexdigest())
        events.append({**values, "content": json.dumps(content), "prev_hash": prev, "hash": last[incident_id][1]})
    insert = (
        "INSERT INTO row_events (incident_id, seq, at, table_name, key, content, prev_hash, hash)"
        " VALUES (:incident_id, :seq, :at, :table_name, :key, CAST(:content AS jsonb), :prev_hash, :hash)"
    )
    head = (
        "INSERT INTO chain_heads (incident_id, events, events_hash, changed_at) VALUES (:id, :events, :hash, now())"
        " ON CONFLICT (incident_id) DO UPDATE SET events = :events, events_hash = :hash"
    )
    if events:
        conn.execute(sa.text(insert), events)
        conn.execute(sa.text(head), [{"id": one, "events": seq, "hash": hash_} for one, (seq, hash_) in last.items()])


def _rows(conn: sa.Connection, ids: list[str], contents: dict[str, str]) -> Iterator[tuple[str, str, str, dict[str, str | None]]]:
    for table, (incident, key) in COVERED.items():
        found = f"SELECT {incident}, {key}\\:\\:text, {contents[table]} FROM {table} WHERE {incident} = ANY(:ids) ORDER BY 1, 2"  # noqa: S608
        for incident_id, name, content in conn.execute(sa.text(found), {"ids": ids}):
            yield table, incident_id, name, content


def _content(conn: sa.Connection, table: str) -> str:
    """As `mlrunbook.store.row_events.content` of that time: every column as text, what is long or bytes as its SHA-256."""
    pairs = []
    for column in sa.inspect(conn).get_columns(table):
        name, kind = column["name"], column["type"]
        if (table, name) == ("incidents", "alert_count"):
            continue
        if isinstance(kind, sa.LargeBinary):
            pairs.append(f"'{name}\\:sha256', encode(sha256({name}), 'hex')")
            continue
        usual = f"{name} BETWEEN '0001-01-01 00\\:00\\:00+00' AND '9999-12-31 00\\:00\\:00+00'"
        utc = f"to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24\\:MI\\:SS.US')"
        as_time = f"CASE WHEN {usual} THEN {utc} ELSE {name}\\:\\:text END"
        text = as_time if isinstance(kind, sa.DateTime) else f"{name}\\:\\:text"
        is_long = f"octet_length({text}) > {LONG_BYTES}"
        digest = f"encode(sha256(convert_to({text}, 'UTF8')), 'hex')"
        pairs.append(f"CASE WHEN {is_long} THEN '{name}\\:sha256' ELSE '{name}' END, CASE WHEN {is_long} THEN {digest} ELSE {text} END")
    return f"jsonb_build_object({', '.join(pairs)})"
