"""The feature store's own process: `python -m mlrunbook.local.features.feature_service --port 6566`.

It applies the definitions, serves Feast's feature server for reading, and materialises each view on its schedule: whenever readings have
landed that the view has not seen, unless somebody suspended it. One process, because importing Feast takes seconds of CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from mlrunbook.adapters.feast.api import close_connection, first_line, forget_dead_connections, open_store
from mlrunbook.base import db, http_server, web
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import HEALTH
from mlrunbook.base.settings import Settings, settings
from mlrunbook.base.web import Limits
from mlrunbook.domain.errors import Invalid, RunbookError, Transient
from mlrunbook.local.features import lake
from mlrunbook.local.features.definitions import VIEWS
from mlrunbook.local.features.repository import REGISTRY_TTL_S, apply, readings_folder
from mlrunbook.local.platform import feature_schedules

if TYPE_CHECKING:
    from fastapi import FastAPI
    from feast import FeatureStore

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.1
RETRY_S = 1.0  # after a run that failed
NOTE_IDLE_S = 10.0  # a schedule that finds nothing new says so this often, so that it can be told from one that has stopped
COMPACT_EVERY_S = 30.0
LATE_S = 5.0  # readings that land this much after newer ones are still loaded; later ones need a materialisation with a look-back
INTERVALS_KEPT = 200  # runs that the registry remembers of a view before we fold them into one
# Feast's server writes too; here every change goes through the runbook's journal, and no web page may make one on localhost.
MAX_BODY_BYTES = 512 << 10  # ids of 5,000 assets, as many as the model server takes at once, of 100 bytes each
MOST_READS = 8  # at the same time: Feast has one connection, and they wait for each other
READING = frozenset({"/get-online-features", "/health"})


class Schedules:
    """The scheduled materialisation of every view. `round()` does what is due; one thread calls it."""

    def __init__(self, store: FeatureStore, repo: Path, on: Engine | None = None) -> None:
        self._store, self._on = store, on
        self._watch = lake.Watch(readings_folder(repo))
        self._views = {name: _View(name, self._end_of(name)) for name in VIEWS}
        self._looked = False

    def round(self, now: datetime) -> None:
        """Materialise every view that is behind and not suspended. A failure is written down as the view's error."""
        look = self._look(now)
        if look is None:
            return
        due = [view for view in self._views.values() if view.is_behind(look, now)]
        idle = [view for view in self._views.values() if view not in due and view.is_silent(now, NOTE_IDLE_S)]
        if not due and not idle:
            return
        with transaction(self._on) as conn:
            suspended = {s.view for s in feature_schedules.states(conn) if s.suspended}
        for view in due:
            if view.name not in suspended:
                self._run(view, look, now)
        for view in idle:
            if view.name in suspended:
                view.noted_at = now
            else:
                self._note(view, now, until=view.until)

    def _look(self, now: datetime) -> lake.Look | None:
        """What has landed; None, and an error of every view, where it cannot be read."""
        try:
            look = self._watch.look()
        except Invalid as error:
            for view in self._views.values():
                if view.is_silent(now, RETRY_S):
                    self._note(view, now, until=None, error=str(error))
            return None
        if self._looked and look.fresh_oldest_at:
            for view in self._views.values():
                view.see_late(look.fresh_oldest_at)
        self._looked = True
        return look

    def _run(self, view: _View, look: lake.Look, now: datetime) -> None:
        assert look.newest_at is not None
        # Not `now`: the incremental run never loads what is older than its last end, and readings dated between the newest that has
        # landed and now may still be on their way. Never later than now: a future end makes every later run do nothing (feast #4222).
        end = min(look.newest_at + timedelta(microseconds=1), now)
        try:
            before = self._end_of(view.name)
            if before and before > now:  # Feast would load nothing and call it a success
                raise Invalid(
                    f"its last materialisation ends in the future, {before:%Y-%m-%d %H:%M:%S} UTC: materialise it again up to now"
                )
            with contextlib.redirect_stdout(io.StringIO()):  # Feast prints several lines a run
                if view.late_from and view.until and view.late_from < view.until:
                    self._store.materialize(start_date=view.late_from, end_date=end, feature_views=[view.name])
                else:
                    self._store.materialize_incremental(end_date=end, feature_views=[view.name])
            view.done(end, look)
            if view.runs % INTERVALS_KEPT == 0:
                self._fold_intervals(view.name)
        except Exception as error:  # Feast translates nothing: whatever DuckDB, PostgreSQL or Arrow raised comes out here
            close_connection(self._store)
            view.failed(now)
            log.warning("the materialisation of %s failed: %s", view.name, first_line(error))
            self._note(view, now, until=None, error=f"the materialisation of {view.name} failed: {first_line(error)}")
            return
        self._note(view, now, until=end)

    def _note(self, view: _View, now: datetime, *, until: datetime | None, error: str | None = None) -> None:
        with transaction(self._on) as conn:
            feature_schedules.note_run(conn, view.name, at=now, until=until, error=error)
        view.noted_at = now

    def _end_of(self, name: str) -> datetime | None:
        return self._store.get_feature_view(name).most_recent_end_time

    def _fold_intervals(self, name: str) -> None:
        """Feast keeps every run's interval in the view's definition for ever: at a run a second, megabytes that each run rewrites."""
        view = self._store.registry.get_feature_view(name, self._store.project)
        starts, ends = zip(*view.materialization_intervals, strict=True)
        view.materialization_intervals = [(min(starts), max(ends))]
        self._store.registry.apply_feature_view(view, self._store.project)


