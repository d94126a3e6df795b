"""`/docs`: the API's documentation, from files that we serve ourselves. The page that FastAPI makes runs a script inline, and fetches."""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse

from mlrunbook.gateway.console import rendering

# Swagger UI, which the package bundles; of the package itself nothing else is used.
FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def expose(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    def show_docs(request: Request) -> Response:
        return rendering.page(request, None, "docs.html.j2")

    for name, media_type in FILES.items():
        app.add_api_route(f"/docs/{name}", _file(name, media_type), include_in_schema=False)


def _file(name: str, media_type: str):  # type: ignore[no-untyped-def]
    def send() -> Response:
        with resources.as_file(resources.files("fastapi_swagger.resources") / name) as path:
            headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
            return FileResponse(path, media_type=media_type, headers=headers)

    return send
