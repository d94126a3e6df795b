"""Who sends a request, found out before its body is read.

A route that depends on `require(...)`, or on any other `authentication(...)`, asks it first: for a sender who is not proven no body is
read, no path looked up and no field validated. So nobody without a token learns what exists, or makes us hold what they send.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Edge, meter_of
from mlrunbook.base.tokens import Identity, Scope

Prove = Callable[[Request], Awaitable[Identity]]

PROVEN = "mlrunbook.proven"  # where in the ASGI scope it is kept who was proven
WITH_BODY = ("POST", "PUT", "PATCH")
# Threads of its own: a flood of wrong tokens takes none from requests that are let in.
_lookups = CapacityLimiter(8)
_authentications: set[Any] = set()


def authentication(prove: Prove) -> Prove:
    """A dependency made of `prove`, which raises HTTPException 401 or 403. It runs once a request, and failures are counted."""

    async def identity(request: Request) -> Identity:
        proven: dict[Prove, Identity] = request.scope.setdefault(PROVEN, {})
        if identity not in proven:
            proven[identity] = await _admitted(request, prove)
        return proven[identity]

    _authentications.add(identity)
    return identity


def require(scope: Scope, *, basic: bool = False) -> Prove:
    """A dependency: the identity of a valid `Authorization: Bearer` token with `scope`, else 401 or 403.

    `basic`: HTTP basic with the token as password does too, for senders that cannot set a bearer token.
    """

    async def prove(request: Request) -> Identity:
        return await owner(request, scope, basic=basic)

    return authentication(prove)


async def owner(request: Request, scope: Scope, *, basic: bool = False) -> Identity:
    """Whose token the request carries. Says no by HTTPException, and counts nothing."""
    challenge = {"WWW-Authenticate": f'Bearer scope="{scope}"' + (', Basic realm="mlrunbook"' if basic else "")}
    kind, _, presented = request.headers.get("authorization", "").partition(" ")
    if basic and kind.lower() == "basic":
        kind, presented = "bearer", password(presented)
    if kind.lower() != "bearer" or not presented.strip():
        hint = f"this needs a token of scope {scope}: send `Authorization: Bearer mlrb_...` (`mlrunbook token create`)"
        raise HTTPException(401, hint, challenge)

    def look_up() -> Identity | None:
        with transaction(request.app.state.engine) as conn:
            return tokens.verify(conn, presented.strip())

    found = await to_thread.run_sync(look_up, limiter=_lookups)
    if found is None:
        raise HTTPException(401, "this token is unknown or revoked: create a new one with `mlrunbook token create`", challenge)
    if scope not in found.scopes:
        raise HTTPException(403, f"the token of {found.name} lacks the scope {scope}: create one that has it", challenge)
    return found


def password(credentials: str) -> str:
    """The password of HTTP basic credentials (RFC 7617); empty when they are none."""
    with contextlib.suppress(ValueError):
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    return ""


class AuthenticatedRoute(APIRoute):
    """Authenticates, then reads the body, then takes a place to run in; only then do path, query and body get looked at."""

    @property
    def authentications(self) -> list[Prove]:
        return list(dict.fromkeys(_of(self.dependant)))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not (checks := self.authentications):
            return handle

        async def handle_proven(request: Request) -> Response:
            for check in checks:
                await check(request)
            if request.method in WITH_BODY:
                await request.body()
            async with edge_of(request).slot():
                return await handle(request)

        return handle_proven


def router(**how: Any) -> APIRouter:
    """A router whose routes authenticate first."""
    return APIRouter(route_class=AuthenticatedRoute, **how)


def edge_of(request: Request) -> Edge:
    edge: Edge = request.app.state.edge
    return edge


async def _admitted(request: Request, prove: Prove) -> Identity:
    edge = edge_of(request)
    try:
        who = await prove(request)
    except HTTPException as error:
        raise (edge.failed(request, error) if error.status_code in (401, 403) else error) from error
    meter_of(request).prove()
    if (wait_s := edge.of_token.wait_s(who.token_id or f"format {who.name}")) is not None:
        raise edge.too_many(request.url.path, wait_s, "with this token")
    return who


def _of(dependant: Dependant) -> Iterator[Prove]:
    for one in dependant.dependencies:
        if one.call in _authentications:
            yield one.call  # type: ignore[misc]
        yield from _of(one)
