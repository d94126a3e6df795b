"""Who sends a request, found out before its body is read.

A route that depends on `require(...)`, or on any other `authentication(...)`, asks it first: for a sender who is not proven no body is
read, no path looked up and no field validated. So nobody without a token learns what exists, or makes us hold what they send.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Edge, NothingShown, meter_of
from mlrunbook.base.tokens import Identity, Scope

Prove = Callable[[Request], Awaitable[Identity]]

log = logging.getLogger(__name__)
PROVEN = "mlrunbook.proven"  # where in the ASGI scope it is kept who was proven
WITH_BODY = ("POST", "PUT", "PATCH")
# Threads of its own: a flood of wrong tokens takes none from requests that are let in.
_lookups = CapacityLimiter(8)
_doors: dict[Any, Door] = {}
_deprecated: set[str] = set()  # tokens whose old scope was logged
# What a path calls a model, and how the model is found of what a path calls otherwise (`app.state.models_of`).
MODEL_PARAMETERS = ("model", "modelId", "asked")
ModelOf = Callable[[str], str | None]  # None: there is no such thing


@dataclass(frozen=True)
class Door:
    """What a route asks of who comes: the scope; of which sender what it takes is (None: it takes nothing in), for tokens that are
    limited to senders; and where the model is named, for tokens that are limited to models."""

    scope: Scope
    sender: str | None = None
    model_in_body: bool = False  # the route itself asks `Identity.confine_to`


def authentication(prove: Prove, door: Door) -> Prove:
    """A dependency made of `prove`, which raises HTTPException 401 or 403. It runs once a request, and failures are counted."""

    async def identity(request: Request) -> Identity:
        proven: dict[Prove, Identity] = request.scope.setdefault(PROVEN, {})
        if identity not in proven:
            proven[identity] = await _admitted(request, prove, door)
        return proven[identity]

    _doors[identity] = door
    return identity


def require(scope: Scope, *, basic: bool = False, sender: str | None = None, model_in_body: bool = False) -> Prove:
    """A dependency: the identity of a valid `Authorization: Bearer` token with `scope`, else 401 or 403. The rest: see `Door`.

    `basic`: HTTP basic with the token as password does too, for senders that cannot set a bearer token.
    """

    async def prove(request: Request) -> Identity:
        return await owner(request, scope, basic=basic)

    return authentication(prove, Door(scope, sender, model_in_body))


async def owner(request: Request, scope: Scope, *, basic: bool = False) -> Identity:
    """Whose token the request carries. Says no by HTTPException, and counts nothing."""
    challenge = {"WWW-Authenticate": f'Bearer scope="{scope}"' + (', Basic realm="mlrunbook"' if basic else "")}
    kind, _, presented = request.headers.get("authorization", "").partition(" ")
    if basic and kind.lower() == "basic":
        kind, presented = "bearer", password(presented)
    if kind.lower() != "bearer" or not presented.strip():
        hint = f"this needs a token of scope {scope}: send `Authorization: Bearer mlrb_...` (`mlrunbook token create`)"
        raise HTTPException(401, hint, challenge)
    return await holder(request, presented.strip(), scope, challenge)


async def holder(request: Request, presented: str, scope: Scope, challenge: dict[str, str] | None = None) -> Identity:
    """Whose token that is, wherever in the request it stood. Says no as `owner` does."""

    def look_up() -> Identity | str:
        with transaction(request.app.state.engine) as conn:
            return tokens.verify(conn, presented) or tokens.why_invalid(conn, presented)

    found = await to_thread.run_sync(look_up, limiter=_lookups)
    if isinstance(found, str):
        raise HTTPException(401, found, challenge)
    if scope not in found.scopes:
        raise HTTPException(403, f"the token of {found.name} lacks the scope {scope}: create one that has it", challenge)
    _note_deprecated(found, scope)
    return found


def _note_deprecated(who: Identity, scope: Scope) -> None:
    """Once a process and token."""
    if Scope.INTAKE in who.scopes and scope in tokens.OF_INTAKE and who.token_id not in _deprecated:
        _deprecated.add(who.token_id)
        log.warning("token %s of %s is used for %s: %s", who.token_id, who.name, scope, tokens.DEPRECATION)


def password(credentials: str) -> str:
    """The password of HTTP basic credentials (RFC 7617); empty when they are none."""
    with contextlib.suppress(ValueError):
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    return ""


class AuthenticatedRoute(APIRoute):
    """Authenticates, then reads the body, then takes a place to run in; only then do path, query and body get looked at.

    A token that is limited to models passes where the path, or the query `model` that the route reads, names one of them, or where the
    route has said that it looks itself. Everywhere else, such as at a list of everything, it is refused.
    """

    @property
    def authentications(self) -> list[Prove]:
        return list(dict.fromkeys(_of(self.dependant)))

    @property
    def doors(self) -> list[Door]:
        return [_doors[one] for one in self.authentications]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not (checks := self.authentications):
            return handle
        asks_model = "model" in _query_of(self.dependant)

        async def handle_proven(request: Request) -> Response:
            for check in checks:
                who = await check(request)
                if who.limits.models and not _doors[check].model_in_body:
                    await _confine(request, who, asks_model=asks_model)
            if request.method in WITH_BODY:
                edge_of(request).check_pieces(request.url.path, await request.body())
            async with edge_of(request).slot():
                return await handle(request)

        return handle_proven


def router(**how: Any) -> APIRouter:
    """A router whose routes authenticate first."""
    return APIRouter(route_class=AuthenticatedRoute, **how)


def edge_of(request: Request) -> Edge:
    edge: Edge = request.app.state.edge
    return edge


async def _admitted(request: Request, prove: Prove, door: Door) -> Identity:
    edge = edge_of(request)
    try:
        who = await prove(request)
        if door.sender and not who.may_post_as(door.sender):
            raise HTTPException(403, f"the token of {who.name} may post only for {', '.join(who.limits.senders)}, not for {door.sender}")
    except NothingShown:
        raise
    except HTTPException as error:
        raise (edge.failed(request, error) if error.status_code in (401, 403) else error) from error
    meter_of(request).prove()
    if (wait_s := edge.of_token.wait_s(who.token_id or (f"format {who.name}" if who.secret else f"person {who.person}"))) is not None:
        raise edge.too_many(request.url.path, wait_s, "with this token")
    return who


async def _confine(request: Request, who: Identity, *, asks_model: bool) -> None:
    """403 unless all that the request is about is of models that the token is good for. What does not exist is refused alike."""
    named: list[str | None] = [value for name, value in request.path_params.items() if name in MODEL_PARAMETERS]
    named += request.query_params.getlist("model") if asks_model else []
    for name, model_of in request.app.state.models_of.items():
        if name in request.path_params:
            named.append(await to_thread.run_sync(model_of, str(request.path_params[name]), limiter=_lookups))
    if not named or not all(model is not None and who.may_see(model) for model in named):
        limit = f"the token of {who.name} is limited to the models {', '.join(who.limits.models)}"
        raise edge_of(request).failed(request, HTTPException(403, f"{limit}: ask for one of them, or use a token without this limit"))


def _of(dependant: Dependant) -> Iterator[Prove]:
    for one in dependant.dependencies:
        if one.call in _doors:
            yield one.call  # type: ignore[misc]
        yield from _of(one)


def _query_of(dependant: Dependant) -> set[str]:
    return {field.alias for field in dependant.query_params}.union(*map(_query_of, dependant.dependencies))
