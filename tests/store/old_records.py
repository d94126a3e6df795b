"""What holds of every row that an earlier version wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.records import Recorded
from mlrunbook.store import records

TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d")
NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def check_read(conn: Connection, incident_id: str, kind: type[Recorded], row: Mapping[str, Any], meant: Recorded) -> None:
    """The row is read as `meant`; so is what is written of it today, under the names an earlier version reads."""
    records.put(conn, incident_id, kind.key, row, now=NOW)
    assert records.recall(conn, incident_id, kind) == meant
    records.forget(conn, incident_id, kind.key)
    records.keep(conn, incident_id, meant, now=NOW)
    assert records.recall(conn, incident_id, kind) == meant
    written = meant.to_record()
    assert written.keys() >= row.keys(), "no field is renamed"
    times = {name: value for name, value in row.items() if isinstance(value, str) and TIME.match(value)}
    assert {name: written[name] for name in times} == times, "a moment keeps its form: a worker of the earlier version builds keys of it"
