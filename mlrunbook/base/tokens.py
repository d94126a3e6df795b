"""Access tokens with scopes, hashed at rest; the gateway and the model platform check the same table."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Column, Connection, DateTime, Table, Text, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from mlrunbook.base.db import metadata
from mlrunbook.domain import people
from mlrunbook.domain.errors import Invalid, NotApproved, NotFound
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.intake import SENDERS

PREFIX = "mlrb_"
OF_TOKEN = "token:"  # noqa: S105  begins the key of a token that is named like a format
TOKEN_ID = re.compile("[0-9a-f]{8}")
USED_WITHIN = timedelta(hours=1)  # how exactly the last use is kept: not a write a request
MODEL_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,100}")


class Scope(StrEnum):
    PREDICT = "predict"
    OUTCOMES = "outcomes"  # post the ground truth of predictions
    ALERTS = "alerts"  # post alerts, by webhook or mail
    REPORT = "report"  # report incidents and changes
    READ = "read"
    OPERATE = "operate"  # acknowledge, resolve, close; change things on the model platform
    APPROVE = "approve"
    INTAKE = "intake"  # deprecated: the first four at once


OF_INTAKE = frozenset({Scope.PREDICT, Scope.OUTCOMES, Scope.ALERTS, Scope.REPORT})
DEPRECATION = f"the scope intake is deprecated: create tokens with just what they need of {', '.join(s for s in Scope if s in OF_INTAKE)}"

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),  # public part, safe to print and to log
    Column("name", Text, nullable=False),  # the person or system it belongs to
    Column("person", Text, nullable=False),  # who that is, however the name is written: several tokens of one person have the same
    Column("role", Text),  # the runbook's role of that person, e.g. ml_team_lead
    Column("scopes", ARRAY(Text), nullable=False),
    Column("senders", ARRAY(Text), nullable=False, server_default="{}"),  # it posts for these alone; none: for all
    Column("models", ARRAY(Text), nullable=False, server_default="{}"),  # patterns; it is good for these alone; none: for all
    Column("sha256", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),  # to the hour; None: never since it is kept
)


@dataclass(frozen=True)
class Limits:
    """What a token is good for. Empty: for all senders, all models, for ever.

    senders  names of the doors it may post to: an alert format, `email`, `report` or `changes`
    models   patterns of model ids, with `*` and `?`
    """

    senders: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        for pattern in self.models:
            if not MODEL_PATTERN.fullmatch(pattern):
                raise Invalid(f"{pattern[:100]!r} is no pattern of model ids: letters, digits, '.', '_', '-', `*` and `?`", field="models")


@dataclass(frozen=True)
class Identity:
    """Who a valid token belongs to. `person` is told apart from others by it, never by `name`. `secret`: which secret of an alert format
    proved it instead; then `token_id` is empty. `key`: under which what it numbers is kept, apart from what all others number."""

    token_id: str
    name: str
    role: str | None
    scopes: frozenset[Scope]
    person: str = ""
    limits: Limits = Limits()
    secret: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "person", self.person or person_of(self.name))
        object.__setattr__(self, "key", self.key or (self.name if self.secret else key_of_token(self.name)))

    def may_see(self, model: str) -> bool:
        """Post, read and order for that model."""
        return not self.limits.models or any(fnmatchcase(model, pattern) for pattern in self.limits.models)

    def confine_to(self, model: str) -> None:
        """NotApproved for a model that the token is not good for."""
        if not self.may_see(model):
            raise NotApproved(f"the token of {self.name} is limited to the models {', '.join(self.limits.models)}, not {model[:100]}")

    def proven_as(self, sender: str) -> str:
        """The sender that this proves what is posted to be of: by the secret of a format, a token that is limited to that sender, or one
        that may change production anyway. Else "": whoever holds it may say anything."""
        proves = bool(self.secret) or sender in self.limits.senders or Scope.OPERATE in self.scopes
        return sender if proves else ""

    def may_post_as(self, sender: str) -> bool:
        return not self.limits.senders or sender in self.limits.senders


def key_of_token(name: str) -> str:
    """The token's name, but for a name under which the secret of a format counts.

    >>> key_of_token("grafana"), key_of_token("the plant"), key_of_token("token:grafana")
    ('token:grafana', 'the plant', 'token:token:grafana')
    """
    return f"{OF_TOKEN}{name}" if name.partition("/")[0] in SENDERS or name.startswith(OF_TOKEN) else name


def create(
    conn: Connection, *, name: str, scopes: Iterable[Scope], role: str | None = None, person: str = "", limits: Limits | None = None
) -> str:
    """Store a new token and return it whole: the only time it is readable. Form: mlrb_<id>_<secret>."""
    wanted, limits, now = sorted(set(scopes)), limits or Limits(), datetime.now(UTC)
    if not name.strip() or not wanted:
        raise Invalid(f"a token needs a name and at least one scope ({', '.join(Scope)})", field="scopes")
    name, who = _named(conn, name, person)
    if limits.expires_at is not None and limits.expires_at <= now:
        raise Invalid(f"a token cannot expire in the past ({limits.expires_at.isoformat()})", field="expires")
    token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    row = {
        "id": token_id,
        "name": name,
        "person": who,
        "role": role,
        "scopes": [str(s) for s in wanted],
        "sha256": _digest(secret),
        "created_at": now,
    }
    conn.execute(insert(tokens).values(**row, senders=list(limits.senders), models=list(limits.models), expires_at=limits.expires_at))
    return f"{PREFIX}{token_id}_{secret}"


def _named(conn: Connection, name: str, person: str) -> tuple[str, str]:
    """The name and the person id as they are kept. Invalid where one could be taken for somebody else's."""
    name = people.checked(name, "name")
    who = person_of(people.checked(person, "person") if person.strip() else name)
    for held in in_force(conn):
        if held.person != who and (people.looks_like(name, [held.name]) or people.looks_like(who, [held.person])):
            raise Invalid(f"name: {name} can be mistaken for {held.name}, who has a token: add what tells them apart", field="name")
    return name, who


