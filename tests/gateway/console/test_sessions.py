"""Who is signed in, for how long, with whose rights; and that nobody else's page, cookie or guess does anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, select

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Limits
from mlrunbook.base.tokens import Scope
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console.local_path import local_path
from mlrunbook.response.world import World
from mlrunbook.store.tables import console_sessions
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser
from tests.gateway.console.pages import pages

RESPONDER = (Scope.READ, Scope.OPERATE, Scope.APPROVE)


@pytest.fixture(scope="module")
def done() -> list[str]:
    return []


@pytest.fixture(scope="module")
def app(world: World, done: list[str]) -> FastAPI:
    app = create_app(world)
    app.include_router(pages(done))
    return app


@pytest.fixture
def open_browser(browser: Callable[..., Browser], app: FastAPI, clock: Clock, done: list[str]) -> Callable[..., Browser]:
    done.clear()
    return lambda **how: browser(app, **how)


@pytest.fixture
def ann(open_browser: Callable[..., Browser], keys: Keys) -> Browser:
    return signed_in(open_browser(), keys.token("Ann Lee", *RESPONDER, role="ml_team_lead"))


def signed_in(browser: Browser, token: str, next: str = "/try/read") -> Browser:
    answer = browser.post("/login/token", data={"token": token, "next": next}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, next)
    return browser


def sessions(engine: Engine) -> list[str]:
    with transaction(engine) as conn:
        return list(conn.execute(select(console_sessions.c.sha256)).scalars())


def token_id(token: str) -> str:
    return token.removeprefix(tokens.PREFIX).partition("_")[0]


class TestSigningIn:
    def test_whoever_is_not_signed_in_gets_the_sign_in_page_and_then_the_page_they_wanted(
        self, open_browser: Callable[..., Browser], keys: Keys
    ) -> None:
        browser = open_browser()
        page = browser.get("/try/read?open=1")
        assert (page.url.path, page.url.params["next"]) == ("/login", "/try/read?open=1")
        assert 'value="/try/read?open=1"' in page.text
        landed = browser.post("/login/token", data={"token": keys.token("Ann Lee", Scope.READ), "next": "/try/read?open=1"})
        assert str(landed.url).endswith("/try/read?open=1")
        assert landed.text.startswith("Ann Lee|ann lee|")

    def test_rights_are_those_of_the_token(self, ann: Browser) -> None:
        assert ann.get("/try/read").text == "Ann Lee|ann lee|ml_team_lead|approve operate read|True"

    @pytest.mark.parametrize("token", ["", "mlrb_", "mlrb_00000000_" + "x" * 43, "\0", "ä" * 200, "mlrb_' OR 1=1"])
    def test_a_wrong_token_signs_nobody_in(self, open_browser: Callable[..., Browser], engine: Engine, token: str) -> None:
        browser, before = open_browser(), sessions(engine)
        answer = browser.post("/login/token", data={"token": token})
        assert answer.status_code == 401
        assert not browser.cookies
        assert sessions(engine) == before

    def test_a_token_that_may_not_read_signs_nobody_in(self, open_browser: Callable[..., Browser], keys: Keys) -> None:
        assert open_browser().post("/login/token", data={"token": keys.token("alertmanager", Scope.ALERTS)}).status_code == 401

    def test_wrong_tokens_are_limited_to_so_many_a_minute(self, browser: Callable[..., Browser], world: World, keys: Keys) -> None:
        one = browser(create_app(world, limits=Limits(failed_per_min_address=3)))
        statuses = [one.post("/login/token", data={"token": "mlrb_wrong"}).status_code for _ in range(6)]
        assert statuses == [401, 401, 401, 429, 429, 429]
        right = {"token": keys.token("Ann Lee", Scope.READ)}
        assert one.post("/login/token", data=right, follow_redirects=False).status_code == 429

    def test_an_htmx_request_of_nobody_sends_the_whole_page_to_sign_in(self, open_browser: Callable[..., Browser]) -> None:
        asked = {"HX-Request": "true", "HX-Current-URL": "http://testserver/incidents/incident_5?tab=plan"}
        answer = open_browser().get("/try/read", headers=asked)
        assert answer.headers["hx-redirect"] == "/login?next=%2Fincidents%2Fincident_5%3Ftab%3Dplan"


class TestTheCookie:
    def test_it_is_hidden_from_scripts_and_from_forms_of_other_sites(self, open_browser: Callable[..., Browser], keys: Keys) -> None:
        answer = open_browser().post("/login/token", data={"token": keys.token("Ann Lee", Scope.READ)}, follow_redirects=False)
        flags = {part.strip().lower().partition("=")[0]: part.strip() for part in answer.headers["set-cookie"].split(";")}
        assert {"httponly", "path", "samesite"} <= set(flags)
        assert flags["samesite"].lower() == "samesite=lax"
        assert "domain" not in flags

    @pytest.mark.parametrize("public_url", ["https://incidents.example.com", None])
    def test_over_https_it_is_secure_and_bound_to_the_host(
        self, browser: Callable[..., Browser], world: World, keys: Keys, public_url: str | None
    ) -> None:
        app = create_app(world, public_url=public_url)
        one = browser(app, base_url="http://testserver" if public_url else "https://testserver")
        answer = one.post("/login/token", data={"token": keys.token("Ann Lee", Scope.READ)}, follow_redirects=False)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-mlrunbook=")
        assert "; Secure" in cookie

    def test_over_https_a_cookie_without_the_prefix_is_nobody(self, browser: Callable[..., Browser], world: World, ann: Browser) -> None:
        app = create_app(world)
        app.include_router(pages([]))
        other = browser(app, base_url="https://testserver")
        other.cookies.set("mlrunbook", ann.secret)
        assert other.get("/try/read").url.path == "/login"

    def test_the_store_does_not_have_what_the_cookie_has(self, ann: Browser, engine: Engine) -> None:
        with transaction(engine) as conn:
            rows = [str(dict(row._mapping)) for row in conn.execute(select(console_sessions))]
        assert rows
        assert not any(ann.secret in row for row in rows)

    def test_a_secret_from_elsewhere_is_not_taken_over_at_sign_in(self, open_browser: Callable[..., Browser], keys: Keys) -> None:
        """Session fixation: an attacker plants a cookie and waits for somebody to sign in with it."""
        browser = open_browser()
        browser.cookies.set("mlrunbook", "planted-by-somebody-else")
        signed_in(browser, keys.token("Ann Lee", Scope.READ))
        attacker = open_browser()
        attacker.cookies.set("mlrunbook", "planted-by-somebody-else")
        assert attacker.get("/try/read").url.path == "/login"

    def test_signing_in_again_ends_the_session_before(self, ann: Browser, open_browser: Callable[..., Browser], keys: Keys) -> None:
        copied = open_browser()
        copied.cookies.set("mlrunbook", ann.secret)
        signed_in(ann, keys.token("Ann Lee", Scope.READ))
        assert copied.get("/try/read").url.path == "/login"

    def test_guessed_sessions_are_nobody_and_are_counted(self, browser: Callable[..., Browser], world: World) -> None:
        app = create_app(world, limits=Limits(failed_per_min_address=5))
        app.include_router(pages([]))
        one = browser(app)
        statuses = []
        for guess in range(8):
            one.cookies.set("mlrunbook", f"{guess:043d}")
            statuses.append(one.get("/try/read", follow_redirects=False).status_code)
        assert statuses == [303] * 5 + [429] * 3

    def test_coming_without_a_cookie_is_no_failed_attempt(self, browser: Callable[..., Browser], world: World) -> None:
        app = create_app(world, limits=Limits(failed_per_min_address=2))
        app.include_router(pages([]))
        assert {browser(app).get("/try/read", follow_redirects=False).status_code for _ in range(6)} == {303}


class TestTheEnd:
    def test_signing_out_ends_the_session_also_for_a_copy_of_the_cookie(self, ann: Browser, open_browser: Callable[..., Browser]) -> None:
        copied = open_browser()
        copied.cookies.set("mlrunbook", ann.secret)
        ann.submit("/logout")
        assert not ann.secret
        assert copied.get("/try/read").url.path == "/login"

    def test_nobody_is_signed_out_by_a_link(self, ann: Browser) -> None:
        ann.get("/logout")
        assert ann.get("/try/read").text.startswith("Ann Lee")

    def test_a_revoked_token_ends_its_sessions_at_once(self, open_browser: Callable[..., Browser], keys: Keys, engine: Engine) -> None:
        token = keys.token("Ann Lee", *RESPONDER)
        browser = signed_in(open_browser(), token)
        with transaction(engine) as conn:
            tokens.revoke(conn, token_id(token))
        assert browser.get("/try/read").url.path == "/login"

    def test_a_token_that_expires_ends_its_sessions(self, open_browser: Callable[..., Browser], engine: Engine) -> None:
        ends = tokens.Limits(expires_at=datetime.now(UTC) + timedelta(days=1))
        with transaction(engine) as conn:
            token = tokens.create(conn, name="Ann Lee", scopes=(Scope.READ,), limits=ends)
        browser = signed_in(open_browser(), token)
        with transaction(engine) as conn:
            expired = tokens.tokens.update().where(tokens.tokens.c.id == token_id(token))
            conn.execute(expired.values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
        assert browser.get("/try/read").url.path == "/login"

    def test_a_session_ends_after_its_hours_however_busy_it_is(self, ann: Browser, clock: Clock) -> None:
        for _ in range(11):
            clock.pass_(hours=1)
            assert ann.get("/try/read").status_code == 200
        clock.pass_(hours=1, seconds=1)
        assert ann.get("/try/read").url.path == "/login"

    def test_a_session_ends_when_nobody_asks_for_anything(self, ann: Browser, clock: Clock) -> None:
        clock.pass_(minutes=119)
        assert ann.get("/try/read").url.path == "/try/read"
        clock.pass_(minutes=121)
        assert ann.get("/try/read").url.path == "/login"

    def test_a_live_page_that_is_only_left_open_keeps_no_session_alive(self, ann: Browser, clock: Clock) -> None:
        for _ in range(2):
            clock.pass_(minutes=59)
            assert ann.get("/try/is-still-in").text == "True"
        clock.pass_(minutes=3)
        assert ann.get("/try/read").url.path == "/login"

    def test_a_form_of_a_session_that_is_over_does_nothing_and_leads_back_to_its_page(
        self, ann: Browser, clock: Clock, done: list[str]
    ) -> None:
        clock.pass_(hours=13)
        answer = ann.submit("/try/operate", headers={"Referer": "http://testserver/try/change?plan=abc"})
        assert (answer.url.path, answer.url.params["next"]) == ("/login", "/try/change?plan=abc")
        assert done == []


class TestChangesToProduction:
    def test_they_need_a_recent_sign_in_and_the_person_lands_where_they_were(
        self, ann: Browser, keys: Keys, clock: Clock, done: list[str]
    ) -> None:
        assert ann.submit("/try/change").status_code == 200
        clock.pass_(minutes=61)
        assert ann.get("/try/read").text.endswith("|False")
        page = ann.submit("/try/change", headers={"Referer": "http://testserver/try/change"})
        assert page.url.path == "/login"
        assert "signed in as Ann Lee" in page.text
        assert done == ["Ann Lee changed production"]
        landed = ann.post("/login/token", data={"token": keys.token("Ann Lee", *RESPONDER), "next": page.url.params["next"]})
        assert landed.text == "are you sure?"
        ann.submit("/try/change")
        assert len(done) == 2

    def test_everything_else_goes_on_with_an_older_one(self, ann: Browser, clock: Clock, done: list[str]) -> None:
        clock.pass_(minutes=61)
        ann.submit("/try/operate")
        assert done == ["Ann Lee did it"]


class TestForms:
    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_what_another_site_sends_does_nothing(self, ann: Browser, done: list[str], site: str) -> None:
        assert ann.submit("/try/operate", headers={"Sec-Fetch-Site": site}).status_code == 403
        assert ann.post("/login/token", data={"token": "x"}, headers={"Sec-Fetch-Site": site}).status_code == 403
        assert done == []

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver.evil.example", "http://evil@other"])
    def test_so_does_what_an_older_browser_says_is_of_another_origin(self, ann: Browser, done: list[str], origin: str) -> None:
        assert ann.submit("/try/operate", headers={"Origin": origin}).status_code == 403
        assert done == []

    def test_our_own_pages_may_send(self, ann: Browser, done: list[str]) -> None:
        for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "http://testserver"}, {}):
            assert ann.submit("/try/operate", headers=headers).status_code == 200
        assert len(done) == 3

    @pytest.mark.parametrize("given", [None, "", "0" * 64, "ä"])
    def test_without_the_sessions_own_token_nothing_is_done(self, ann: Browser, done: list[str], given: str | None) -> None:
        assert ann.post("/try/operate", data={} if given is None else {"csrf": given}).status_code == 403
        assert done == []

    def test_the_token_of_another_session_is_none(
        self, ann: Browser, open_browser: Callable[..., Browser], keys: Keys, done: list[str]
    ) -> None:
        other = signed_in(open_browser(), keys.token("Bo Ray", *RESPONDER))
        assert ann.post("/try/operate", data={"csrf": other.csrf}).status_code == 403
        assert done == []

    def test_a_script_sends_it_in_a_header(self, ann: Browser, done: list[str]) -> None:
        assert ann.post("/try/operate", headers={"X-CSRF-Token": ann.csrf}).status_code == 200
        assert done == ["Ann Lee did it"]

    def test_a_file_in_its_place_is_none(self, ann: Browser, done: list[str]) -> None:
        assert ann.post("/try/operate", files={"csrf": ("csrf", ann.csrf.encode())}).status_code == 403
        assert done == []

    def test_fields_of_the_form_arrive_beside_it(self, ann: Browser, done: list[str]) -> None:
        ann.submit("/try/operate", {"what": "a rollback"})
        assert done == ["Ann Lee did a rollback"]


class TestRights:
    def test_who_may_only_read_does_nothing(self, open_browser: Callable[..., Browser], keys: Keys, done: list[str]) -> None:
        reader = signed_in(open_browser(), keys.token("a reader", Scope.READ))
        for path in ("/try/operate", "/try/approve", "/try/change"):
            answer = reader.submit(path)
            assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
        assert done == []

    def test_a_token_limited_to_models_sees_their_pages_alone(self, open_browser: Callable[..., Browser], engine: Engine) -> None:
        with transaction(engine) as conn:
            token = tokens.create(conn, name="Ann Lee", scopes=(Scope.READ,), limits=tokens.Limits(models=("pump_*",)))
        browser = signed_in(open_browser(), token, "/try/models/pump_1")
        assert browser.get("/try/models/pump_1").text == "pump_1"
        assert browser.get("/try/models/turbine").status_code == 403
        assert browser.get("/try/read").status_code == 403

    def test_a_session_is_no_key_to_the_api(self, ann: Browser) -> None:
        assert ann.get("/api/v1/incidents").status_code == 401


@pytest.mark.parametrize(
    "asked",
    [
        "", "incidents", "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "https:/evil.example",
        "javascript:alert(1)", "/\t/evil.example", "/%0d%0aSet-Cookie:x\r\n", "/ä", "/a b", "/" + "a" * 3000,
        "/login", "/login?next=/login", "/logout",
        "///evil.example", "/\n/evil.example", " /incidents", "/incidents\0",
    ],
)  # fmt: skip
def test_what_is_no_page_of_ours_leads_to_the_incidents(asked: str) -> None:
    assert local_path(asked) == "/incidents"


@pytest.mark.parametrize("asked", ["/incidents/incident_5", "/incidents?severity=high&text=f1%20fell", "/models/m@1.0:x;y"])
def test_a_page_of_ours_is_where_the_person_lands(asked: str) -> None:
    assert local_path(asked) == asked
