"""Prefect's UI in Chromium: signing in, and the form of a run that waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.flows.live import Live

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = Path("/usr/bin/chromium")
IS_MISSING = not CHROMIUM.exists() and "CI" not in os.environ
WHY_MISSING = f"no browser: {CHROMIUM} is missing"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def opened_page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def shot(page: Page, name: str) -> None:
    """Kept only where somebody wants to look."""
    if folder := os.environ.get("MLRUNBOOK_TEST_SHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def log_in(page: Page, live: Live) -> None:
    page.goto(f"http://127.0.0.1:{live.stack.ports.prefect}/")
    page.locator("input[type=password]").fill(live.stack.prefect_auth or "")
    page.get_by_role("button", name="Login").click()


def open_form(page: Page, live: Live, run: str, plan: str) -> Locator:
    """The dialog that shows that plan. A page opened in the moment of suspending may still show the run without its form: then it is
    reloaded."""
    from playwright.sync_api import TimeoutError

    for patience_ms in (10_000, 60_000):
        page.goto(f"http://127.0.0.1:{live.stack.ports.prefect}/v2/runs/flow-run/{run}")
        page.get_by_text("Suspended").first.wait_for()
        shot(page, "2-run-waits")
        page.locator("main button:has(svg.lucide-ellipsis-vertical)").first.click()
        page.get_by_role("menuitem", name="Resume").click()
        form = page.get_by_role("dialog")
        with suppress(TimeoutError):
            form.get_by_text(plan).first.wait_for(timeout=patience_ms)
            return form
    raise AssertionError(f"the form shows no plan: {page.get_by_role('dialog').all_inner_texts()}")
