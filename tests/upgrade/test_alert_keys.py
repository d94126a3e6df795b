"""Alerts that were stored before senders were told apart have their key after the upgrade, and are found by it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from mlrunbook.base import db
from mlrunbook.store import alerts
from mlrunbook.store.alerts import Identity, Stored
from tests.upgrade.test_from_0_1_0 import database as database

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ROW = """INSERT INTO alerts (source, fingerprint, starts_at, status, body, received_at, last_seen_at)
         VALUES (:source, :fingerprint, :at, :status, '{}', :at, :at)"""


@pytest.mark.parametrize("fingerprint", ["f", "a b", "日本語" * 160, "x\ny", ""])
def test_a_key_that_the_upgrade_makes_is_the_key_that_is_looked_for(database: Engine, fingerprint: str) -> None:
    db.upgrade(database, to="0008_action_items")
    with database.begin() as conn:
        told = {"source": "alertmanager", "fingerprint": fingerprint, "at": AT, "status": "firing"}
        conn.execute(text(ROW), told)
    db.upgrade(database)
    with database.begin() as conn:
        found = alerts.find(conn, Identity("alertmanager", fingerprint, AT))
        assert found == Stored("firing", None)
        assert alerts.firing_since(conn, [alerts.key_of("alertmanager", fingerprint)])
        assert alerts.find(conn, Identity("alertmanager", fingerprint, AT, "somebody")) is None
