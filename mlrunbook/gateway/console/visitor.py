"""Who is signed in to the console: what routes ask of them, and that it is they who sent a form.

@routes.post("/incidents/{id}/resolve")
def resolve(incident_id: IncidentId, visitor: Operator) -> Response: ...
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, HTTPException, Request, Response

from mlrunbook.base import authentication as doors
from mlrunbook.base import tokens
from mlrunbook.base.edge import NothingShown
from mlrunbook.base.http_server import PEER
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.console import ConsolePolicy
from mlrunbook.gateway.console.local_path import parts_of
from mlrunbook.gateway.console.oidc import Provider
from mlrunbook.response.world import World
from mlrunbook.store import console_sessions
from mlrunbook.store.console_sessions import Door, Session, SignedIn

WAY = "-way"
SESSION = "mlrunbook.session"  # where in the ASGI scope the session is kept that was found
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
OWN_SITES = ("same-origin", "none")  # of Sec-Fetch-Site: our own pages, and the person at the address bar
NOT_SIGNED_IN = "sign in first"
# Threads of its own, as for tokens: a flood of invented sessions takes none from requests that are let in.
_lookups = CapacityLimiter(8)


@dataclass(frozen=True)
class Console:
    """What signing in stands on. `public_url`: where browsers reach us; empty where nobody has said. `provider` None: there is none."""

    world: World
    public_url: str = ""
    provider: Provider | None = None

    @property
    def policy(self) -> ConsolePolicy:
        return self.world.policy.console

    def identity(self, session: Session) -> Identity | None:
        """Who that is by the token or the policy of this moment; None: nobody any more."""
        of = session.of
        if of.token_id is not None:
            with self.world.transaction() as conn:
                return tokens.of_id(conn, of.token_id)
        grant = self.policy.grant(of.groups)
        if grant is None:
            return None
        return Identity("", of.name, grant.role, frozenset(Scope(scope) for scope in grant.scopes), of.person)

    def find(self, secret: str, note_use: bool = True) -> tuple[Session, Identity] | None:
        """The session that is not over, and who it is of."""
        with self.world.transaction() as conn:
            idle = timedelta(minutes=self.policy.idle_min)
            session = console_sessions.find(conn, secret, now=self.world.now(), idle=idle, note_use=note_use)
        if session is None or (who := self.identity(session)) is None:
            return None
        return session, who


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in. Every form carries `csrf` as a hidden field of that name. `is_fresh`: the sign-in is recent enough for
    changes to production."""

    who: Identity
    csrf: str
    signed_in_at: datetime
    is_fresh: bool

    def may(self, scope: Scope) -> bool:
        return scope in self.who.scopes


