"""From who somebody has proven to be, to a session: the same for every door."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import NotApproved
from mlrunbook.domain.people import person_of
from mlrunbook.gateway.console import rendering, visitor
from mlrunbook.gateway.console.local_path import local_path
from mlrunbook.gateway.console.visitor import Console, console_of
from mlrunbook.response import known_people
from mlrunbook.store import console_sessions
from mlrunbook.store.console_sessions import SignedIn


async def page(request: Request, next: str, *, status: int = 200, wrong: str = "") -> Response:
    """The ways in. Whoever is signed in already sees as whom, and why they are asked again."""
    console, found = console_of(request), await visitor.look_up(request)
    return rendering.page(
        request,
        None,
        "sign_in.html.j2",
        status=status,
        wrong=wrong,
        next=local_path(next),
        already=found[1].name if found else "",
        provider=console.provider is not None,
        fresh_min=console.policy.fresh_sign_in_min,
    )


async def signed_in(request: Request, of: SignedIn, next: str, *, proven_at: datetime | None = None) -> Response:
    """A new session, whose secret nobody has seen before, and on to where the person wanted to go. The browser's former one is over.

    NotApproved, or Invalid, for somebody who may see nothing here or could be taken for somebody else.
    """
    secret = await to_thread.run_sync(_begin, console_of(request), of, visitor.secret_of(request), proven_at)
    answer = RedirectResponse(local_path(next), 303, headers={"Cache-Control": "no-store"})
    visitor.keep(request, answer, secret)
    return answer


def _begin(console: Console, of: SignedIn, instead_of: str, proven_at: datetime | None) -> str:
    now, lasts = console.world.now(), timedelta(hours=console.policy.session_h)
    with console.world.transaction() as conn:
        if of.token_id is None:
            of = _checked(conn, console, of)
        console_sessions.end(conn, instead_of, now=now)
        return console_sessions.begin(conn, of, now=now, lasts=lasts, proven_at=proven_at)


def _checked(conn: Connection, console: Console, of: SignedIn) -> SignedIn:
    """Somebody whom a provider or a proxy names: what they may do is in policy, and their name nobody else's to the eye. What a token says
    was checked when it was made."""
    grant = console.policy.grant(of.groups)
    if grant is None:
        raise NotApproved(f"{of.name}: none of your groups may use this console; whoever keeps runbook.yaml adds it under console.groups")
    if Scope.READ not in grant.scopes:
        raise NotApproved(f"{of.name}: your groups may not read incidents; console.groups in runbook.yaml gives them the scope read")
    name = known_people.checked(conn, console.world.policy, of.name, "name")
    person = person_of(known_people.checked(conn, console.world.policy, of.person, "person"))
    return replace(of, name=name, person=person)
