"""Signing in at a real provider, and everything on the way there and back that must not sign anybody in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, func, select

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Limits
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Invalid, NotApproved
from mlrunbook.domain.policy.console import ConsolePolicy, GroupRule
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console.oidc import CALLBACK, Provider, read
from mlrunbook.gateway.console.router import offer
from mlrunbook.response.world import World
from mlrunbook.store.tables import console_one_time_secrets, console_sessions
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser
from tests.gateway.console.pages import pages
from tests.gateway.console.provider import RunningProvider

HERE = "http://testserver"
CONSOLE = ConsolePolicy(
    groups={
        "ml-leads": GroupRule(("read", "operate", "approve"), Role.ML_TEAM_LEAD),
        "ml-oncall": GroupRule(("read", "operate"), Role.ONCALL_ML_ENGINEER),
        "readers": GroupRule(("read",)),
        "reporters": GroupRule(("report",)),
    }
)


@pytest.fixture(scope="module")
def done() -> list[str]:
    return []


@pytest.fixture(scope="module")
def app(world: World, provider: RunningProvider, done: list[str]) -> FastAPI:
    return application(world, CONSOLE, provider, done)


def application(world: World, policy: ConsolePolicy, provider: RunningProvider, done: list[str], limits: Limits | None = None) -> FastAPI:
    app = create_app(replace(world, policy=Policy(console=policy)), public_url=HERE, limits=limits)
    offer(app, Provider(provider.issuer, "mlrunbook", "a secret of ours", HERE))
    app.include_router(pages(done))
    return app


@pytest.fixture
def open_browser(browser: Callable[..., Browser], app: FastAPI, clock: Clock, done: list[str]) -> Callable[..., Browser]:
    done.clear()
    return lambda **how: browser(app, **how)


@pytest.fixture
def account(provider: RunningProvider) -> Callable[..., str]:
    """An account at the provider, of a person of this test's own."""

    def made(name: str = "Ann Lee", groups: object = ("ml-leads",), **claims: object) -> str:
        sub = f"s{uuid.uuid4().hex[:12]}"
        provider.person(sub, **{"name": name, "email": f"{sub}@example.com", "email_verified": True, "groups": groups, **claims})
        return sub

    return made


