"""A proxy that says who somebody is counts where policy names its network, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mlrunbook.base import http_server, tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.policy.console import ConsolePolicy, GroupRule, ProxyPolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser
from tests.gateway.console.pages import pages
from tests.served import served

LEADS = {"ml-leads": GroupRule(("read", "approve"), Role.ML_TEAM_LEAD), "readers": GroupRule(("read",))}
PROXY = ProxyPolicy(networks=("10.1.2.0/24",))
INSIDE, OUTSIDE = ("10.1.2.7", 5000), ("10.9.9.9", 5000)
ANN = {"X-Forwarded-Email": "ann.lee@example.com", "X-Forwarded-User": "Ann Lee", "X-Forwarded-Groups": "ml-leads,everybody"}
Opened = Callable[..., Browser]


@pytest.fixture
def through(world: World, clock: Clock) -> Iterator[Opened]:
    """A browser whose requests come from that address with these headers."""
    with ExitStack() as open_:

        def opened(client: tuple[str, int], headers: dict[str, str], proxy: ProxyPolicy | None = PROXY, done: Any = None) -> Browser:
            policy = Policy(console=ConsolePolicy(groups=LEADS, proxy=proxy))
            app = create_app(replace(world, policy=policy))
            app.include_router(pages([] if done is None else done))
            return open_.enter_context(Browser(app, raise_server_exceptions=False, client=client, headers=headers))

        yield opened


def test_who_comes_through_it_is_signed_in_with_the_rights_of_their_groups(through: Opened) -> None:
    assert through(INSIDE, ANN).get("/try/read").text == "Ann Lee|ann.lee@example.com|ml_team_lead|approve read|False"


@pytest.mark.parametrize("proxy", [None, ProxyPolicy(networks=("10.1.3.0/24", "10.1.2.70"))])
def test_without_policy_or_from_another_network_the_header_says_nothing(through: Opened, proxy: ProxyPolicy | None) -> None:
    assert through(INSIDE, ANN, proxy).get("/try/read").url.path == "/login"
    assert through(OUTSIDE, ANN).get("/try/read").url.path == "/login"


def test_its_session_is_nobodys_anywhere_else(through: Opened) -> None:
    ann = through(INSIDE, ANN)
    ann.get("/try/read")
    thief = through(OUTSIDE, ANN)
    thief.cookies.set("mlrunbook", ann.secret)
    assert thief.get("/try/read").url.path == "/login"
    direct = through(INSIDE, {})
    direct.cookies.set("mlrunbook", ann.secret)
    assert direct.get("/try/read").url.path == "/login"


def test_when_it_names_somebody_else_the_session_is_theirs(through: Opened) -> None:
    one = through(INSIDE, ANN)
    one.get("/try/read")
    bo = {"X-Forwarded-Email": "bo@example.com", "X-Forwarded-User": "Bo Ray", "X-Forwarded-Groups": "readers"}
    assert one.get("/try/read", headers=bo).text.startswith("Bo Ray|bo@example.com|None|read")


def test_rights_follow_the_groups_that_it_names_now(through: Opened) -> None:
    ann = through(INSIDE, ANN)
    ann.get("/try/read")
    assert ann.get("/try/read", headers={"X-Forwarded-Groups": "readers"}).text.split("|")[2:4] == ["None", "read"]
    assert ann.get("/try/read", headers={"X-Forwarded-Groups": "strangers"}).status_code == 403


def test_a_header_that_is_there_twice_is_none(through: Opened) -> None:
    one = through(INSIDE, {})
    twice = [(name, value) for name, value in ANN.items()] + [("X-Forwarded-Email", "boss@example.com")]
    assert one.get("/try/read", headers=httpx.Headers(twice)).url.path == "/login"


def test_a_form_needs_the_sessions_token_all_the_same(through: Opened) -> None:
    done: list[str] = []
    ann = through(INSIDE, ANN, done=done)
    ann.get("/try/read")
    assert ann.post("/try/approve").status_code == 403
    assert ann.submit("/try/approve", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert done == []
    assert ann.submit("/try/approve").status_code == 200


def test_changes_to_production_ask_for_another_sign_in_of_the_same_person(through: Opened, keys: Keys) -> None:
    done: list[str] = []
    ann = through(INSIDE, ANN, done=done)
    ann.get("/try/read")
    assert ann.submit("/try/change").url.path == "/login"
    assert done == []
    with keys.engine.begin() as conn:
        token = tokens.create(conn, name="Ann Lee", scopes=(Scope.READ, Scope.APPROVE), person="ann.lee@example.com")
    ann.post("/login/token", data={"token": token})
    ann.submit("/try/change")
    assert done == ["Ann Lee changed production"]


def test_where_policy_says_that_the_proxy_is_recent_enough_they_do_not(through: Opened) -> None:
    done: list[str] = []
    ann = through(INSIDE, ANN, ProxyPolicy(networks=PROXY.networks, counts_as_fresh=True), done)
    ann.get("/try/read")
    ann.submit("/try/change")
    assert done == ["Ann Lee changed production"]


def test_a_name_in_utf8_arrives(through: Opened) -> None:
    name: Any = "Zoë Åström".encode()
    assert through(INSIDE, ANN | {"X-Forwarded-User": name}).get("/try/read").text.startswith("Zoë Åström|")


def test_an_address_claimed_in_a_header_is_not_where_the_connection_comes_from(world: World) -> None:
    """A proxy on this machine passes on X-Forwarded-For, which uvicorn believes: anybody may put the trusted network into it."""
    app = create_app(replace(world, policy=Policy(console=ConsolePolicy(groups=LEADS, proxy=PROXY))))
    app.include_router(pages([]))
    with served(app, **http_server.options()) as url:
        claimed = ANN | {"X-Forwarded-For": "10.1.2.7"}
        assert httpx.get(f"{url}/try/read", headers=claimed, follow_redirects=True, timeout=60).url.path == "/login"
        assert httpx.get(f"{url}/login", headers=claimed, timeout=60).status_code == 200


@pytest.mark.parametrize("address", ["10.1.2.7", "::ffff:10.1.2.7"])
def test_a_network_is_trusted_however_its_addresses_are_written(address: str) -> None:
    assert PROXY.trusts(address)


@pytest.mark.parametrize("address", ["", "testclient", "10.1.3.7", "::1", "10.1.2.7.evil.example"])
def test_any_other_address_is_not(address: str) -> None:
    assert not PROXY.trusts(address)
