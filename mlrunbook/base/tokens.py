"""Access tokens with scopes, hashed at rest; the gateway and the model platform check the same table."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Column, Connection, DateTime, Table, Text, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from mlrunbook.base.db import metadata
from mlrunbook.domain.errors import Invalid, NotFound

PREFIX = "mlrb_"
TOKEN_ID = re.compile("[0-9a-f]{8}")
USED_WITHIN = timedelta(hours=1)  # how exactly the last use is kept: not a write a request


class Scope(StrEnum):
    INTAKE = "intake"  # post alerts, incidents and outcomes
    READ = "read"
    OPERATE = "operate"  # acknowledge, resolve, close; change things on the model platform
    APPROVE = "approve"


tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),  # public part, safe to print and to log
    Column("name", Text, nullable=False),  # the person or system it belongs to
    Column("role", Text),  # the runbook's role of that person, e.g. ml_team_lead
    Column("scopes", ARRAY(Text), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),  # to the hour; None: never since it is kept
)


@dataclass(frozen=True)
class Identity:
    """Who a valid token belongs to."""

    token_id: str
    name: str
    role: str | None
    scopes: frozenset[Scope]


def create(conn: Connection, *, name: str, scopes: Iterable[Scope], role: str | None = None) -> str:
    """Store a new token and return it whole: the only time it is readable. Form: mlrb_<id>_<secret>."""
    wanted = sorted(set(scopes))
    if not name.strip() or not wanted:
        raise Invalid("a token needs a name and at least one scope (intake, read, operate, approve)", field="scopes")
    token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    conn.execute(
        insert(tokens).values(
            id=token_id, name=name.strip(), role=role, scopes=[str(s) for s in wanted], sha256=_digest(secret), created_at=datetime.now(UTC)
        )
    )
    return f"{PREFIX}{token_id}_{secret}"


def verify(conn: Connection, presented: str, *, note_use: bool = True) -> Identity | None:
    """The token's owner, or None. Compares digests in constant time, and notes the use of a valid one where that is asked."""
    token_id, _, secret = presented.removeprefix(PREFIX).partition("_")
    asked = token_id if TOKEN_ID.fullmatch(token_id) else ""  # what is no id at all (NUL breaks the query) is looked up all the same
    row = conn.execute(select(tokens).where(tokens.c.id == asked, tokens.c.revoked_at.is_(None))).one_or_none()
    stored = row.sha256 if row else _digest("")
    if not (secrets.compare_digest(stored, _digest(secret)) and row is not None and presented.startswith(PREFIX)):
        return None
    now = datetime.now(UTC)
    if note_use and (row.last_used_at is None or row.last_used_at < now - USED_WITHIN):
        used = func.greatest(tokens.c.last_used_at, now)
        conn.execute(update(tokens).where(tokens.c.id == row.id).values(last_used_at=used))
    return Identity(row.id, row.name, row.role, frozenset(Scope(s) for s in row.scopes))


@dataclass(frozen=True)
class Held:
    """A token that is not revoked; what makes it work is not in it."""

    id: str
    name: str
    role: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None


def in_force(conn: Connection) -> list[Held]:
    """The oldest first."""
    shown = (tokens.c.id, tokens.c.name, tokens.c.role, tokens.c.scopes, tokens.c.created_at, tokens.c.last_used_at)
    rows = conn.execute(select(*shown).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.created_at))
    return [Held(r.id, r.name, r.role, tuple(r.scopes), r.created_at, r.last_used_at) for r in rows]


def revoke(conn: Connection, token_id: str) -> None:
    """Revoke by the public id (or the whole token). NotFound when there is none, or it is revoked already."""
    bare = token_id.removeprefix(PREFIX).partition("_")[0]
    done = conn.execute(update(tokens).where(tokens.c.id == bare, tokens.c.revoked_at.is_(None)).values(revoked_at=datetime.now(UTC)))
    if not done.rowcount:
        raise NotFound(f"no active token {bare!r}; list them with `mlrunbook token list`")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
