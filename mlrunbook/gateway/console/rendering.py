"""A page or a piece of one, with the headers that keep it ours: no script, style, frame or form of anybody else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mlrunbook import __version__
from mlrunbook.base import pages
from mlrunbook.gateway.console import confirmations

STATIC = "/static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def page(
    request: Request,
    visitor: object | None,
    template: str,
    /,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """The template of this package. `visitor` None: nobody is signed in, or it does not matter who."""
    frame = {"visitor": visitor, "path": request.url.path, "static": STATIC, "version": __version__}
    frame["did"] = confirmations.sentence(request.query_params.get("did", "")) if request.method == "GET" else ""
    html = pages.render(__package__, template, **frame, **values)
    return HTMLResponse(html, status_code=status, headers=HEADERS | dict(headers or {}))


class Static(StaticFiles):
    """Our own script and style. Their addresses carry the version, so a browser may keep them."""

    def __init__(self) -> None:
        super().__init__(directory=Path(__file__).parent / "static")

    async def get_response(self, path: str, scope: Scope) -> Any:
        answer = await super().get_response(path, scope)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        answer.headers["Cache-Control"] = "public, max-age=86400"
        return answer
