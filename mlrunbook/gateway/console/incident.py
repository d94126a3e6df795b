"""The page of one incident: read from the store alone, and live while somebody looks at it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from mlrunbook.base import pages
from mlrunbook.domain.chain import Length
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Incident
from mlrunbook.gateway.api.incidents import EVIDENCE_HEADERS
from mlrunbook.gateway.api.messages import MessageOut
from mlrunbook.gateway.console import incident_charts, incident_reading, platform_history, rendering
from mlrunbook.gateway.console.incident_lists import EntryView
from mlrunbook.gateway.console.live import SIGNED_OUT, Live
from mlrunbook.gateway.console.rendering import page
from mlrunbook.gateway.console.route import ConsoleRoute, wants_fragment
from mlrunbook.gateway.console.route import router as pages_router
from mlrunbook.gateway.console.visitor import Reader, is_still_signed_in
from mlrunbook.response.world import World
from mlrunbook.store import alerts, evidence, incidents
from mlrunbook.store.timeline import Entry

IncidentId = Annotated[str, Path(alias="id")]
Before = Annotated[int, Query(ge=1, lt=2**31)]
After = Annotated[int, Query(ge=0, lt=2**31)]
Events = Annotated[int, Query(ge=0, lt=2**31)]
LastEventId = Annotated[str, Header(alias="Last-Event-ID")]
LAST_EVENT_ID = re.compile(r"[0-9]{1,10}")  # one that we gave
MESSAGES = 20  # of one page
STREAM = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}


def router(world: World, live: Live, *, prefect_ui_url: str | None = None) -> APIRouter:
    routes = pages_router()
    _pages(routes, world, prefect_ui_url)
    _charts(routes, world)
    _files(routes, world)
    _events(routes, world, live)
    return routes


def _pages(routes: APIRouter, world: World, prefect_ui_url: str | None) -> None:
    def read(incident_id: str, visitor: Any) -> dict[str, Any]:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            found = incident_reading.read(conn, world.policy, incident, visitor.who, now=world.now())
        return {"found": found, "title": f"{incident.model}: {incident.severity}", "run_url": run_url(prefect_ui_url, found.run)}

    @routes.get("/incidents/{id}")
    def show_incident(request: Request, visitor: Reader, incident_id: IncidentId) -> HTMLResponse:
        return page(request, visitor, "incident.html.j2", **read(incident_id, visitor))

    @routes.get("/incidents/{id}/live")
    def show_what_is_new(request: Request, visitor: Reader, incident_id: IncidentId) -> HTMLResponse:
        """All but the timeline and the charts, to take the place of what an open page shows."""
        return page(request, visitor, "incident_live.html.j2", **read(incident_id, visitor))

    @routes.get("/incidents/{id}/timeline")
    def show_older(request: Request, visitor: Reader, incident_id: IncidentId, before: Before = incident_reading.NEWEST) -> HTMLResponse:
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
            found = incident_reading.entries(conn, incident_id, before=before)
        below = found[-1].seq if found and found[-1].seq > 1 else None
        template = "incident_older.html.j2" if wants_fragment(request) else "incident_timeline.html.j2"
        return page(request, visitor, template, incident_id=incident_id, entries=found, below=below)

    @routes.get("/incidents/{id}/messages")
    def show_messages(request: Request, visitor: Reader, incident_id: IncidentId, after: After = 0) -> HTMLResponse:
        """The alerts' messages as they came, and how each was read."""
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            rows = alerts.messages(conn, incident_id, after=after, limit=MESSAGES)
        further = rows[-1]["id"] if len(rows) == MESSAGES else None
        said = [MessageOut.of(row) for row in rows]
        return page(request, visitor, "incident_messages.html.j2", incident=incident, messages=said, after=further)


