"""The model platform in the box as it was at one moment, and back to it: between the faults of a game day.

Only for a stack of one's own: it throws away what came since. Incidents and their record are not touched.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from mlrunbook.base.db import metadata, transaction
from mlrunbook.local.platform import tables

KEPT = "platform_snapshot"


class Snapshot:
    """Taken when it is made. `restore()` may be called any number of times; nothing else may write to the platform meanwhile.

    `folders` are restored too: files that came since are removed, and those that were removed or replaced come back. Files there must be
    written once and then replaced, never changed in place.
    """

    def __init__(self, on: Engine, folders: dict[str, Path], keep: Path) -> None:
        self._on, self._folders, self._keep = on, folders, keep
        for name, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, keep / name, copy_function=os.link)
        with transaction(on) as conn:
            conn.execute(text(f"DROP SCHEMA IF EXISTS {KEPT} CASCADE"))
            conn.execute(text(f"CREATE SCHEMA {KEPT}"))
            for table in _tables():
                conn.execute(text(f"CREATE TABLE {KEPT}.{table} AS TABLE {tables.SCHEMA}.{table}"))

    def restore(self) -> None:
        with transaction(self._on) as conn:
            self._restore_rows(conn)
            for name, folder in self._folders.items():
                _mirror(self._keep / name, folder)

    def _restore_rows(self, conn: Connection) -> None:
        """The numbers of new rows go on from where they were: an id never means two things."""
        names = [f"{tables.SCHEMA}.{table}" for table in _tables()]
        conn.execute(text(f"TRUNCATE {', '.join(names)}"))
        for table in _tables():
            insert = f"INSERT INTO {tables.SCHEMA}.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {KEPT}.{table}"  # noqa: S608
            conn.execute(text(insert))


def _tables() -> list[str]:
    """The platform's tables, those that others refer to first."""
    return [table.name for table in metadata.sorted_tables if table.schema == tables.SCHEMA]


def _mirror(kept: Path, folder: Path) -> None:
    wanted = {path.relative_to(kept) for path in kept.rglob("*")}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.relative_to(folder) not in wanted:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    for name in sorted(wanted):
        source, target = kept / name, folder / name
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists() or not target.samefile(source):
            fresh = target.with_name(f"{target.name}.restored")
            os.link(source, fresh)
            fresh.replace(target)
