"""What every HTTP service here shares: camelCase models, problem+json errors (RFC 9457), bearer tokens, limits.

app = FastAPI(...)
web.prepare(app, engine=engine, limits=Limits(body_bytes=8 << 20))

@app.post("/things")
def create(body: Thing, who: Annotated[Identity, Depends(web.require(Scope.OPERATE))]) -> ThingOut: ...
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import Engine
from sqlalchemy.exc import DataError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException as StarletteHTTPException

from mlrunbook.base.authentication import AuthenticatedRoute, ModelOf, require, router
from mlrunbook.base.edge import RETRY_AFTER_S, Edge, EdgeMiddleware, Limits
from mlrunbook.base.wording import plainly
from mlrunbook.domain.errors import Fenced, Invalid, NotApproved, NotFound, Refused, RunbookError, Transient

log = logging.getLogger(__name__)
PROBLEM = "application/problem+json"

__all__ = ["PROBLEMS", "CamelModel", "Limits", "Moment", "prepare", "problem", "problem_of", "require", "router"]


class CamelModel(BaseModel):
    """snake_case in Python, camelCase on the wire; frozen; unknown keys are an error that names them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _countable(at: datetime) -> datetime:
    if not EARLIEST <= at < LATEST:
        raise ValueError(f"must be between {EARLIEST:%Y} and {LATEST:%Y}")
    return at


EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# A moment that spans can be added to and taken from: at the ends of the calendar they overflow.
Moment = Annotated[AwareDatetime, AfterValidator(_countable)]


def _documented(description: str) -> dict[str, Any]:
    shape = {
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong and what to do next"},
            "field": {"type": "string", "description": "The field that is wrong"},
            "errors": {"type": "array", "items": {"type": "object"}},
        },
    }
    return {"description": description, "content": {PROBLEM: {"schema": shape}}}


# What any route may answer instead, for its OpenAPI (RFC 9457).
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _documented("Not readable, such as a body that is no JSON"),
    401: _documented("No valid token"),
    403: _documented("The token lacks the scope, or its role may not decide this"),
    404: _documented("Not found"),
    409: _documented("Refused as things stand"),
    413: _documented("The body is too large"),
    415: _documented("The body is compressed"),
    422: _documented("Invalid: `field` names what"),
    429: _documented("Too many requests a minute: wait for Retry-After seconds"),
    503: _documented("Try again after Retry-After seconds"),
}


def problem(
    status: int,
    title: str,
    detail: str = "",
    field: str | None = None,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An RFC 9457 answer. `field` is the wire name of the culprit, dotted; `errors` lists every one of several."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    if field:
        body["field"] = field
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status_code=status, media_type=PROBLEM, headers=dict(headers) if headers else None)


def status_of(error: RunbookError) -> int:
    """The status a runbook error has on the wire: what the caller may do about it decides it."""
    match error:
        case Transient():
            return 503
        case NotFound():
            return 404
        case Invalid():
            return 422
        case NotApproved():
            return 403
        case Fenced() | Refused():
            return 409
        case _:  # Unknown: nobody can tell, so nobody may retry blindly
            return 500


TITLES = {503: "Try again in a moment", 404: "Not found", 422: "Invalid request", 403: "Forbidden", 409: "Refused", 500: "Outcome unknown"}


def problem_of(error: RunbookError) -> JSONResponse:
    status = status_of(error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return problem(status, TITLES[status], str(error), error.field if isinstance(error, Invalid) else None, headers=headers)


def limit(app: FastAPI, limits: Limits, alert_doors: tuple[str, ...] = ()) -> Edge:
    """Give `app` the limits alone: for one that checks no token of ours."""
    app.state.edge = Edge(limits, alert_doors)
    app.add_middleware(EdgeMiddleware, edge=app.state.edge, refuse=_on_http_exception)
    edge: Edge = app.state.edge
    return edge


def prepare(
    app: FastAPI,
    *,
    engine: Engine,
    limits: Limits,
    alert_doors: tuple[str, ...] = (),
    models_of: Mapping[str, ModelOf] | None = None,
) -> None:
    """Give `app` the error handlers, the limits and the engine that `require` checks tokens with. Before its first route.

    Senders at the `alert_doors` (how their paths begin) try again after a 5xx alone. `models_of`: by the name of a path's parameter, how
    the model is found of what it names, for tokens that are limited to models.
    """
    app.state.engine, app.state.models_of = engine, dict(models_of or {})
    app.router.route_class = AuthenticatedRoute
    limit(app, limits, alert_doors)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)
    app.add_exception_handler(RunbookError, _on_runbook_error)
    for unstorable in (DataError, psycopg.DataError):
        app.add_exception_handler(unstorable, _on_data_error)
    app.add_exception_handler(PoolTimeout, _on_pool_timeout)
    app.add_exception_handler(Exception, _on_surprise)


# Errors at the root of the body that mean "this is not a JSON object at all".
_NOT_AN_OBJECT = {"json_invalid", "missing", "model_attributes_type", "model_type", "dict_type"}


def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid" or (tuple(first["loc"]) == ("body",) and first["type"] in _NOT_AN_OBJECT):
        why = first.get("ctx", {}).get("error", first["msg"]) if first["type"] == "json_invalid" else first["msg"]
        return problem(400, "Not a JSON object", f"send a JSON object with Content-Type: application/json ({why})")
    errors = _faults(error)
    return problem(422, "Invalid request", said_of(error), errors[0]["field"], errors=errors)


def _faults(error: RequestValidationError) -> list[dict[str, str]]:
    return [{"field": _path(e["loc"]), "detail": plainly(e)} for e in error.errors()[:20]]


def said_of(error: RequestValidationError) -> str:
    """What is wrong with the first fields, in words."""
    return "; ".join(f"{e['field']} {e['detail']}" for e in _faults(error)[:3])


def _path(loc: tuple[Any, ...]) -> str:
    where = loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(str(part) for part in where) or "body"


def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    # Python's own name of 413 changed with 3.13.
    title = "Body too large" if error.status_code == 413 else HTTPStatus(error.status_code).phrase
    return problem(error.status_code, title, str(error.detail), headers=error.headers)


def _on_runbook_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RunbookError)
    return problem_of(error)


def _on_data_error(_: Request, error: Exception) -> JSONResponse:
    log.info("a value did not fit the database: %s", error)
    return problem(422, "Invalid request", "a value cannot be stored: look for NUL characters and numbers out of range")


def _on_pool_timeout(_: Request, error: Exception) -> JSONResponse:
    return problem_of(Transient("all database connections are busy"))


def _on_surprise(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the traceback by raising on; the client gets none of it.
    return problem(500, "Internal error", f"{request.method} {request.url.path} failed here; the server's log has the details")