def _charts(routes: APIRouter, world: World) -> None:
    @routes.get("/incidents/{id}/charts")
    def show_charts(request: Request, visitor: Reader, incident_id: IncidentId) -> HTMLResponse:
        """What the store knows. As a part of the page, or as a page where no script runs."""
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            facts = incident_charts.facts_of(conn, incident)
        template = "incident_charts.html.j2" if wants_fragment(request) else "incident_charts_page.html.j2"
        return page(request, visitor, template, incident=incident, charts=list(incident_charts.views(facts)))

    @routes.get("/incidents/{id}/history")
    async def show_history(request: Request, visitor: Reader, incident_id: IncidentId) -> HTMLResponse:
        """What the platform has counted until now, where it answers: everything else is there without it."""
        found = await platform_history.read(world, incident_id)
        template = "incident_history.html.j2" if wants_fragment(request) else "incident_history_page.html.j2"
        return page(request, visitor, template, incident_id=incident_id, charts=found.charts, said=found.said)


def _files(routes: APIRouter, world: World) -> None:
    @routes.get("/incidents/{id}/evidence/{name:path}")
    def save_evidence(visitor: Reader, incident_id: IncidentId, name: Annotated[str, Path()]) -> Response:
        """As it was preserved. Others wrote it: it is saved, never shown on a page of ours."""
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
            kept = evidence.content(conn, incident_id, name)
        if kept is None:
            raise NotFound(f"{incident_id} has no evidence {name[:100]}; its page lists what there is")
        saved_as = quote(f"{incident_id}-{name}".replace("/", "-"), safe="")
        headers = EVIDENCE_HEADERS | {"Content-Disposition": f"attachment; filename*=UTF-8''{saved_as}"}
        return Response(kept[0], media_type=kept[1], headers=headers)


class Stream(StreamingResponse):
    """`over` is called at its end, also when the browser has gone before the first word."""

    def __init__(self, said: AsyncIterator[str], over: Callable[[], None]) -> None:
        super().__init__(said, media_type=STREAM, headers=STREAM_HEADERS)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


class StreamRoute(ConsoleRoute):
    """Says in the stream's own words that the session is over: a redirect would make htmx come back twice a second."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_stream(request: Request) -> Response:
            answer = await handle(request)
            over = answer.status_code == 403 or "HX-Redirect" in answer.headers
            if over and wants_fragment(request):
                return Response(f"event: {SIGNED_OUT}\ndata: over\n\n", media_type=STREAM, headers=STREAM_HEADERS)
            return answer

        return handle_stream


def _events(routes: APIRouter, world: World, live: Live) -> None:
    streams = APIRouter(route_class=StreamRoute, include_in_schema=False)

    def there(incident_id: str) -> Incident:
        with world.transaction() as conn:
            return incidents.get(conn, incident_id)

    @streams.get("/incidents/{id}/events")
    async def follow_incident(
        request: Request,
        visitor: Reader,
        incident_id: IncidentId,
        after: After = 0,
        events: Events | None = None,
        last_event_id: LastEventId = "",
    ) -> StreamingResponse:
        """New entries of the timeline as they come, and a word when anything else of the incident changed."""
        await live.read(lambda: there(incident_id))
        shown = Length(after, events) if events is not None and not last_event_id else None
        last = int(last_event_id) if LAST_EVENT_ID.fullmatch(last_event_id) else after
        person = visitor.who.person
        said = live.follow(incident_id, after=max(last, after), shown=shown, still_allowed=lambda: is_still_signed_in(request, visitor))
        live.take_place(person)
        return Stream(said, lambda: live.give_back(person))

    routes.include_router(streams)


def entry_html(entry: Entry) -> str:
    """One line of the timeline, in one line."""
    return " ".join(pages.render(rendering.__package__ or "", "incident_entry.html.j2", one=EntryView.of(entry)).split("\n")).strip()


def run_url(prefect_ui_url: str | None, run: str | None) -> str | None:
    """Where the run is in Prefect's pages; None where it is not known to be a run of Prefect."""
    if not prefect_ui_url or not run:
        return None
    try:
        return f"{prefect_ui_url.rstrip('/')}/runs/flow-run/{UUID(run)}"
    except ValueError:
        return None
