"""The lists in Chromium: on a phone and on a desktop, in light and dark, with our own policy in force."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.domain.roles import Role
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.kit import HOSTILE, ended, filed, opened, paged, planned, quarantined, todo
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
LOADS_MS = 60_000  # beside busy processes
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason=f"no browser: {CHROMIUM} is missing"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site(world: World, clock: Clock) -> Iterator[str]:
    with served(create_app(world)) as url:
        yield url


def at(chromium: Browser, url: str, token: str, said: list[str], **how: Any) -> Page:
    """A page that is signed in; what the browser complains of is in `said`."""
    context = chromium.new_context(**how)
    context.set_default_timeout(LOADS_MS)
    context.request.post(f"{url}/login/token", form={"token": token})
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return page


def test_every_page_fits_a_phone_reads_well_to_everybody_and_breaks_no_policy(
    chromium: Browser, site: str, keys: Keys, client: TestClient, world: World, model: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    one = opened(world, f"{model}_{'long_name_' * 8}", description=HOSTILE)
    planned(world, one)
    paged(world, one, Role.ML_TEAM_LEAD)
    item, audit, number = todo(world, one, HOSTILE, days=-3), filed(world, model, HOSTILE), quarantined(client, world)
    token = keys.token("Ann Lee", role="ml_team_lead")
    paths = ["/incidents", "/models", f"/models/{model}", "/audits", f"/audits/{audit.id}", "/actions", f"/actions/{item}/drop"]
    paths += ["/quarantine", f"/quarantine/{number}", f"/quarantine/{number}/discard", "/silenced", "/policy", "/nothing/here"]
    for size, scheme in ((PHONE, "dark"), (DESKTOP, "light")):
        said: list[str] = []
        page = at(chromium, site, token, said, viewport=size, color_scheme=scheme)
        for path in paths:
            page.goto(site + path, wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (path, size)
            wrong = Axe().run(page).response["violations"]
            assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in wrong] == [], (path, scheme)
        assert [text for text in said if "404" not in text] == []
        page.context.close()


def test_a_search_changes_the_list_without_a_new_page_and_its_address_finds_it_again(
    chromium: Browser, site: str, keys: Keys, world: World, model: str
) -> None:
    one, other = opened(world, model, description="curlew on the line"), opened(world, f"{model}_b", description="godwit on the line")
    ended(world, other)
    said: list[str] = []
    page = at(chromium, site, keys.token("Ann Lee", role="ml_team_lead"), said, viewport=DESKTOP)
    page.goto(f"{site}/incidents")
    page.evaluate("window.same = true")
    page.select_option("#status", "all")
    page.locator(f"#list a[href='/incidents/{other}']").wait_for()
    page.fill("#q", "curlew")
    page.press("#q", "Enter")
    page.locator(f"#list a[href='/incidents/{other}']").wait_for(state="detached")
    assert page.locator(f"#list a[href='/incidents/{one}']").count() == 1
    assert page.evaluate("window.same") is True
    assert "q=curlew" in page.url
    page.reload()
    assert page.locator(f"#list a[href='/incidents/{one}']").count() == 1
    assert said == []


def test_without_script_the_lists_filter_page_and_move_things(chromium: Browser, site: str, keys: Keys, world: World, model: str) -> None:
    one = opened(world, model, description="avocet on the line")
    number = todo(world, one)
    page = at(chromium, site, keys.token("Ann Lee", role="ml_team_lead"), [], viewport=PHONE, java_script_enabled=False)
    page.goto(f"{site}/incidents")
    page.fill("#q", "avocet")
    page.click("form.filters button")
    assert page.locator(f"#list a[href='/incidents/{one}']").count() == 1
    page.goto(f"{site}/models/{model}")
    page.click("text=Ask now")
    assert "nothing answers" in page.inner_text("#serving")
    page.goto(f"{site}/actions")
    page.click(f"#item-{number} a:has-text('Done')")
    page.fill("#note", "an alert exists")
    page.click("form button.primary")
    assert "done by Ann Lee: an alert exists" in page.inner_text(f"#item-{number}")


def test_the_documentation_of_the_api_shows_its_operations(chromium: Browser, site: str, keys: Keys) -> None:
    said: list[str] = []
    page = at(chromium, site, keys.token("Ann Lee"), said, viewport=DESKTOP)
    page.goto(f"{site}/docs")
    page.locator("#swagger-ui .opblock").first.wait_for()
    assert [text for text in said if "Content Security Policy" in text] == []
