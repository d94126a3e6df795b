"""A person, a browser, the Prefect UI: report, look, approve."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlrunbook.base.processes import MARK, marked
from mlrunbook.domain.incident import Status
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.response.plan_state import PREFECT_FORM
from mlrunbook.store import plans
from mlrunbook.store.plans import StoredApproval
from tests.flows.live import Live, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = Path("/usr/bin/chromium")
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
pytestmark = [
    pytest.mark.prefect,
    pytest.mark.stack,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason=f"no browser: {CHROMIUM} is missing"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(15_000)
        yield page
        browser.close()


@contextmanager
def unheard(live: Live) -> Iterator[None]:
    """No alert gets through for a while: the person is the first to report."""
    mark = f"{live.stack.stack_id}/gateway/"
    gateway = next(p for p in marked(mark) if p.environ()[MARK] == mark)
    gateway.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.send_signal(signal.SIGCONT)


def shot(page: Page, name: str) -> None:
    """Kept only where somebody wants to look."""
    if folder := os.environ.get("MLRUNBOOK_TEST_SHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def log_in(page: Page, live: Live) -> None:
    page.goto(f"http://127.0.0.1:{live.stack.ports.prefect}/")
    page.locator("input[type=password]").fill(live.stack.prefect_auth or "")
    page.get_by_role("button", name="Login").click()


def report(page: Page) -> None:
    """Deployments, respond, custom run."""
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name="respond").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_role("textbox", name="model (Optional)", exact=True).fill(MODEL)  # there is a switch unknownModel, too
    page.get_by_label("description").fill("Pumps fail without a warning since the release")
    page.get_by_label("reportedBy").fill("shift_lead")
    shot(page, "1-custom-run")
    page.get_by_role("button", name="Submit").click()


def open_form(page: Page, run: str) -> Locator:
    """The dialog with the plan. A page opened in the moment of suspending may still show the run without its form: then it is reloaded."""
    from playwright.sync_api import TimeoutError

    for patience_ms in (5_000, 15_000):
        page.goto(run)
        page.get_by_text("Suspended").first.wait_for()
        shot(page, "2-run-waits")
        page.locator("main button:has(svg.lucide-ellipsis-vertical)").first.click()
        page.get_by_role("menuitem", name="Resume").click()
        form = page.get_by_role("dialog")
        with suppress(TimeoutError):
            form.get_by_text("roll predictive_maintenance back to v1.5.0").first.wait_for(timeout=patience_ms)
            return form
    raise AssertionError(f"the form shows no plan: {page.get_by_role('dialog').all_inner_texts()}")


def approve_in_form(page: Page, live: Live, incident_id: str) -> StoredApproval:
    """Fill it in and send it off, until the approval is stored: an alert that comes meanwhile has the run look once more, and what was
    typed into the form of before goes nowhere."""
    from playwright.sync_api import Error

    def stored() -> list[StoredApproval]:
        with live.store() as conn:
            return [row for row in plans.approvals_of(conn, incident_id) if row.door == PREFECT_FORM]

    for _ in range(3):
        run = live.wait_until_suspended(incident_id)
        with suppress(Error, AssertionError):
            form = open_form(page, f"http://127.0.0.1:{live.stack.ports.prefect}/v2/runs/flow-run/{run}")
            shot(page, "3-form")
            form.get_by_label("Your name").fill("Team Lead")
            form.get_by_label("Comment").fill("the findings name the release")
            form.get_by_text("Select", exact=True).click()
            page.get_by_role("option", name="approved").click()
            shot(page, "4-form-filled")
            form.get_by_role("button", name="Resume").click()
            return wait_for("the approval is stored", stored)[0]
    raise AssertionError(f"no approval: {page.get_by_role('dialog').all_inner_texts()}; {[e.text for e in live.entries(incident_id)]}")


def test_a_person_reports_and_approves_in_the_prefect_ui(live: Live, page: Page) -> None:
    known = {i.id for i in live.incidents()}
    live.release_badly()
    with unheard(live):
        for _ in range(3):
            live.simulator.tick(1000)
        log_in(page, live)
        report(page)
        found = live.wait("", "the run opens an incident", lambda: [i for i in live.incidents() if i.id not in known])
    incident_id = found[0].id
    assert (found[0].reported_by, found[0].description) == ("shift_lead", "Pumps fail without a warning since the release")

    live.wait_until_suspended(incident_id)
    plan = live.plan(incident_id)
    assert plan is not None
    assert "roll predictive_maintenance back to v1.5.0" in [a.summary for a in plan.actions]
    row = approve_in_form(page, live, incident_id)
    with live.traffic():
        assert live.wait_until_ended(incident_id).status is Status.CLOSED

    assert live.serving()["servingVersion"] == live.loaded()["version"] == "v1.5.0"
    assert (row.door, row.verified, row.approver) == ("prefect_form", False, "Team Lead")
    page.get_by_text("Completed").first.wait_for()
    shot(page, "5-run")
    page.get_by_role("tab", name="Artifacts").click()
    for kind in ("findings", "plan", "review"):
        page.get_by_text(f"{incident_id.replace('_', '-')}-{kind}").first.wait_for()
    shot(page, "6-artifacts")