class _View:
    """How far the schedule of one view has come."""

    def __init__(self, name: str, until: datetime | None) -> None:
        self.name, self.until = name, until
        self.late_from: datetime | None = None  # event time of a reading that landed after newer ones were materialised
        self.noted_at: datetime | None = None
        self.runs = 0
        self._retry_at: datetime | None = None
        self._done_with: frozenset[tuple[str, int, int]] = frozenset()

    def see_late(self, oldest_at: datetime) -> None:
        if self.until and self.until - timedelta(seconds=LATE_S) <= oldest_at < self.until:
            self.late_from = min(oldest_at, self.late_from or oldest_at)

    def is_behind(self, look: lake.Look, now: datetime) -> bool:
        if look.newest_at is None or look.files == self._done_with or (self._retry_at and now < self._retry_at):
            return False
        return self.until is None or look.newest_at >= self.until or self.late_from is not None

    def is_silent(self, now: datetime, for_s: float) -> bool:
        return self.noted_at is None or (now - self.noted_at).total_seconds() >= for_s

    def done(self, end: datetime, look: lake.Look) -> None:
        self.until, self._done_with = end, look.files
        self.late_from = self._retry_at = None
        self.runs += 1

    def failed(self, now: datetime) -> None:
        self._retry_at = now + timedelta(seconds=RETRY_S)


def reading_only(app: FastAPI, limits: Limits) -> FastAPI:
    """Feast's app without the routes that change something, and within limits: it asks for no token, so they are those of strangers."""
    app.router.routes = [route for route in app.router.routes if getattr(route, "path", "") in READING]

    @app.middleware("http")
    async def take_turns(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path == HEALTH:
            return await answer(request)
        await request.body()  # in hand before a place to run in is taken: who sends slowly holds none
        async with edge.slot():
            return await answer(request)

    edge = web.limit(app, limits)  # around the above
    return app


def limits_of(config: Settings) -> Limits:
    limits = Limits.of(config, body_bytes=MAX_BODY_BYTES, times=10)
    return replace(limits, unproven_body_bytes=MAX_BODY_BYTES, running=MOST_READS)


def run(schedules: Schedules, repo: Path, stop: threading.Event, also: list[FeatureStore]) -> None:
    """Rounds until `stop` is set. Nothing that goes wrong in one ends the others."""
    compact_at, complaint = time.monotonic() + COMPACT_EVERY_S, ""
    while not stop.wait(LOOK_EVERY_S):
        try:
            for store in also:
                forget_dead_connections(store)
            schedules.round(datetime.now(UTC))
            if time.monotonic() >= compact_at:
                compact_at = time.monotonic() + COMPACT_EVERY_S
                lake.compact(readings_folder(repo))
            complaint = ""
        except Exception as error:
            if complaint != repr(error):
                complaint = repr(error)
                log.warning("%s", error) if isinstance(error, RunbookError) else log.exception("a round of the schedules failed")


def prepared(repo: Path, *, patience_s: float = 60.0) -> FeatureStore:
    """The store, with our definitions applied. Another process may be making the registry's tables right now: then again."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            store = open_store(repo)
            with contextlib.redirect_stdout(io.StringIO()):
                apply(store, repo)
            return store
        except Exception as error:
            if time.monotonic() > deadline or (isinstance(error, RunbookError) and not isinstance(error, Transient)):
                raise
            log.warning("the definitions could not be applied (%s); trying again", first_line(error))
            time.sleep(RETRY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the feature store and keep it up to date")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6566)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars in the log
    config = settings()
    repo = config.feature_repo
    if repo is None:
        sys.exit("feature service: set MLRUNBOOK_FEATURE_REPO to the folder of feature_store.yaml")
    try:
        store = prepared(repo)
        serving = open_store(repo)  # one of its own: Feast keeps one connection a store, and a long write must not hold up a read
    except RunbookError as error:
        sys.exit(f"feature service: {error}")
    import uvicorn
    from feast.feature_server import get_app

    stop = threading.Event()
    schedules = Schedules(store, repo, db.engine())
    runs = threading.Thread(target=run, args=(schedules, repo, stop, [store, serving]), name="schedules", daemon=True)
    runs.start()
    app = reading_only(get_app(serving, registry_ttl_sec=REGISTRY_TTL_S), limits_of(config))
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=1, **http_server.options())
    stop.set()
    runs.join(timeout=3)


if __name__ == "__main__":
    main()
