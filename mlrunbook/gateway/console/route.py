"""Routes of pages: whoever is not signed in gets the sign-in page, and every error is a page that says what to do next."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from mlrunbook.base import web
from mlrunbook.base.authentication import AuthenticatedRoute
from mlrunbook.domain.errors import RunbookError
from mlrunbook.gateway.console import rendering
from mlrunbook.gateway.console.local_path import parts_of

SIGN_IN = "/login"
TITLES = {
    403: "You may not do this",
    404: "Not found",
    409: "Not as things stand",
    422: "Something is missing",
    429: "Too many requests",
    503: "Try again in a moment",
}


class ConsoleRoute(AuthenticatedRoute):
    """Authenticates as the API's routes do, and answers in HTML."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                if error.status_code == 401:
                    return to_sign_in(request)
                return error_page(request, error.status_code, str(error.detail), dict(error.headers or {}))
            except RequestValidationError as error:
                return error_page(request, 422, web.said_of(error))
            except RunbookError as error:
                return error_page(request, web.status_of(error), str(error))

        return handle_page


def router(**how: Any) -> APIRouter:
    return APIRouter(route_class=ConsoleRoute, include_in_schema=False, **how)


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks, for a piece of a page."""
    return request.headers.get("hx-request") == "true"


def to_sign_in(request: Request) -> Response:
    """After signing in the person is on the page they see now; of what was sent from another page, at that page."""
    there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if seen := _page_seen(request):
        there = seen
    return redirect(request, f"{SIGN_IN}?next={quote(there, safe='')}")


def _page_seen(request: Request) -> str:
    """The page that a form or a part of a page was asked from; empty where the request is for the page itself."""
    if wants_fragment(request):
        seen = request.headers.get("hx-current-url", "")
    else:
        seen = request.headers.get("referer", "") if request.method != "GET" else ""
    parts = parts_of(seen)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def redirect(request: Request, to: str) -> Response:
    """A redirect that htmx follows as a page, too."""
    if wants_fragment(request):
        return Response(status_code=200, headers={"HX-Redirect": to, "Cache-Control": "no-store"})
    return RedirectResponse(to, status_code=303, headers={"Cache-Control": "no-store"})


API = ("/api/", "/webhooks", "/health", "/ready", "/metrics", "/openapi.json")


def wants_page(request: Request) -> bool:
    """Whether a browser asks for something to look at; programs get problem+json, and so does every path of the API."""
    accept = request.headers.get("accept", "")
    return request.method in ("GET", "HEAD") and "text/html" in accept and not request.url.path.startswith(API)


def no_such_page(request: Request) -> Response:
    return rendering.page(request, None, "no_such_page.html.j2", status=404)


def error_page(request: Request, status: int, said: str, headers: dict[str, str] | None = None) -> Response:
    title = TITLES.get(status) or HTTPStatus(status).phrase
    kept = {name: value for name, value in (headers or {}).items() if name.lower() == "retry-after"}
    return rendering.page(request, None, "error.html.j2", status=status, headers=kept, title=title, said=said)
