"""Who is signed in to the console, and secrets that are good once on the way there.

The store has the hash of every secret and never the secret: who reads the database can sign in as nobody.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from mlrunbook.store.tables import console_one_time_secrets as one_time
from mlrunbook.store.tables import console_sessions as sessions

SEEN_WITHIN = timedelta(minutes=1)  # how exactly the last use is kept: not a write a request
KEPT = timedelta(days=30)  # after its end: whose names are known


class Door(StrEnum):
    """How somebody signed in."""

    TOKEN = "token"  # noqa: S105
    LINK = "link"
    OIDC = "oidc"
    PROXY = "proxy"


class Purpose(StrEnum):
    LINK = "link"
    OIDC = "oidc"


@dataclass(frozen=True)
class SignedIn:
    """Somebody proved who they are. Their rights are those of the token; without one, those of the groups. Both are looked up anew at each
    request."""

    door: Door
    person: str
    name: str
    token_id: str | None = None
    groups: tuple[str, ...] = ()
    id_token: str | None = None


@dataclass(frozen=True)
class Session:
    key: str  # the hash of its secret
    of: SignedIn
    signed_in_at: datetime
    expires_at: datetime


def begin(conn: Connection, of: SignedIn, *, now: datetime, lasts: timedelta, proven_at: datetime | None = None) -> str:
    """A new session: its secret, this once. Those that ended long ago are forgotten. `proven_at`: when the person last proved who they are,
    where that was earlier."""
    conn.execute(delete(sessions).where(sessions.c.expires_at < now - KEPT))
    secret = secrets.token_urlsafe(32)
    times = {"signed_in_at": min(proven_at or now, now), "seen_at": now, "expires_at": now + lasts}
    row = vars(of) | {"door": str(of.door), "groups": list(of.groups)}
    conn.execute(insert(sessions).values(sha256=_digest(secret), **row, **times))
    return secret


def find(conn: Connection, secret: str, *, now: datetime, idle: timedelta, note_use: bool = True) -> Session | None:
    """The session, when it is not over; and notes that somebody is there, where that is asked."""
    c = sessions.c
    alive = (c.ended_at.is_(None), c.expires_at > now, c.seen_at > now - idle)
    row = conn.execute(select(sessions).where(c.sha256 == _digest(secret), *alive)).one_or_none()
    if row is None:
        return None
    if note_use and row.seen_at < now - SEEN_WITHIN:
        conn.execute(update(sessions).where(c.sha256 == row.sha256).values(seen_at=now))
    of = SignedIn(Door(row.door), row.person, row.name, row.token_id, tuple(row.groups), row.id_token)
    return Session(row.sha256, of, row.signed_in_at, row.expires_at)


def end(conn: Connection, secret: str, *, now: datetime) -> None:
    """Over, whatever is still in somebody's browser. The provider's token is forgotten with it."""
    ended = {"ended_at": now, "id_token": None}
    conn.execute(update(sessions).where(sessions.c.sha256 == _digest(secret), sessions.c.ended_at.is_(None)).values(**ended))


def known_names(conn: Connection) -> list[str]:
    """Names and person ids of everybody who signed in lately."""
    rows = conn.execute(select(sessions.c.person, sessions.c.name).distinct())
    return [text for row in rows for text in (row.name, row.person)]


def once(conn: Connection, purpose: Purpose, data: Mapping[str, Any], *, now: datetime, lasts: timedelta) -> str:
    """A secret that is good once, with what is to be remembered until then."""
    conn.execute(delete(one_time).where(one_time.c.expires_at < now))
    secret = secrets.token_urlsafe(32)
    row = {"sha256": _digest(secret), "purpose": str(purpose), "data": dict(data), "expires_at": now + lasts}
    conn.execute(insert(one_time).values(**row))
    return secret


def look_at(conn: Connection, purpose: Purpose, secret: str, *, now: datetime) -> dict[str, Any] | None:
    """What is remembered with the secret, which stays good."""
    c = one_time.c
    found = conn.execute(
        select(c.data).where(c.sha256 == _digest(secret), c.purpose == str(purpose), c.expires_at > now)
    ).scalar_one_or_none()
    return None if found is None else dict(found)


def use(conn: Connection, purpose: Purpose, secret: str, *, now: datetime) -> dict[str, Any] | None:
    """`look_at`, and it is used up: of two at once one gets it."""
    c = one_time.c
    taken = delete(one_time).where(c.sha256 == _digest(secret), c.purpose == str(purpose), c.expires_at > now).returning(c.data)
    found = conn.execute(taken).scalar_one_or_none()
    return None if found is None else dict(found)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
