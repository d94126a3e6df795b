"""The sign-in page: with a personal token; and signing out."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from mlrunbook.base import tokens
from mlrunbook.base.authentication import edge_of
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.gateway.console import rendering, visitor
from mlrunbook.gateway.console.local_path import local_path
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Console, Reader, console_of
from mlrunbook.store import console_sessions
from mlrunbook.store.console_sessions import Door, SignedIn

Next = Annotated[str, Form()]


def router() -> APIRouter:
    routes = console_router()

    @routes.get("/login")
    async def sign_in_page(request: Request, next: str = "") -> Response:
        return await page(request, next)

    @routes.post("/login/token")
    async def sign_in_with_a_token(request: Request, token: Annotated[str, Form()] = "", next: Next = "") -> Response:
        visitor.check_site(request)
        edge_of(request).check_failures(request)
        found = await to_thread.run_sync(_owner, console_of(request), token.strip())
        if isinstance(found, str):
            error = edge_of(request).failed(request, HTTPException(401, found))
            if error.status_code != 401:
                raise error
            return await page(request, next, status=401, wrong=found)
        return await signed_in(request, _of_token(Door.TOKEN, found), next)

    @routes.post("/logout")
    async def sign_out(request: Request, _: Reader) -> Response:
        await to_thread.run_sync(_end, console_of(request), visitor.secret_of(request))
        answer = RedirectResponse("/login", 303)
        visitor.forget(request, answer)
        return answer

    return routes


async def page(request: Request, next: str, *, status: int = 200, wrong: str = "") -> Response:
    """The ways in. Whoever is signed in already sees as whom, and why they are asked again."""
    found = await visitor.look_up(request)
    limits = console_of(request).world.policy.console
    return rendering.page(
        request,
        None,
        "sign_in.html.j2",
        status=status,
        wrong=wrong,
        next=local_path(next),
        already=found[1].name if found else "",
        fresh_min=limits.fresh_sign_in_min,
    )


async def signed_in(request: Request, of: SignedIn, next: str) -> Response:
    """A new session, and on to where the person wanted to go."""
    secret = await to_thread.run_sync(console_of(request).begin, of, visitor.secret_of(request))
    answer = RedirectResponse(local_path(next), 303, headers={"Cache-Control": "no-store"})
    visitor.keep(request, answer, secret)
    return answer


def _owner(console: Console, presented: str) -> Identity | str:
    """Whose token that is, or why it does not do."""
    if not presented:
        return "paste your token: it begins with mlrb_"
    with console.world.transaction() as conn:
        found = tokens.verify(conn, presented)
        if found is None:
            return tokens.why_invalid(conn, presented)
    if Scope.READ not in found.scopes:
        return f"the token of {found.name} may not read incidents: use one with the scope read"
    return found


def _of_token(door: Door, who: Identity) -> SignedIn:
    return SignedIn(door, who.person, who.name, token_id=who.token_id)


def _end(console: Console, secret: str) -> None:
    with console.world.transaction() as conn:
        console_sessions.end(conn, secret, now=console.world.now())
