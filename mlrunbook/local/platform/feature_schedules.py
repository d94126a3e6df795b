"""The scheduled materialisation of each feature view: how its last run went, and whether somebody suspended it.

Whoever runs the schedule asks `states` before a round and tells `note_run` after it. Suspending and resuming are changes near every
model, because every model reads features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from mlrunbook.domain.errors import NotFound
from mlrunbook.local.platform import change_log
from mlrunbook.local.platform.tables import feature_schedules, models

SUSPEND, RESUME = "suspend_feature_schedules", "resume_feature_schedules"


@dataclass(frozen=True)
class Schedule:
    """`materialized_until`: how far the last run that worked came. `error`: why the last run failed."""

    view: str
    suspended: bool
    last_run_at: datetime | None = None
    materialized_until: datetime | None = None
    error: str | None = None


def states(conn: Connection) -> list[Schedule]:
    """Every schedule that ever ran, by name of the view."""
    s = feature_schedules.c
    rows = conn.execute(select(s.view, s.suspended, s.last_run_at, s.materialized_until, s.error).order_by(s.view)).mappings()
    return [Schedule(**row) for row in rows]


def note_run(conn: Connection, view: str, *, at: datetime, until: datetime | None, error: str | None = None) -> None:
    """A run of the schedule of `view` ended at `at` and brought the online store up to `until` (None: nowhere)."""
    new = pg_insert(feature_schedules).values(view=view, last_run_at=at, materialized_until=until, error=error)
    further = func.greatest(feature_schedules.c.materialized_until, new.excluded.materialized_until)  # ignores NULL
    same_view = new.on_conflict_do_update(
        index_elements=["view"], set_={"last_run_at": at, "materialized_until": further, "error": new.excluded.error}
    )
    conn.execute(same_view)


def suspend(conn: Connection, views: Sequence[str], by: str, at: datetime, key: str | None = None) -> list[Schedule]:
    """Stop the scheduled materialisation of `views`; return every schedule. NotFound for a view without one."""
    return _switch(conn, views, suspended=True, by=by, at=at, key=key)


def resume(conn: Connection, views: Sequence[str], by: str, at: datetime, key: str | None = None) -> list[Schedule]:
    """Let it run again; return every schedule. The same `key` again changes nothing. NotFound for a view without a schedule."""
    return _switch(conn, views, suspended=False, by=by, at=at, key=key)


def _switch(conn: Connection, views: Sequence[str], *, suspended: bool, by: str, at: datetime, key: str | None) -> list[Schedule]:
    kind, target = (SUSPEND if suspended else RESUME), {"views": sorted(set(views))}
    # One lock order for everybody, models first: two of these at once wait for each other instead of undoing each other.
    known_models = conn.execute(select(models.c.name).order_by(models.c.name).with_for_update()).scalars().all()
    if any([change_log.is_repeat(conn, model, kind, key, target) for model in known_models]):
        return states(conn)
    before = {s.view: s.suspended for s in states(conn)}
    if unknown := [view for view in target["views"] if view not in before]:
        known = ", ".join(before) or "none"
        raise NotFound(f"no feature view {unknown[0]!r} is materialised on a schedule here; scheduled are {known}")
    changed = [view for view in target["views"] if before[view] != suspended]
    switched = update(feature_schedules).where(feature_schedules.c.view.in_(changed))
    conn.execute(switched.values(suspended=suspended, changed_by=by, changed_at=at))
    for model in known_models:
        for view in changed:
            detail = {"from": {"suspended": not suspended}, "to": {"suspended": suspended}}
            change_log.note_change(conn, model, "feature_store", ref=view, author=by, at=at, detail=detail)
        change_log.record(conn, model, kind, target=target, applied=bool(changed), at=at, key=key)
    return states(conn)
