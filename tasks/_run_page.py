"""What a person sees on Prefect's run page beside the steps: texts, links and how far a change has come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import httpx
from prefect import artifacts, get_run_logger
from prefect.runtime import flow_run

from mlrunbook.base.progress import told_to
from mlrunbook.base.settings import settings
from mlrunbook.domain.communication import console_links
from mlrunbook.domain.detection.lifecycle import Shown
from mlrunbook.domain.errors import Transient
from mlrunbook.response.run import Run
from tasks.run import off_loop

SHOW_EVERY_S = 1.0


async def show_text(key: str, markdown: str, about: str) -> None:
    """A text in Markdown."""
    await _show(key, lambda: artifacts.acreate_markdown_artifact(markdown=markdown, key=_slug(key), description=about))


async def show_text_once(run: Run, what: str, markdown: str, about: str) -> None:
    """A text about the run's incident. A resumed run begins again from the top: what it has shown it does not show twice."""
    key = f"{run.incident_id}-{what}"
    await _once(run, key, markdown, lambda: show_text(key, markdown, about))


async def show_link_once(run: Run, what: str, link: str, text: str, about: str) -> None:
    """A link about the run's incident."""
    key = f"{run.incident_id}-{what}"

    async def show() -> None:
        create = artifacts.acreate_link_artifact
        await _show(key, lambda: create(link=link, link_text=text, key=_slug(key), description=about))

    await _once(run, key, link, show)


async def show_console_once(run: Run) -> None:
    """A link to the incident in the console."""
    link = f"{console_address(run)}{console_links.of_incident(run.incident_id)}"
    await show_link_once(run, "console", link, "Open in the console", "The incident in the console: follow it, decide, hand over, review")


def console_address(run: Run) -> str:
    """Of the console, for a person's browser: without MLRUNBOOK_PUBLIC_URL the one that works on this machine."""
    return run.world.public_url or settings().gateway_url.rstrip("/")


def gateway_link(path: str) -> str:
    return f"{settings().public_url or settings().gateway_url.rstrip('/')}/api/v1/{path}"


async def _show(key: str, create: Callable[[], Awaitable[object]]) -> None:
    try:
        await create()
    except httpx.HTTPError as error:
        raise Transient(f"Prefect did not take the artifact {_slug(key)} ({type(error).__name__}); is its server up?") from error


async def _once(run: Run, key: str, content: str, show: Callable[[], Awaitable[None]]) -> None:
    shown = (str(flow_run.id), _slug(key), hashlib.sha256(content.encode()).hexdigest()[:12])
    if await off_loop(run.recall, Shown, *shown):
        return
    await show()
    await off_loop(_record, run, shown)


def _record(run: Run, shown: tuple[str, ...]) -> None:
    with run.write() as conn:
        run.keep(conn, Shown(run.world.now()), *shown)


def _slug(key: str) -> str:
    return key.replace("_", "-").lower()


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
                    await artifacts.aupdate_progress_artifact(self._bars[what], progress=share)
                else:
                    bar, about = _slug(f"{self._key}-{what}"), f"{what}: {total:,} entities"
                    self._bars[what] = await artifacts.acreate_progress_artifact(progress=share, key=bar, description=about)
