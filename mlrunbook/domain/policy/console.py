"""Policy of the console: how long a sign-in lasts, and what people may do whom a provider or a proxy names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from mlrunbook.domain.roles import Role

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, StringConstraints(min_length=1)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
ConsoleScope = Literal["read", "report", "operate", "approve"]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.1.2.0/24, or one address: {error}") from error


Network = Annotated[str, AfterValidator(_network)]


@dataclass(frozen=True)
class GroupRule:
    """What the people of a group may do: the scopes that a token would have, and the runbook's role of who decides."""

    scopes: Annotated[tuple[ConsoleScope, ...], Field(min_length=1)]
    role: Role | None = None


@dataclass(frozen=True)
class ProxyPolicy:
    """A proxy that signs people in by itself and says who they are in headers.

    They count in requests whose connection comes from one of `networks`, and nowhere else. Only the proxy knows when somebody last proved
    who they are: `counts_as_fresh` says that this is recent enough for changes to production; else these ask for another sign-in.
    """

    networks: Annotated[tuple[Network, ...], Field(min_length=1)]
    person_header: HeaderName = "X-Forwarded-Email"
    name_header: HeaderName = "X-Forwarded-User"
    groups_header: HeaderName = "X-Forwarded-Groups"
    counts_as_fresh: bool = False

    def trusts(self, address: str) -> bool:
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in ipaddress.ip_network(network) for network in self.networks)


@dataclass(frozen=True)
class Grant:
    role: Role | None
    scopes: frozenset[str]


@dataclass(frozen=True)
class ConsolePolicy:
    """A session ends after `session_h`, and earlier when nothing was asked for `idle_min`. Changes to production need a sign-in that is not
    older than `fresh_sign_in_min`.

    `person_claim` is who somebody is: the same text as the person id of their tokens, or one human counts as two. `groups`: the claim
    `groups_claim` names them; somebody in several has the scopes of all and the role of the first in this list that has one.
    """

    session_h: Count = 12
    idle_min: Count = 120
    fresh_sign_in_min: Count = 60
    person_claim: Text = "email"
    name_claim: Text = "name"
    groups_claim: Text = "groups"
    groups: Mapping[Text, GroupRule] = field(default_factory=dict)
    proxy: ProxyPolicy | None = None

    def grant(self, groups: Iterable[str]) -> Grant | None:
        """What people of these groups may do; None: policy names none of them."""
        given = set(groups)
        rules = [rule for name, rule in self.groups.items() if name in given]
        if not rules:
            return None
        role = next((rule.role for rule in rules if rule.role is not None), None)
        return Grant(role, frozenset(scope for rule in rules for scope in rule.scopes))
