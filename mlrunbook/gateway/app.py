"""The gateway's HTTP application: alerts and reports come in here, and people read, acknowledge and decide."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from difflib import get_close_matches

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from mlrunbook import __version__
from mlrunbook.base import web
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway import health, metrics
from mlrunbook.gateway.api import audits, changes_and_quarantine, incidents, modes
from mlrunbook.gateway.api.dependencies import models_of
from mlrunbook.gateway.console import router as console
from mlrunbook.gateway.console.route import no_such_page, wants_page
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.gateway.heartbeat import Heartbeat
from mlrunbook.gateway.webhooks import pagerduty_door, router
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.world import World

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 << 20  # Alertmanager sends a whole group at once and does not try again after a 413
MAX_JSON_PIECES = 20_000  # of a request but an alert's; a long review has some thousand commas
STOP_S = 5.0
DEFAULT_LIMITS = web.Limits(body_bytes=MAX_BODY_BYTES, json_pieces=MAX_JSON_PIECES)


def create_app(
    world: World,
    *,
    dispatcher: Dispatcher | None = None,
    heartbeat: Heartbeat | None = None,
    prefect_ui_url: str | None = None,
    public_url: str | None = None,
    limits: web.Limits | None = None,
    policy_now: Callable[[], Policy] | None = None,
) -> FastAPI:
    """The application on `world`. `dispatcher` and `heartbeat` run in threads of their own from startup to shutdown; without a dispatcher
    another process dispatches. `policy_now` reads the policy file anew, for what is read again after it was changed."""
    keeper = _Keeper(dispatcher) if dispatcher else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if keeper:
            keeper.start()
        if heartbeat:
            heartbeat.start()
        await run_in_threadpool(_note_modes, world)
        yield
        if heartbeat:
            heartbeat.stop()
        if keeper:
            await run_in_threadpool(keeper.stop)

    app = FastAPI(
        title="mlrunbook gateway",
        version=__version__,
        description=__doc__ or "",
        lifespan=lifespan,
        responses=web.PROBLEMS,
        docs_url=None,
        redoc_url=None,
    )
    web.prepare(
        app,
        engine=world.engine,
        limits=limits or DEFAULT_LIMITS,
        alert_doors=("/webhooks/",),
        models_of=models_of(world),
    )

    alive = (lambda: keeper.alive) if keeper else None
    health.expose(app, world, dispatcher=dispatcher, dispatcher_alive=alive, heartbeat=heartbeat)
    metrics.expose(app, world, dispatcher_alive=alive)

    @app.get("/", include_in_schema=False)
    def front_page() -> RedirectResponse:
        return RedirectResponse("/incidents", 303)

    app.include_router(incidents.router(world))
    app.include_router(audits.router(world))
    app.include_router(modes.router(world))
    app.include_router(changes_and_quarantine.router(world, policy_now or (lambda: world.policy)))
    for form in FORMATS.values():
        app.include_router(router.router(world, form))
    app.include_router(pagerduty_door.router(world))
    console.expose(app, world, policy_now=policy_now or (lambda: world.policy), public_url=public_url or "", prefect_ui_url=prefect_ui_url)
    app.add_exception_handler(404, _on_no_such_path)
    return app


def _note_modes(world: World) -> None:
    """A store that is away is no reason not to start: a run notes it later."""
    try:
        runs.take_up_what_was_observed(world)
    except RunbookError as error:
        log.warning("modes are not noted: %s", error)


def _on_no_such_path(request: Request, error: Exception) -> Response:
    """Of a webhook, with those that there are; a browser gets a page."""
    if isinstance(error, RunbookError):
        return web.problem_of(error)
    said, path = str(getattr(error, "detail", "Not Found")), request.url.path
    if said == "Not Found" and wants_page(request):
        return no_such_page(request)
    if path.startswith("/webhooks") and said == "Not Found":  # else the door itself says what is missing
        known = [*FORMATS, pagerduty_door.PATH.rpartition("/")[2]]
        asked = path.removeprefix("/webhooks").strip("/")[:100]
        meant = get_close_matches(asked.casefold(), known, n=1)
        said = f"there is no webhook {asked!r}" + (f"; did you mean /webhooks/{meant[0]}?" if meant else ".")
        said += f" There are {', '.join(f'/webhooks/{one}' for one in known)}"
    return web.problem(404, "Not Found", said)


class _Keeper:
    """Runs the dispatcher in a thread, and again when it fails in a way it did not foresee: pages must go out."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._dispatcher.is_stuck

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._dispatcher.stop()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._dispatcher.run()
            except Exception:
                if not self._stopping.is_set():
                    log.exception("the dispatcher failed; it starts again")
                    self._stopping.wait(1.0)
