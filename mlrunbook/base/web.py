"""What every HTTP service here shares: camelCase models, problem+json errors (RFC 9457), bearer tokens, a body limit.

app = FastAPI(...)
web.prepare(app, engine=engine, max_body_bytes=8 << 20)

@app.post("/things")
def create(body: Thing, who: Annotated[Identity, Depends(web.require(Scope.OPERATE))]) -> ThingOut: ...
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import psycopg
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import Engine
from sqlalchemy.exc import DataError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import Fenced, Invalid, NotApproved, NotFound, Refused, RunbookError, Transient

log = logging.getLogger(__name__)
PROBLEM = "application/problem+json"
RETRY_AFTER_S = 5
MAX_BODY_BYTES = 1 << 20


class CamelModel(BaseModel):
    """snake_case in Python, camelCase on the wire; frozen; unknown keys are an error that names them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _countable(at: datetime) -> datetime:
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"must lie between the years {FIRST_YEAR} and {LAST_YEAR}")
    return at


# A time from outside: at the ends of the calendar no deadline and no window can be counted.
FIRST_YEAR, LAST_YEAR = 1970, 2200
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
    422: _documented("Invalid: `field` names what"),
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


def problem_of(error: RunbookError) -> JSONResponse:
    """The status a runbook error has on the wire: what the caller may do about it decides it."""
    match error:
        case Transient():
            return problem(503, "Try again in a moment", str(error), headers={"Retry-After": str(RETRY_AFTER_S)})
        case NotFound():
            return problem(404, "Not found", str(error))
        case Invalid():
            return problem(422, "Invalid request", str(error), error.field)
        case NotApproved():
            return problem(403, "Not approved", str(error))
        case Fenced() | Refused():
            return problem(409, "Refused", str(error))
        case _:  # Unknown: nobody can tell, so nobody may retry blindly
            return problem(500, "Outcome unknown", str(error))


def prepare(app: FastAPI, *, engine: Engine, max_body_bytes: int = MAX_BODY_BYTES) -> None:
    """Give `app` the error handlers, the body limit and the engine that `require` checks tokens with."""
    app.state.engine = engine
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)
    app.add_exception_handler(RunbookError, _on_runbook_error)
    for unstorable in (DataError, psycopg.DataError):
        app.add_exception_handler(unstorable, _on_data_error)
    app.add_exception_handler(PoolTimeout, _on_pool_timeout)
    app.add_exception_handler(Exception, _on_surprise)


def require(scope: Scope, *, basic: bool = False) -> Callable[[Request], Identity]:
    """A dependency: the identity of a valid `Authorization: Bearer` token with `scope`, else 401 or 403.

    `basic`: HTTP basic with the token as password does too, for senders that cannot set a bearer token.
    """
    challenge = {"WWW-Authenticate": f'Bearer scope="{scope}"' + (', Basic realm="mlrunbook"' if basic else "")}

    def identity(request: Request) -> Identity:
        kind, _, presented = request.headers.get("authorization", "").partition(" ")
        if basic and kind.lower() == "basic":
            kind, presented = "bearer", _password(presented)
        if kind.lower() != "bearer" or not presented.strip():
            hint = f"this needs a token of scope {scope}: send `Authorization: Bearer mlrb_...` (`mlrunbook token create`)"
            raise HTTPException(401, hint, challenge)
        with transaction(request.app.state.engine) as conn:
            found = tokens.verify(conn, presented.strip())
        if found is None:
            raise HTTPException(401, "this token is unknown or revoked: create a new one with `mlrunbook token create`", challenge)
        if scope not in found.scopes:
            raise HTTPException(403, f"the token of {found.name} lacks the scope {scope}: create one that has it", challenge)
        return found

    return identity


def _password(credentials: str) -> str:
    """The password of HTTP basic credentials (RFC 7617); empty when they are none."""
    with contextlib.suppress(ValueError):
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    return ""


class BodyLimit:
    """Pure ASGI: read the body before the application does, and answer 413 as soon as it is too large, chunked or not."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await self._refuse(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                await self._refuse(scope, receive, send)
                return
        replay: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed() -> Message:
            return replay.pop() if replay else await receive()

        await self.app(scope, replayed, send)

    async def _refuse(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        detail = f"the body is larger than {self.max_bytes} bytes: send less at a time"
        await problem(413, "Body too large", detail, headers={"Connection": "close"})(scope, receive, send)


# Errors at the root of the body that mean "this is not a JSON object at all".
_NOT_AN_OBJECT = {"json_invalid", "missing", "model_attributes_type", "model_type", "dict_type"}


def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first = found[0]
    if first["type"] == "json_invalid" or (tuple(first["loc"]) == ("body",) and first["type"] in _NOT_AN_OBJECT):
        why = first.get("ctx", {}).get("error", first["msg"]) if first["type"] == "json_invalid" else first["msg"]
        return problem(400, "Not a JSON object", f"send a JSON object with Content-Type: application/json ({why})")
    errors = [{"field": _path(e["loc"]), "detail": e["msg"]} for e in found[:20]]
    detail = "; ".join(f"{e['field']}: {e['detail']}" for e in errors[:3])
    return problem(422, "Invalid request", detail, errors[0]["field"], errors=errors)


def _path(loc: tuple[Any, ...]) -> str:
    where = loc[1:] if loc and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(str(part) for part in where) or "body"


def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail), headers=error.headers)


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
