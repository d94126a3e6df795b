"""The sign-in page and its doors: a personal token, a link from the command line, the provider; and signing out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from mlrunbook.base import tokens, web
from mlrunbook.base.authentication import edge_of
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import Invalid, NotApproved, NotFound
from mlrunbook.gateway.console import entering, oidc, rendering, visitor
from mlrunbook.gateway.console.local_path import local_path
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import SESSION, Console, Reader, console_of
from mlrunbook.store import console_sessions
from mlrunbook.store.console_sessions import Door, Purpose, Session, SignedIn

LINK_LASTS = timedelta(minutes=10)
AWAY_LASTS = timedelta(minutes=15)  # at the provider: a password, a second factor
Next = Annotated[str, Form()]


class LinkIn(web.CamelModel):
    next: str = ""


class LinkOut(web.CamelModel):
    url: str
    expires_at: datetime


def router() -> APIRouter:
    routes = console_router()

    @routes.get("/login")
    async def sign_in_page(request: Request, next: str = "") -> Response:
        if (of := visitor.of_proxy(request)) is not None and await visitor.look_up(request) is None:
            return await entering.signed_in(request, of, next)
        return await entering.page(request, next)

    @routes.post("/login/token")
    async def sign_in_with_a_token(request: Request, token: Annotated[str, Form()] = "", next: Next = "") -> Response:
        visitor.check_site(request)
        edge_of(request).check_failures(request)
        found = await to_thread.run_sync(_owner, console_of(request), token.strip())
        if isinstance(found, str):
            return await _failed(request, found, next)
        return await entering.signed_in(request, _of_token(Door.TOKEN, found), next)

    @routes.post("/logout")
    async def sign_out(request: Request, _: Reader) -> Response:
        session: Session = request.scope[SESSION]
        await to_thread.run_sync(_end, console_of(request), visitor.secret_of(request))
        provider, elsewhere = console_of(request).provider, None
        if session.of.door is Door.OIDC and provider is not None:
            elsewhere = await provider.end_url(session.of.id_token, f"{provider.public_url}/login")
        # A redirect after a form may not leave this site (form-action): the page goes on by itself.
        headers = {"Refresh": f"0; url={elsewhere}"} if elsewhere else {}
        answer = rendering.page(request, None, "signed_out.html.j2", headers=headers, elsewhere=elsewhere or "")
        visitor.forget(request, answer)
        return answer

    _with_a_link(routes)
    _with_the_provider(routes)
    return routes


def links() -> APIRouter:
    """Of the API: who has a token makes a link of it, for a browser that has none."""
    routes = web.router(tags=["console"])
    holder = web.require(Scope.READ, model_in_body=True)  # what the session sees is confined to the token's models all the same

    @routes.post("/api/v1/console/links", status_code=201)
    def make_sign_in_link(request: Request, body: LinkIn, who: Identity = Depends(holder)) -> LinkOut:
        """A link that signs in once, with the rights of this token, within ten minutes."""
        console = console_of(request)
        now = console.world.now()
        with console.world.transaction() as conn:
            kept = {"token_id": who.token_id, "next": local_path(body.next)}
            secret = console_sessions.once(conn, Purpose.LINK, kept, now=now, lasts=LINK_LASTS)
        here = console.public_url or str(request.base_url).rstrip("/")
        return LinkOut(url=f"{here}/login/link/{secret}", expires_at=now + LINK_LASTS)

    return routes


def _with_a_link(routes: APIRouter) -> None:
    @routes.get("/login/link/{secret}")
    async def look_at_a_link(request: Request, secret: str) -> Response:
        """Uses nothing up: scanners of mail and previews of chats open links too."""
        edge_of(request).check_failures(request)
        found = await to_thread.run_sync(_of_link, console_of(request), secret, False)
        if isinstance(found, str):
            return await _failed(request, found, "")
        return rendering.page(request, None, "sign_in_link.html.j2", name=found[0].name, secret=secret)

    @routes.post("/login/link/{secret}")
    async def sign_in_with_a_link(request: Request, secret: str) -> Response:
        visitor.check_site(request)
        edge_of(request).check_failures(request)
        found = await to_thread.run_sync(_of_link, console_of(request), secret, True)
        if isinstance(found, str):
            return await _failed(request, found, "")
        return await entering.signed_in(request, _of_token(Door.LINK, found[0]), found[1])


def _with_the_provider(routes: APIRouter) -> None:
    @routes.get("/login/oidc")
    async def go_to_the_provider(request: Request, next: str = "") -> Response:
        edge_of(request).check_failures(request)
        console, provider = console_of(request), _provider(request)
        asked_again = await visitor.look_up(request) is not None
        max_age_s = console.policy.fresh_sign_in_min * 60 if asked_again else None
        address, kept = await provider.begin(request, max_age_s=max_age_s)
        remembered = {"kept": kept, "next": local_path(next), "max_age_s": max_age_s}
        secret = await to_thread.run_sync(_remember, console, remembered)
        answer = RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})
        visitor.keep_for_the_way(request, answer, secret, lasts=AWAY_LASTS)
        return answer

    @routes.get(oidc.CALLBACK)
    async def back_from_the_provider(request: Request) -> Response:
        edge_of(request).check_failures(request)
        console, provider = console_of(request), _provider(request)
        try:
            remembered = await to_thread.run_sync(_recall, console, visitor.on_the_way(request))
            proven = await provider.finish(request, remembered["kept"], console.policy)
            _check_age(console, proven.at, remembered["max_age_s"])
            answer = await entering.signed_in(request, proven.of, remembered["next"], proven_at=proven.at)
        except (NotApproved, Invalid) as error:
            answer = await _failed(request, str(error), "", status=403)
        visitor.forget_the_way(request, answer)
        return answer


async def _failed(request: Request, why: str, next: str, *, status: int = 401) -> Response:
    """The sign-in page again, with what was wrong. Attempts are counted as those at the API are: too many are told to wait."""
    error = edge_of(request).failed(request, HTTPException(401, why))
    if error.status_code != 401:
        raise error
    return await entering.page(request, next, status=status, wrong=why)


def _provider(request: Request) -> oidc.Provider:
    provider = console_of(request).provider
    if provider is None:
        raise NotFound("no sign-in provider is configured here: sign in with a token, or a link from `mlrunbook login`")
    return provider


def _owner(console: Console, presented: str) -> Identity | str:
    """Whose token that is, or why it does not do."""
    if not presented:
        return "paste your token: it begins with mlrb_"
    with console.world.transaction() as conn:
        found = tokens.verify(conn, presented)
        if found is None:
            return tokens.why_invalid(conn, presented)
    return found if Scope.READ in found.scopes else f"the token of {found.name} may not read incidents: use one with the scope read"


def _of_link(console: Console, secret: str, is_used: bool) -> tuple[Identity, str] | str:
    """Whose link that is and where it leads, or why it does not do."""
    take = console_sessions.use if is_used else console_sessions.look_at
    with console.world.transaction() as conn:
        kept = take(conn, Purpose.LINK, secret, now=console.world.now())
        who = tokens.of_id(conn, kept["token_id"]) if kept is not None else None
    if kept is None:
        return "this link was used already or is too old: `mlrunbook login` prints a new one"
    if who is None:
        return "the token behind this link was revoked or is over: sign in with another one"
    return who, str(kept["next"])


def _of_token(door: Door, who: Identity) -> SignedIn:
    return SignedIn(door, who.person, who.name, token_id=who.token_id)


def _remember(console: Console, what: dict[str, Any]) -> str:
    with console.world.transaction() as conn:
        return console_sessions.once(conn, Purpose.OIDC, what, now=console.world.now(), lasts=AWAY_LASTS)


def _recall(console: Console, secret: str) -> dict[str, Any]:
    with console.world.transaction() as conn:
        kept = console_sessions.use(conn, Purpose.OIDC, secret, now=console.world.now()) if secret else None
    if kept is None:
        raise NotApproved(f"{oidc.NO_FIT}: {oidc.AGAIN}")
    return kept


def _check_age(console: Console, proven_at: datetime | None, max_age_s: int | None) -> None:
    """Whoever was asked again must have proved themselves again: some providers do not ask."""
    if max_age_s is None or proven_at is None:
        return
    if console.world.now() - proven_at > timedelta(seconds=max_age_s + oidc.LEEWAY_S):
        raise NotApproved("the provider did not ask you again: sign out there first, or sign in with a token")


def _end(console: Console, secret: str) -> None:
    with console.world.transaction() as conn:
        console_sessions.end(conn, secret, now=console.world.now())
