"""Signing in with a link that `mlrunbook login` prints: once, soon, and with the rights of the token that made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, select

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from mlrunbook.store.tables import console_one_time_secrets
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser
from tests.gateway.console.pages import pages

PUBLIC = "https://incidents.example.com"


@pytest.fixture(scope="module")
def app(world: World) -> FastAPI:
    app = create_app(world, public_url=PUBLIC)
    app.include_router(pages([]))
    return app


@pytest.fixture
def open_browser(browser: Callable[..., Browser], app: FastAPI, clock: Clock) -> Callable[[], Browser]:
    return lambda: browser(app, base_url=PUBLIC)


def link_of(browser: Browser, token: str, **body: Any) -> str:
    answer = browser.post("/api/v1/console/links", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


def test_it_signs_in_as_the_tokens_owner_and_leads_to_the_page_that_was_asked_for(open_browser: Callable[[], Browser], keys: Keys) -> None:
    phone = open_browser()
    link = link_of(open_browser(), keys.token("Ann Lee", Scope.READ, Scope.APPROVE, role="ml_team_lead"), next="/try/read")
    assert link.startswith(f"{PUBLIC}/login/link/")
    assert "Ann Lee" in phone.get(link).text
    assert phone.post(link).text == "Ann Lee|ann lee|ml_team_lead|approve read|True"


def test_looking_at_it_uses_nothing_up_and_signs_nobody_in(open_browser: Callable[[], Browser], keys: Keys) -> None:
    """As scanners of mail and previews of chats do."""
    scanner, phone = open_browser(), open_browser()
    link = link_of(open_browser(), keys.token("Ann Lee", Scope.READ))
    for _ in range(3):
        assert scanner.get(link).status_code == 200
    assert not scanner.secret
    assert phone.post(link, follow_redirects=False).status_code == 303


def test_it_works_once(open_browser: Callable[[], Browser], keys: Keys) -> None:
    first, second = open_browser(), open_browser()
    link = link_of(open_browser(), keys.token("Ann Lee", Scope.READ))
    assert first.post(link, follow_redirects=False).status_code == 303
    assert (second.post(link).status_code, second.get(link).status_code) == (401, 401)
    assert not second.secret


def test_it_does_not_work_after_ten_minutes(open_browser: Callable[[], Browser], keys: Keys, clock: Clock) -> None:
    link = link_of(open_browser(), keys.token("Ann Lee", Scope.READ))
    clock.pass_(minutes=10, seconds=1)
    assert open_browser().post(link).status_code == 401


def test_it_does_not_work_once_its_token_is_revoked(open_browser: Callable[[], Browser], keys: Keys, engine: Engine) -> None:
    token = keys.token("Ann Lee", Scope.READ)
    before, phone = link_of(open_browser(), token), open_browser()
    used = link_of(open_browser(), token, next="/try/read")
    phone.post(used)
    with transaction(engine) as conn:
        tokens.revoke(conn, token)
    assert open_browser().post(before).status_code == 401
    assert phone.get("/try/read").url.path == "/login"


def test_an_invented_one_is_nobodys(open_browser: Callable[[], Browser]) -> None:
    for secret in ("x" * 43, "%00", "a" * 5000):
        one = open_browser()
        assert one.post(f"/login/link/{secret}").status_code == 401
        assert not one.secret


def test_another_site_cannot_use_it_for_somebody(open_browser: Callable[[], Browser], keys: Keys) -> None:
    """Else somebody would work as another without knowing."""
    victim, link = open_browser(), link_of(open_browser(), keys.token("Mallory", Scope.READ))
    assert victim.post(link, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert not victim.secret


def test_it_leads_to_a_page_of_ours_alone(open_browser: Callable[[], Browser], keys: Keys) -> None:
    link = link_of(open_browser(), keys.token("Ann Lee", Scope.READ), next="//evil.example")
    assert open_browser().post(link, follow_redirects=False).headers["location"] == "/incidents"


def test_who_has_no_token_or_may_not_read_makes_none(open_browser: Callable[[], Browser], keys: Keys) -> None:
    one = open_browser()
    assert one.post("/api/v1/console/links", json={}).status_code == 401
    alerts = {"Authorization": f"Bearer {keys.token('alertmanager', Scope.ALERTS)}"}
    assert one.post("/api/v1/console/links", json={}, headers=alerts).status_code == 403


def test_the_store_does_not_have_what_the_link_has(open_browser: Callable[[], Browser], keys: Keys, engine: Engine) -> None:
    secret = link_of(open_browser(), keys.token("Ann Lee", Scope.READ)).rpartition("/")[2]
    with transaction(engine) as conn:
        rows = [str(dict(row._mapping)) for row in conn.execute(select(console_one_time_secrets))]
    assert rows
    assert not any(secret in row for row in rows)


def test_a_token_limited_to_models_makes_one_that_is_limited_too(open_browser: Callable[[], Browser], engine: Engine) -> None:
    with transaction(engine) as conn:
        token = tokens.create(conn, name="Ann Lee", scopes=(Scope.READ,), limits=tokens.Limits(models=("pump_*",)))
    phone = open_browser()
    phone.post(link_of(open_browser(), token, next="/try/models/pump_1"))
    assert phone.get("/try/models/pump_1").text == "pump_1"
    assert phone.get("/try/models/turbine").status_code == 403
