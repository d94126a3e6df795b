"""Path B: what a person asks for, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from mlrunbook.base.progress import told_to
from mlrunbook.bootstrap import world
from mlrunbook.response.measurement import feature_store
from tasks._retry import RETRY_TRANSIENT, off_loop

SHOW_EVERY_S = 1.0


@task(task_run_name="read-the-request", **RETRY_TRANSIENT)
async def materialization_asked(
    model: str, views: list[str], end: datetime | None, look_back_h: int, reason: str, by: str
) -> dict[str, Any]:
    """The request for the incident; refused where the model does not read a view or the end lies in the future."""
    return await off_loop(feature_store.asked, world(), model, views, end, look_back_h, reason=reason, by=by)


@asynccontextmanager
async def showing_progress(key: str) -> AsyncIterator[None]:
    """Show what the body reports, at most once a second, as log lines and progress bars on the run page."""
    latest: dict[str, tuple[int, int]] = {}

    def note(what: str, done: int, total: int) -> None:
        latest[what] = (done, total)

    shown = _Shown(key)
    showing = asyncio.create_task(shown.keep_showing(latest))
    try:
        with told_to(note):
            yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
        await shown.show(latest)


class _Shown:
    def __init__(self, key: str) -> None:
        self._key = key
        self._bars: dict[str, UUID] = {}
        self._last: dict[str, tuple[int, int]] = {}

    async def keep_showing(self, latest: dict[str, tuple[int, int]]) -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            await self.show(latest)

    async def show(self, latest: dict[str, tuple[int, int]]) -> None:
        log = get_run_logger()
        for what, (done, total) in list(latest.items()):
            if self._last.get(what) == (done, total):
                continue
            self._last[what] = (done, total)
            log.info("%s: %s of %s", what, f"{done:,}", f"{total:,}")
            share = 100.0 * done / total if total else 100.0
            with suppress(httpx.HTTPError):  # the change matters, not its bar
                if what in self._bars:
                    await aupdate_progress_artifact(self._bars[what], progress=share)
                else:
                    bar = f"{self._key}-{what}".replace("_", "-").lower()
                    self._bars[what] = await acreate_progress_artifact(progress=share, key=bar, description=f"{what}: {total:,} entities")
