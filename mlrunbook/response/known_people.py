"""Names of people that somebody types in: fit to be read, and nobody else's to the eye."""

from __future__ import annotations

from sqlalchemy import Connection

from mlrunbook.base import tokens
from mlrunbook.domain import people
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.policy.people import UNNAMED
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.store import console_sessions


def checked(conn: Connection, policy: Policy, name: str, field: str) -> str:
    """The name as it is kept. Invalid where it holds what nobody sees, or could be taken for the name of somebody who is known here."""
    kept = people.checked(name, field)
    if other := people.looks_like(kept, _known(conn, policy)):
        raise Invalid(f"{field}: {kept} can be mistaken for {other}: write it as {other} does, or add what tells them apart", field=field)
    return kept


def named_for(policy: Policy, role: Role) -> str:
    """Whom policy names for a role; empty: nobody."""
    name = policy.escalation.of(role).name
    return "" if name == UNNAMED else name


def suggested(conn: Connection, policy: Policy) -> list[str]:
    """People whom somebody may want to name: those of policy, then whoever has a token with a role."""
    people = [named_for(one, role) for one in policy.variants for role in Role]
    people += [token.name for token in tokens.in_force(conn) if token.role]
    return [name for name in dict.fromkeys(people) if name]


def _known(conn: Connection, policy: Policy) -> list[str]:
    """Whoever has a token or signed in to the console lately, and whomever policy names for a role."""
    named = [name for one in policy.variants for role in Role if (name := named_for(one, role))]
    held = [text for token in tokens.in_force(conn) for text in (token.name, token.person)]
    return [*held, *console_sessions.known_names(conn), *named]