def console_of(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def is_https(request: Request) -> bool:
    """Whether browsers come by https: their cookies then go no other way."""
    return request.url.scheme == "https" or console_of(request).public_url.startswith("https://")


def cookie_name(request: Request) -> str:
    """With `__Host-` no other host and no page by http can set it."""
    return "__Host-mlrunbook" if is_https(request) else "mlrunbook"


def secret_of(request: Request) -> str:
    """What the browser shows of its session; empty: nothing."""
    return request.cookies.get(cookie_name(request), "")


def keep(request: Request, answer: Response, secret: str) -> None:
    """Give the browser its session."""
    _set(request, answer, cookie_name(request), secret, lasts_s=console_of(request).policy.session_h * 3600)


def forget(request: Request, answer: Response) -> None:
    answer.delete_cookie(cookie_name(request), secure=is_https(request), httponly=True, samesite="lax")


def keep_for_the_way(request: Request, answer: Response, secret: str, *, lasts: timedelta) -> None:
    """To the provider and back."""
    _set(request, answer, cookie_name(request) + WAY, secret, lasts_s=int(lasts.total_seconds()))


def on_the_way(request: Request) -> str:
    return request.cookies.get(cookie_name(request) + WAY, "")


def forget_the_way(request: Request, answer: Response) -> None:
    answer.delete_cookie(cookie_name(request) + WAY, secure=is_https(request), httponly=True, samesite="lax")


def _set(request: Request, answer: Response, name: str, secret: str, *, lasts_s: int) -> None:
    """`lax`, not `strict`: links in pages and the way back from a provider come from other sites."""
    answer.set_cookie(name, secret, max_age=lasts_s, secure=is_https(request), httponly=True, samesite="lax")


def csrf_of(secret: str) -> str:
    """What a form of this session carries. It does not give the session away."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def check_site(request: Request) -> None:
    """403 for what a page of another site makes a browser send: by what the browser says of it, which no page can forge."""
    headers = request.headers
    if (site := headers.get("sec-fetch-site")) is not None:
        is_ours = site in OWN_SITES
    elif (origin := headers.get("origin")) is not None:
        ours = {headers.get("host", ""), urlsplit(console_of(request).public_url).netloc} - {""}
        is_ours = parts_of(origin).netloc in ours  # "null" and "file://" name no host
    else:  # no browser of today: what the form carries decides
        is_ours = True
    if not is_ours:
        raise HTTPException(403, "this was sent by a page of another site, so nothing was done: open the page here and send it again")


async def look_up(request: Request, *, note_use: bool = True) -> tuple[Session, Identity] | None:
    """Who is signed in, if anybody is. `note_use`: it is the person who asks, so the session is not idle."""
    if not (secret := secret_of(request)):
        return None
    found = await to_thread.run_sync(console_of(request).find, secret, note_use, limiter=_lookups)
    return found if found is not None and _fits_proxy(found[0], of_proxy(request)) else None


def of_proxy(request: Request) -> SignedIn | None:
    """Whom a trusted proxy names in this request. A header counts once, and only from the proxy's own networks."""
    proxy = console_of(request).policy.proxy
    peer = request.scope.get(PEER) or request.scope.get("client") or ("",)
    if proxy is None or not proxy.trusts(str(peer[0])):
        return None
    person, name, groups = (_header(request, one) for one in (proxy.person_header, proxy.name_header, proxy.groups_header))
    if not person:
        return None
    named = tuple(one for group in groups.split(",") if (one := group.strip()))
    return SignedIn(Door.PROXY, person_of(person), name or person, groups=named)


def _header(request: Request, name: str) -> str:
    """Empty where it is missing, or there twice: then somebody else than the proxy may have set one."""
    values = request.headers.getlist(name)
    if len(values) != 1:
        return ""
    try:
        return values[0].encode("latin-1").decode().strip()  # headers are bytes; proxies send UTF-8
    except UnicodeError:
        return ""


def _fits_proxy(session: Session, named: SignedIn | None) -> bool:
    """A session of the proxy holds while the proxy says the same; any other where the proxy names nobody else."""
    if named is None:
        return session.of.door is not Door.PROXY
    is_same = named.person == session.of.person
    return is_same and (session.of.door is not Door.PROXY or named.groups == session.of.groups)


def _proving(scope: Scope) -> Callable[[Request], Awaitable[Identity]]:
    async def prove(request: Request) -> Identity:
        if request.method in CHANGING:
            check_site(request)
        found = await look_up(request)
        if found is None:
            raise HTTPException(401, "the session is over: sign in again") if secret_of(request) else NothingShown(NOT_SIGNED_IN)
        session, who = found
        if scope not in who.scopes:
            raise HTTPException(403, f"{who.name} lacks the scope {scope} for this: ask whoever looks after access here")
        request.scope[SESSION] = session
        return who

    return prove


async def _check_csrf(request: Request, csrf: str) -> None:
    """403 unless the form, or the header of a script, carries the session's own token."""
    given = request.headers.get("x-csrf-token")
    if given is None:
        form = await request.form()
        given = form.get("csrf")  # type: ignore[assignment]  # a file is none
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), csrf.encode()):
        raise HTTPException(403, "this form is of another session, so nothing was done: open the page again and send it from there")


def asking(scope: Scope, *, fresh: bool = False, lists: bool = False) -> Callable[..., Awaitable[Visitor]]:
    """A dependency: who is signed in and has the scope. `fresh`: and signed in so recently that they may change production. `lists`: the
    page shows what is of the models that the visitor may see, and asks `Identity.may_see` itself."""
    proven = doors.authentication(_proving(scope), doors.Door(scope, model_in_body=lists))

    async def visitor(request: Request, who: Identity = Depends(proven)) -> Visitor:
        session: Session = request.scope[SESSION]
        csrf, limits = csrf_of(secret_of(request)), console_of(request).policy
        if request.method in CHANGING:
            await _check_csrf(request, csrf)
        age = console_of(request).world.now() - session.signed_in_at
        is_fresh = age <= timedelta(minutes=limits.fresh_sign_in_min)
        if session.of.door is Door.PROXY:  # only the proxy knows when somebody last proved who they are
            is_fresh = limits.proxy is not None and limits.proxy.counts_as_fresh
        if fresh and not is_fresh:
            raise NothingShown(f"changes to production need a sign-in of the last {limits.fresh_sign_in_min} minutes: sign in again")
        return Visitor(who, csrf, session.signed_in_at, is_fresh)

    return visitor


async def is_still_signed_in(request: Request, visitor: Visitor) -> bool:
    """For answers that go on for long: whether the session and the rights to read are still there. Ask every few seconds: a tab that
    is only left open keeps no session alive."""
    found = await look_up(request, note_use=False)
    return found is not None and found[1] == visitor.who


Reader = Annotated[Visitor, Depends(asking(Scope.READ))]
ListReader = Annotated[Visitor, Depends(asking(Scope.READ, lists=True))]
Reporter = Annotated[Visitor, Depends(asking(Scope.REPORT))]
Operator = Annotated[Visitor, Depends(asking(Scope.OPERATE))]
Approver = Annotated[Visitor, Depends(asking(Scope.APPROVE))]
FreshOperator = Annotated[Visitor, Depends(asking(Scope.OPERATE, fresh=True))]
FreshApprover = Annotated[Visitor, Depends(asking(Scope.APPROVE, fresh=True))]
