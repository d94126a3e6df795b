"""Between the faults of a game day the platform is what it was: rows, files, and numbers that are never used twice."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select

from mlrunbook.base.db import transaction
from mlrunbook.local.platform import registry
from mlrunbook.local.platform.snapshot import Snapshot
from mlrunbook.local.platform.tables import changes, requests
from tests.local.platform import kit

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "v1.5.0").mkdir(parents=True)
    (folder / "v1.5.0" / "model").write_text("sound")
    return folder


def test_rows_that_came_since_are_gone_what_serves_is_what_served_and_new_rows_have_new_numbers(
    engine: Engine, tmp_path: Path, folder: Path
) -> None:
    model = kit.new_model()
    kit.release(engine, folder, model, "v1.4.0", "v1.5.0")
    snapshot = Snapshot(engine, {}, tmp_path / "kept")
    for _ in range(2):
        with transaction(engine) as conn:
            registry.serve(conn, folder, model=model, version="v1.4.0", change=registry.Change(registry.ROLLBACK, "somebody", NOW))
            noted = {"model": model, "kind": "config", "ref": "r", "author": "a", "at": NOW}
            late = conn.execute(insert(changes).values(noted).returning(changes.c.id)).scalar_one()
        snapshot.restore()
        with transaction(engine) as conn:
            assert registry.slots(conn, model).serving == "v1.5.0"
            assert conn.execute(select(func.max(changes.c.id))).scalar_one() < late
            again = conn.execute(insert(changes).values(noted).returning(changes.c.id)).scalar_one()
            assert again > late
            assert conn.execute(select(func.count()).where(requests.c.kind == "rollback", requests.c.model == model)).scalar_one() == 0


def test_files_that_came_are_removed_those_that_went_or_were_replaced_are_back(engine: Engine, tmp_path: Path, folder: Path) -> None:
    (folder / "marker").write_text("first")
    snapshot = Snapshot(engine, {"models": folder}, tmp_path / "kept")
    (folder / "v2.0.0").mkdir()
    (folder / "v2.0.0" / "model").write_text("bad")
    (folder / "v1.5.0" / "model").unlink()
    (folder / "new").write_text("second")
    os.replace(folder / "new", folder / "marker")
    for _ in range(2):
        snapshot.restore()
        found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
        assert found == {"v1.5.0/model": "sound", "marker": "first"}
        assert [p.name for p in folder.iterdir() if p.is_dir()] == ["v1.5.0"]
