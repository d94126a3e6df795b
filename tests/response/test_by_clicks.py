"""One incident from its page to the signed review by clicks alone, in a real Chromium: on-call on a phone, the lead at a desk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.incident import Status
from mlrunbook.gateway.app import create_app
from mlrunbook.response.review import reviews
from mlrunbook.response.world import World
from mlrunbook.store import plans
from mlrunbook.store.plans import StoredApproval
from tests.fakes import MODEL, Clock, FileWorld
from tests.flows.prefect_ui import ARGUMENTS, CHROMIUM
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of, report
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from sqlalchemy import Connection

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason=f"no browser: {CHROMIUM} is missing"),
]
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
DESK = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
PATIENCE_MS = 120_000
ALL = (Scope.READ, Scope.OPERATE, Scope.APPROVE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def console(world: World) -> Iterator[str]:
    with served(create_app(world)) as url:
        yield url


@pytest.fixture
def somebody(world: World, console: str, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """A person signs in with a token of that role. What the browser complains of fails the test at its end."""
    complaints: list[str] = []

    def arrives(name: str, role: str, screen: dict[str, object]) -> Page:
        with world.transaction() as conn:
            token = tokens.create(conn, name=name, scopes=ALL, role=role)
        page = chromium.new_context(**screen).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(f"{console}/login")
        page.get_by_label("Personal token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/incidents")
        return page

    yield arrives
    for context in chromium.contexts:
        context.close()
    assert not complaints


def runs(world: World, incident_id: str) -> str:
    """A run of the runbook, in a thread of its own: Playwright has an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(carry, world, incident_id, "run-1").result()


def by_people(conn: Connection, incident_id: str) -> list[StoredApproval]:
    return [row for row in plans.approvals_of(conn, incident_id) if row.door != POLICY_RULE]


def press(page: Page, name: str) -> None:
    """The button or link of that name, large enough for a thumb and in reach without moving the page sideways."""
    target = page.get_by_role("button", name=name).or_(page.get_by_role("link", name=name)).first
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    assert box["height"] >= 44, name
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off at the side"
    target.click()


def shot(page: Page, name: str) -> None:
    """Kept only where somebody wants to look."""
    if folder := os.environ.get("MLRUNBOOK_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_an_incident_goes_from_its_page_to_the_signed_review_by_clicks(
    world: World, clock: Clock, file_world: FileWorld, console: str, somebody: Callable[..., Page]
) -> None:
    incident_id = report(world)
    assert runs(world, incident_id) == "pending"
    deliver(world)

    oncall = somebody("Ann Lee", "oncall_ml_engineer", PHONE)
    shot(oncall, "list-phone")
    oncall.get_by_role("link", name=MODEL).first.click()
    oncall.wait_for_url(f"**/incidents/{incident_id}")
    shot(oncall, "incident-phone")
    press(oncall, "Acknowledge")
    oncall.wait_for_url(f"**/incidents/{incident_id}?did=*")
    assert incident_of(world, incident_id).acknowledged_by == "Ann Lee"

    lead = somebody("Bo Chen", "ml_team_lead", DESK)
    lead.goto(f"{console}/incidents/{incident_id}")
    shot(lead, "incident-desk")
    press(lead, "Approve")
    lead.wait_for_url("**/approve?plan=*")
    shot(lead, "approve-desk")
    with world.transaction() as conn:
        assert not by_people(conn, incident_id), "looking decides nothing"
    lead.get_by_label("Reason").fill("v2.0.0 is the only change of the day")
    press(lead, "Approve plan")
    lead.wait_for_url(f"**/incidents/{incident_id}*")
    with world.transaction() as conn:
        (said,) = by_people(conn, incident_id)
    assert (said.decision, said.approver, said.door, said.verified) == ("approved", "Bo Chen", "console", True)

    clock.advance(minutes=2)
    assert runs(world, incident_id) == "closed"
    deliver(world)
    oncall.get_by_role("status").get_by_text("closed").first.wait_for()  # by itself: nobody reloads
    assert incident_of(world, incident_id).status is Status.CLOSED

    press(lead, "The review")
    press(lead, "Edit the review")
    written = lead.get_by_label("The review, in Markdown")
    heading = "## Action Items"
    assert heading in written.input_value()
    written.fill(written.input_value().replace(heading, f"We compare the next release by segment before it serves everybody.\n\n{heading}"))
    press(lead, "Save")
    lead.wait_for_url(f"**/incidents/{incident_id}/review*")
    press(lead, "Add an action item")
    lead.get_by_label("What is to be done").fill("Compare releases by segment")
    lead.get_by_label("Owner").fill("ml_team_lead")
    lead.get_by_label("Due at the end of this day").fill(f"{clock().year + 1}-01-15")
    press(lead, "Add it")
    lead.wait_for_url(f"**/incidents/{incident_id}/review*")
    press(lead, "Sign as reviewed")
    lead.wait_for_url("**/review/sign/reviewed")
    press(lead, "Sign as reviewed")
    lead.wait_for_url(f"**/incidents/{incident_id}/review*")
    shot(lead, "review-desk")

    manager = somebody("Cy Diaz", "engineering_manager", PHONE)
    manager.goto(f"{console}/incidents/{incident_id}/review")
    shot(manager, "review-phone")
    press(manager, "Sign as approved")
    manager.wait_for_url("**/review/sign/approved")
    press(manager, "Sign as approved")
    manager.wait_for_url(f"**/incidents/{incident_id}/review*")
    with world.transaction() as conn:
        text = reviews.current(conn, incident_id)
    assert "by segment before it serves everybody" in text
    assert "Compare releases by segment" in text
    assert all(name in text for name in ("Bo Chen", "Cy Diaz")), "both have signed"
    assert file_world.state["serving"] == "v1.5.0"
