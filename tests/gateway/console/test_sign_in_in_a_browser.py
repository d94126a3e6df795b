"""Signing in and out in Chromium, at a provider on another origin, under the pages' own policy; read by axe-core in light and dark."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.policy.console import ConsolePolicy, GroupRule
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console.oidc import Provider
from mlrunbook.gateway.console.router import offer
from mlrunbook.response.world import World
from tests.gateway.conftest import Keys
from tests.gateway.console.provider import RunningProvider
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WAIT_MS = 240_000
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason=f"no browser: {CHROMIUM} is missing"),
]


@pytest.fixture(scope="module")
def url(world: World, provider: RunningProvider) -> Iterator[str]:
    policy = Policy(console=ConsolePolicy(groups={"ml-leads": GroupRule(("read", "report"))}))
    app = create_app(replace(world, policy=policy))
    with served(app) as address:
        offer(app, Provider(provider.issuer, "mlrunbook", "any", address))
        yield address


@pytest.fixture(scope="module")
def chromium(url: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def said() -> list[str]:
    """What the console of the browser said about our pages' policy."""
    return []


def opened(chromium: Browser, said: list[str], size: Any = PHONE, scheme: Any = "light") -> Page:
    page = chromium.new_context(viewport=size, color_scheme=scheme).new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: said.append(message.text) if "Content Security Policy" in message.text else None)
    return page


def test_somebody_signs_in_at_the_provider_and_out_again(chromium: Browser, url: str, provider: RunningProvider, said: list[str]) -> None:
    sub = f"s{uuid.uuid4().hex[:12]}"
    provider.person(sub, name="Kay Lind", email=f"{sub}@example.com", groups=["ml-leads"])
    page = opened(chromium, said)
    page.goto(f"{url}/report?severity=high")
    page.get_by_role("link", name="Sign in with your work account").click()
    page.locator("input[name=sub]").fill(sub)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{url}/report?severity=high")
    page.locator("details.more summary").click()
    page.get_by_role("button", name="Sign out Kay Lind").click()
    page.wait_for_url(f"{provider.issuer}/**")
    page.goto(f"{url}/report")
    page.wait_for_url(f"{url}/login?**")
    assert [one for one in said if url in one] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_sign_in_pages_can_be_read_by_everybody(
    chromium: Browser, url: str, keys: Keys, said: list[str], size: Any, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(chromium, said, size, scheme)
    link = page.request.post(
        f"{url}/api/v1/console/links", data={}, headers={"Authorization": f"Bearer {keys.token('Ann Lee', Scope.READ)}"}
    ).json()["url"]
    shots = os.environ.get("SHOTS")
    for name, address in (("login", "/login?next=/report"), ("link", link.removeprefix(url)), ("used", "/login/link/used")):
        page.goto(url + address)
        if shots:
            page.screenshot(path=f"{shots}/{name}-{size['width']}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        found = Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}})
        assert found.violations_count == 0, found.generate_report()
    assert said == []
