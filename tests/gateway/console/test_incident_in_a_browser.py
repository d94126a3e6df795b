"""The page of one incident in Chromium: live, on a phone and on a desk, by keyboard and for a screen reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.base import tokens
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from mlrunbook.store import timeline
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.gateway.conftest import Keys
from tests.response.carrying import carry
from tests.response.people import deliver, report
from tests.served import served
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason=f"no browser: {CHROMIUM} is missing"),
]


@pytest.fixture(scope="module")
def world(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> World:
    empty_store(engine)
    clock = Clock()
    files = FileWorld(tmp_path_factory.mktemp("world") / "world.json", clock)
    return world_of(engine, files, clock, notifier=LedgerNotifier(), orchestrator=LedgerOrchestrator())


@pytest.fixture(scope="module")
def incident_id(world: World) -> str:
    """A bad release: contained, and its plan waits."""
    made = report(world)
    carry(world, made, "run-1")
    deliver(world)
    return made


@pytest.fixture(scope="module")
def chromium(incident_id: str) -> Iterator[Browser]:
    """Once the incident is there: while Playwright runs, no other event loop does in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    app = create_app(world)
    app.state.live._every_s, app.state.live._quiet_s = 0.1, 0.5
    with served(app) as address:
        yield address
        app.state.live.stop()


@pytest.fixture
def opened(chromium: Browser, url: str, keys: Keys) -> Iterator[Callable[..., Page]]:
    """A page of somebody who is signed in. What the console says of it is in `problems`."""
    contexts = []

    def opening(path: str, viewport: dict[str, int], *, scheme: str = "light", token: str = "") -> Page:
        with httpx.Client(base_url=url) as client:
            assert client.post("/login/token", data={"token": token or keys.token("Ann Lee", role="ml_team_lead")}).status_code == 303
            cookies = [{"name": name, "value": value, "url": url} for name, value in client.cookies.items()]
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
        context.add_cookies(cookies)  # type: ignore[arg-type]
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(url + path)
        return page

    problems: list[str] = []
    yield opening
    for context in contexts:
        context.close()
    assert problems == []


def say(world: World, incident_id: str, words: str) -> None:
    with world.transaction() as conn:
        timeline.append(conn, incident_id, "note", words, actor="the lead", at=world.now())


def test_news_come_by_themselves_and_leave_what_is_open_and_focused(world: World, incident_id: str, opened: Callable[..., Page]) -> None:
    page = opened(f"/incidents/{incident_id}", DESK)
    page.wait_for_selector("#charts svg")
    page.click("#evidence > summary")
    page.focus("#do-close-")
    say(world, incident_id, "the gateway answers <b>again</b>")
    page.wait_for_selector("#entries > li:first-child:has-text('the gateway answers <b>again</b>')")
    page.wait_for_selector("section[aria-labelledby=latest] li:has-text('the gateway answers')")
    assert page.evaluate("[document.querySelector('#evidence').open, document.activeElement.id]") == [True, "do-close-"]
    assert page.locator("#entries > li:has-text('the gateway answers')").count() == 1


def test_two_people_see_the_same_at_once(world: World, incident_id: str, keys: Keys, opened: Callable[..., Page]) -> None:
    pages = [opened(f"/incidents/{incident_id}", PHONE), opened(f"/incidents/{incident_id}", DESK, token=keys.token("Bob Roe"))]
    for page in pages:
        page.wait_for_selector("#charts svg")
    say(world, incident_id, "for both of them")
    for page in pages:
        page.wait_for_selector("#entries > li:first-child:has-text('for both of them')")


def test_a_session_that_ends_leads_to_the_sign_in_page_and_back(
    world: World, incident_id: str, keys: Keys, opened: Callable[..., Page]
) -> None:
    token = keys.token("Cas Vu")
    page = opened(f"/incidents/{incident_id}", PHONE, token=token)
    page.wait_for_selector("#charts svg")
    with world.transaction() as conn:
        tokens.revoke(conn, token)
    page.wait_for_url("**/login?next=*")
    assert f"incidents%2F{incident_id}" in page.url


def test_older_entries_come_into_the_same_list(world: World, incident_id: str, opened: Callable[..., Page]) -> None:
    with world.transaction() as conn:
        for n in range(150):
            timeline.append(conn, incident_id, "note", f"entry {n}", actor="the lead", at=world.now())
        length = timeline.length(conn, incident_id)
    page = opened(f"/incidents/{incident_id}", PHONE)
    page.click(".older a")
    until(lambda: page.locator("#entries > li:not(.older)").count() == length)
    assert page.locator(".older").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_it_fits_and_everybody_can_use_it(incident_id: str, opened: Callable[..., Page], viewport: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(f"/incidents/{incident_id}", viewport, scheme=scheme)
    page.wait_for_selector("#charts svg")
    page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    tapped = page.locator("main a.button:visible, main summary:visible").evaluate_all(
        "all => all.map(e => [e.textContent, e.offsetHeight])"
    )
    assert [words for words, height in tapped if height < 44] == []
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]] == []