def verify(conn: Connection, presented: str, *, note_use: bool = True) -> Identity | None:
    """The token's owner, or None. Compares digests in constant time, and notes the use of a valid one where that is asked."""
    now, row = datetime.now(UTC), _matching(conn, presented)
    if row is None or _is_over(row, now):
        return None
    if note_use and (row.last_used_at is None or row.last_used_at < now - USED_WITHIN):
        used = func.greatest(tokens.c.last_used_at, now)
        conn.execute(update(tokens).where(tokens.c.id == row.id).values(last_used_at=used))
    return _identity(row)


def of_id(conn: Connection, token_id: str) -> Identity | None:
    """Whose token that is, for who has shown it before; None once it is revoked or over."""
    row = conn.execute(select(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))).one_or_none()
    return None if row is None or _is_over(row, datetime.now(UTC)) else _identity(row)


def _identity(row: Any) -> Identity:
    scopes = frozenset(Scope(s) for s in row.scopes)
    limits = Limits(tuple(row.senders), tuple(row.models), row.expires_at)
    return Identity(row.id, row.name, row.role, scopes | (OF_INTAKE if Scope.INTAKE in scopes else frozenset()), row.person, limits)


def why_invalid(conn: Connection, presented: str) -> str:
    """Why `verify` knows no owner, and what to do: a sentence. When a token expired is said to nobody but its holder."""
    if (row := _matching(conn, presented)) is None:
        return "this token is unknown or revoked: create a new one with `mlrunbook token create`"
    return (
        f"the token {row.id} of {row.name} expired at {row.expires_at:%Y-%m-%d %H:%M} UTC: create a new one with `mlrunbook token create`"
    )


def _matching(conn: Connection, presented: str) -> Any:
    """The row of a token that is not revoked, also when it has expired; None when there is none, or the secret is wrong."""
    token_id, _, secret = presented.removeprefix(PREFIX).partition("_")
    asked = token_id if TOKEN_ID.fullmatch(token_id) else ""  # what is no id at all (NUL breaks the query) is looked up all the same
    row = conn.execute(select(tokens).where(tokens.c.id == asked, tokens.c.revoked_at.is_(None))).one_or_none()
    stored = row.sha256 if row else _digest("")
    return row if secrets.compare_digest(stored, _digest(secret)) and presented.startswith(PREFIX) else None


def _is_over(row: Any, now: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now


@dataclass(frozen=True)
class Held:
    """A token that works; what makes it work is not in it."""

    id: str
    name: str
    role: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    person: str
    expires_at: datetime | None


def in_force(conn: Connection, *, now: datetime | None = None) -> list[Held]:
    """Neither revoked nor expired, the oldest first."""
    c, now = tokens.c, now or datetime.now(UTC)
    lasts = or_(c.expires_at.is_(None), c.expires_at > now)
    shown = (c.id, c.name, c.role, c.scopes, c.created_at, c.last_used_at, c.person, c.expires_at)
    rows = conn.execute(select(*shown).where(c.revoked_at.is_(None), lasts).order_by(c.created_at))
    return [Held(r.id, r.name, r.role, tuple(r.scopes), r.created_at, r.last_used_at, r.person, r.expires_at) for r in rows]


def revoke(conn: Connection, token_id: str) -> None:
    """Revoke by the public id (or the whole token). NotFound when there is none, or it is revoked already."""
    bare = token_id.removeprefix(PREFIX).partition("_")[0]
    done = conn.execute(update(tokens).where(tokens.c.id == bare, tokens.c.revoked_at.is_(None)).values(revoked_at=datetime.now(UTC)))
    if not done.rowcount:
        raise NotFound(f"no active token {bare!r}; list them with `mlrunbook token list`")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