def leave(browser: Browser, next: str = "/try/read") -> str:
    """On to the provider: the address of its page."""
    answer = browser.get("/login/oidc", params={"next": next}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def signed_in(browser: Browser, provider: RunningProvider, sub: str, next: str = "/try/read") -> Browser:
    back = browser.get(provider.agree(leave(browser, next), sub), follow_redirects=False)
    assert (back.status_code, back.headers["location"]) == (303, next), back.text
    return browser


def sessions(engine: Engine) -> int:
    with transaction(engine) as conn:
        return int(conn.execute(select(func.count()).select_from(console_sessions)).scalar_one())


class TestSigningIn:
    def test_the_person_is_who_the_provider_says_with_the_rights_of_their_groups(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        sub = account("Ann Lee", ["ml-leads", "everybody"])
        ann = signed_in(open_browser(), provider, sub)
        assert ann.get("/try/read").text == f"Ann Lee|{sub}@example.com|ml_team_lead|approve operate read|True"

    def test_the_way_there_is_bound_to_a_challenge_a_state_and_a_nonce(self, open_browser: Callable[..., Browser]) -> None:
        asked = parse_qs(urlsplit(leave(open_browser())).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert asked["redirect_uri"] == [HERE + CALLBACK]
        assert all(len(asked[name][0]) >= 16 for name in ("state", "nonce", "code_challenge"))

    def test_in_several_groups_the_first_role_of_the_policy_counts_and_all_scopes(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        both = signed_in(open_browser(), provider, account("Bo Ray", ["readers", "ml-oncall", "reporters"]))
        assert both.get("/try/read").text.split("|")[2:4] == ["oncall_ml_engineer", "operate read report"]

    @pytest.mark.parametrize("groups", [[], ["strangers"], None, {"ml-leads": True}, 7, [["ml-leads"]], ["ML-LEADS"], ["reporters"]])
    def test_whose_groups_policy_does_not_know_or_let_read_sees_nothing(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], engine: Engine, groups: object
    ) -> None:
        browser, before = open_browser(), sessions(engine)
        answer = browser.get(provider.agree(leave(browser), account("Cy Poe", groups)))
        assert answer.status_code == 403
        assert "Cy Poe" in answer.text
        assert sessions(engine) == before
        assert browser.get("/try/read").url.path == "/login"

    def test_one_group_may_come_as_plain_text(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        assert signed_in(open_browser(), provider, account("Di Fox", "ml-oncall")).get("/try/read").text.startswith("Di Fox|")

    def test_whoever_looks_like_somebody_with_a_token_is_not_let_in(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], keys: Keys
    ) -> None:
        keys.token("Paul Ibis", Scope.READ)
        for name in ("PauI Ibis", "Рaul Ibis", "Paul\u200b Ibis"):
            browser = open_browser()
            assert browser.get(provider.agree(leave(browser), account(name))).status_code == 403, name
            assert browser.get("/try/read").url.path == "/login"

    def test_whoever_looks_like_somebody_who_signed_in_is_not_let_in(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        signed_in(open_browser(), provider, account("Bill Ash"))
        browser = open_browser()
        assert browser.get(provider.agree(leave(browser), account("BiIl Ash"))).status_code == 403

    def test_an_address_that_the_provider_has_not_verified_is_nobody(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        browser = open_browser()
        answer = browser.get(provider.agree(leave(browser), account(email_verified=False)))
        assert answer.status_code == 403

    def test_a_group_that_the_policy_drops_ends_the_session_at_once(
        self,
        open_browser: Callable[..., Browser],
        browser: Callable[..., Browser],
        provider: RunningProvider,
        account: Callable[..., str],
        world: World,
    ) -> None:
        ann = signed_in(open_browser(), provider, account())
        fewer = ConsolePolicy(groups={"ml-oncall": CONSOLE.groups["ml-oncall"]})
        after = browser(application(world, fewer, provider, []))
        after.cookies.set("mlrunbook", ann.secret)
        assert after.get("/try/read").url.path == "/login"


class TestOnePersonTwoDoors:
    def test_the_person_id_of_a_token_and_of_the_provider_is_one(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], engine: Engine
    ) -> None:
        sub = account("Eva Gray")
        with transaction(engine) as conn:
            token = tokens.create(conn, name="Eva Gray", scopes=(Scope.READ,), person=f"{sub.upper()}@Example.com")
        by_token = open_browser()
        by_token.post("/login/token", data={"token": token})
        by_provider = signed_in(open_browser(), provider, sub)
        persons = {one.get("/try/read").text.split("|")[1] for one in (by_token, by_provider)}
        assert persons == {f"{sub}@example.com"}


class TestTheWayBack:
    def test_another_browser_cannot_use_it(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], engine: Engine
    ) -> None:
        mine, theirs, before = open_browser(), open_browser(), sessions(engine)
        back = provider.agree(leave(mine), account())
        leave(theirs)
        for stranger in (theirs, open_browser()):
            assert stranger.get(back).status_code == 403
            assert stranger.get("/try/read").url.path == "/login"
        assert sessions(engine) == before

    def test_it_is_good_once(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], engine: Engine
    ) -> None:
        browser = open_browser()
        address = leave(browser)
        way = browser.cookies["mlrunbook-way"]
        back = provider.agree(address, account())
        assert browser.get(back, follow_redirects=False).status_code == 303
        before = sessions(engine)
        browser.cookies.clear()
        browser.cookies.set("mlrunbook-way", way)
        assert browser.get(back).status_code == 403
        assert sessions(engine) == before

    def test_it_leads_nowhere_after_a_quarter_of_an_hour(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], clock: Clock
    ) -> None:
        browser = open_browser()
        back = provider.agree(leave(browser), account())
        clock.pass_(minutes=16)
        assert browser.get(back).status_code == 403

    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"code": "x"},
            {"state": "x", "code": "x"},
            {"error": "access_denied", "error_description": "<b>call 555-0100</b>", "state": "x"},
            {"code": "\0", "state": "\0"},
        ],
    )
    def test_an_invented_one_signs_nobody_in_and_shows_nothing_of_it(
        self, open_browser: Callable[..., Browser], engine: Engine, query: dict[str, str]
    ) -> None:
        browser, before = open_browser(), sessions(engine)
        leave(browser)
        answer = browser.get(f"{CALLBACK}?{urlencode(query)}")
        assert answer.status_code == 403
        assert "555-0100" not in answer.text
        assert sessions(engine) == before

    def test_a_wrong_code_with_the_right_state_signs_nobody_in(self, open_browser: Callable[..., Browser], engine: Engine) -> None:
        browser, before = open_browser(), sessions(engine)
        state = parse_qs(urlsplit(leave(browser)).query)["state"][0]
        assert browser.get(CALLBACK, params={"state": state, "code": "invented"}).status_code == 403
        assert sessions(engine) == before

    def test_attempts_are_counted(self, browser: Callable[..., Browser], world: World, provider: RunningProvider) -> None:
        one = browser(application(world, CONSOLE, provider, [], Limits(failed_per_min_address=3)))
        assert [one.get(CALLBACK, params={"code": "x", "state": "x"}).status_code for _ in range(5)] == [403] * 3 + [429] * 2

    def test_it_leads_to_a_page_of_ours_alone(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        for foreign in ("https://evil.example/", "//evil.example", "/\\evil.example"):
            browser = open_browser()
            back = browser.get(provider.agree(leave(browser, foreign), account("Flo Hay")), follow_redirects=False)
            assert back.headers["location"] == "/incidents"

    def test_the_session_is_another_one_than_before(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        browser = open_browser()
        browser.cookies.set("mlrunbook", "planted-by-somebody-else")
        assert signed_in(browser, provider, account()).get("/try/read").status_code == 200
        attacker = open_browser()
        attacker.cookies.set("mlrunbook", "planted-by-somebody-else")
        assert attacker.get("/try/read").url.path == "/login"

    def test_the_store_keeps_no_secret_of_the_way(self, open_browser: Callable[..., Browser], engine: Engine) -> None:
        browser = open_browser()
        leave(browser)
        with transaction(engine) as conn:
            rows = [json.dumps(dict(row._mapping), default=str) for row in conn.execute(select(console_one_time_secrets))]
        assert rows
        assert not any(browser.cookies["mlrunbook-way"] in row for row in rows)


class TestTheEnd:
    def test_signing_out_ends_the_session_here_and_goes_on_to_the_provider(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        ann = signed_in(open_browser(), provider, account())
        copied = open_browser()
        copied.cookies.set("mlrunbook", ann.secret)
        answer = ann.submit("/logout")
        where = answer.headers["refresh"].partition("url=")[2]
        assert where.startswith(provider.issuer)
        asked = parse_qs(urlsplit(where).query)
        assert asked["post_logout_redirect_uri"] == [f"{HERE}/login"]
        assert asked["id_token_hint"][0].count(".") == 2
        assert copied.get("/try/read").url.path == "/login"

    def test_a_session_ends_after_its_hours(
        self, open_browser: Callable[..., Browser], provider: RunningProvider, account: Callable[..., str], clock: Clock
    ) -> None:
        ann = signed_in(open_browser(), provider, account())
        clock.pass_(hours=13)
        assert ann.get("/try/read").url.path == "/login"

    def test_changes_to_production_send_to_the_provider_again_which_is_told_to_ask(
        self,
        open_browser: Callable[..., Browser],
        provider: RunningProvider,
        account: Callable[..., str],
        clock: Clock,
        done: list[str],
    ) -> None:
        sub = account("Gil Orr")
        gil = signed_in(open_browser(), provider, sub)
        clock.pass_(minutes=61)
        page = gil.submit("/try/change", headers={"Referer": f"{HERE}/try/change"})
        assert (page.url.path, page.url.params["next"]) == ("/login", "/try/change")
        address = leave(gil, "/try/change")
        assert parse_qs(urlsplit(address).query)["max_age"] == ["3600"]
        clock.at -= timedelta(minutes=61)  # the provider's clock is the real one
        assert gil.get(provider.agree(address, sub)).text == "are you sure?"
        gil.submit("/try/change")
        assert done == ["Gil Orr changed production"]


class TestAProviderInTrouble:
    def test_one_that_does_not_answer_is_an_error_that_names_another_way(self, browser: Callable[..., Browser], world: World) -> None:
        app = create_app(world, public_url=HERE)
        offer(app, Provider("http://127.0.0.1:9", "mlrunbook", None, HERE))
        answer = browser(app).get("/login/oidc")
        assert answer.status_code == 503
        assert "token" in answer.text

    def test_one_that_calls_itself_otherwise_signs_nobody_in(
        self, browser: Callable[..., Browser], world: World, provider: RunningProvider, account: Callable[..., str]
    ) -> None:
        app = create_app(replace(world, policy=Policy(console=CONSOLE)), public_url=HERE)
        offer(app, Provider(provider.issuer.replace("127.0.0.1", "localhost") + "/.", "mlrunbook", None, HERE))
        one = browser(app)
        assert one.get(provider.agree(leave(one), account())).status_code == 503
        assert not one.secret

    def test_without_one_there_is_no_way_to_it(self, browser: Callable[..., Browser], world: World) -> None:
        one = browser(create_app(world))
        assert one.get("/login/oidc").status_code == 404
        assert "/login/oidc" not in one.get("/login").text


@pytest.mark.parametrize("person", [None, "", "  ", 7, ["ann@example.com"], {"a": 1}])
def test_claims_without_a_person_are_refused(person: object) -> None:
    with pytest.raises(Invalid, match="person_claim"):
        read({"email": person, "groups": ["ml-leads"]}, CONSOLE, id_token=None)


@pytest.mark.parametrize("said", [False, "false", "False", None, 0, 1.5, [], {}, ""])
def test_an_address_that_is_not_said_to_be_verified_is_nobodys_however_that_is_said(said: object) -> None:
    with pytest.raises(NotApproved):
        read({"email": "ann@example.com", "email_verified": said}, ConsolePolicy(), id_token=None)


@pytest.mark.parametrize("said", [{}, {"email_verified": True}, {"email_verified": "true"}])
def test_an_address_that_the_provider_vouches_for_is_a_person(said: dict[str, object]) -> None:
    assert read({"email": "ann@example.com"} | said, ConsolePolicy(), id_token=None).person == "ann@example.com"


def test_another_claim_than_the_address_may_say_who_it_is() -> None:
    policy = ConsolePolicy(person_claim="sub")
    assert read({"sub": "u-1", "email_verified": False}, policy, id_token=None).person == "u-1"
    with pytest.raises(NotApproved):
        read({"email": "a@example.com", "email_verified": False}, ConsolePolicy(), id_token=None)
