"""Acting on an incident in Chromium: by thumb, without losing a word, for a screen reader, in light and dark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.gateway import operations
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.closing import Closing
from mlrunbook.response.world import World
from mlrunbook.store import plans, records
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.gateway.conftest import Keys
from tests.response.carrying import carry
from tests.response.people import report
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OPEN = (
    "acknowledge",
    "approve?plan={plan}",
    "reject",
    "contain",
    "contain?order=stop_serving",
    "contain?order=route",
    "reverse",
    "resolve",
    "close",
    "handover",
    "severity",
    "clocks/ai_act",
    "rehearsal?order=stop_serving",
)
PAGES = [
    *("/incidents/{open}/" + path for path in OPEN),
    *("/incidents/{over}/review" + path for path in ("", "/edit", "/sign/reviewed", "/items/new", "/items/1")),
    "/report",
]
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
def ids(world: World) -> dict[str, str]:
    """`open`: contained, and its plan waits. `over`: closed, with its review."""
    ann = Identity("", "Ann Lee", "ml_team_lead", frozenset(Scope))
    said = operations.Reported("pump_failure", IncidentType.INFRASTRUCTURE, Severity.HIGH, "it is down", unknown_model=True)
    over = operations.report(world, ann, said).incident.id
    operations.close(world, over, ann, Closing("a test"))
    made = report(world)
    carry(world, made, "run-1")
    with world.transaction() as conn:
        plan = plans.current(conn, made, PlanKind.RESOLUTION)
    assert plan is not None
    return {"open": made, "over": over, "plan": plan.digest}


@pytest.fixture(scope="module")
def chromium(ids: dict[str, str]) -> Iterator[Browser]:
    """Once the incidents are there: while Playwright runs, no other event loop does in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    app = create_app(world)
    with served(app) as address:
        yield address
        app.state.live.stop()


@pytest.fixture(scope="module")
def token(keys: Keys) -> str:
    return keys.token("Ann Lee", role="ml_team_lead")


def opened(chromium: Browser, **how: Any) -> tuple[Page, list[str]]:
    """A page, and what the browser complains of."""
    page = chromium.new_context(viewport=how.pop("viewport", PHONE), **how).new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    return page, said


def sign_in(page: Page, token: str) -> None:
    page.fill("[name=token]", token)
    page.press("[name=token]", "Enter")
    page.wait_for_url(lambda there: "/login" not in there)


def reached(url: str, ids: dict[str, str], path: str) -> str:
    return url + path.format(**ids)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_form_is_usable_by_thumb_and_for_a_screen_reader(
    chromium: Browser, url: str, ids: dict[str, str], token: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, said = opened(chromium, viewport=PHONE, color_scheme=scheme)
    page.goto(f"{url}/login")
    sign_in(page, token)
    said.clear()
    wrong = {}
    for path in PAGES:
        page.goto(reached(url, ids, path))
        page.wait_for_load_state("networkidle")
        found = Axe().run(page, options={"runOnly": TAGS}).response["violations"]
        faults = [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            faults.append("scrolls sideways")
        if page.locator("h1").count() != 1:
            faults.append("not one h1")
        for button in page.locator("main button, main a.button").all():
            box = button.bounding_box()
            if box and (box["height"] < 44 or box["x"] + box["width"] > PHONE["width"]):
                faults.append(f"hard to tap: {button.inner_text()}")
        if faults:
            wrong[path] = faults
    assert wrong == {}
    assert [one for one in said if "Content Security Policy" in one or "EvalError" in one] == []


def test_the_main_button_is_as_wide_as_the_phone_and_comes_last(chromium: Browser, url: str, ids: dict[str, str], token: str) -> None:
    page, _ = opened(chromium)
    page.goto(reached(url, ids, "/incidents/{open}/approve?plan={plan}"))
    sign_in(page, token)
    button = page.locator("button.primary").bounding_box()
    field = page.locator("#reason").bounding_box()
    assert button is not None
    assert field is not None
    assert button["width"] >= PHONE["width"] - 40
    assert button["y"] > field["y"]


def test_a_session_that_ends_in_the_middle_takes_no_words_with_it(
    chromium: Browser, url: str, world: World, ids: dict[str, str], token: str
) -> None:
    page, said = opened(chromium)
    page.goto(reached(url, ids, "/incidents/{open}/resolve"))
    sign_in(page, token)
    page.fill("[name=what]", "a new pod\nand a restart")
    page.fill("[name=root_cause]", "a leak")
    with transaction(world.engine) as conn:
        conn.execute(text("DELETE FROM console_sessions"))
    page.click("button.primary")
    page.wait_for_url("**/login?next=*")
    with world.transaction() as conn:
        assert records.recall(conn, ids["open"], HumanResolution) is None
    sign_in(page, token)
    assert page.url == reached(url, ids, "/incidents/{open}/resolve")
    assert page.input_value("[name=what]") == "a new pod\nand a restart"
    assert page.input_value("[name=root_cause]") == "a leak"
    page.click("button.primary")
    page.wait_for_url(f"**/incidents/{ids['open']}?did=resolve")
    with world.transaction() as conn:
        kept = records.recall(conn, ids["open"], HumanResolution)
    assert kept is not None
    assert (kept.what, kept.by) == ("a new pod\nand a restart", "Ann Lee")
    page.goto(reached(url, ids, "/incidents/{open}/resolve"))
    assert page.input_value("[name=what]") == "", "what was accepted does not come back"
    assert [one for one in said if "Content Security Policy" in one] == []


def test_a_dry_run_is_shown_without_changing_anything(chromium: Browser, url: str, world: World, ids: dict[str, str], token: str) -> None:
    page, _ = opened(chromium, viewport=DESK)
    page.goto(reached(url, ids, "/incidents/{open}/contain?order=stop_serving"))
    sign_in(page, token)
    page.wait_for_selector("#rehearsal li")
    page.goto(reached(url, ids, "/incidents/{open}/contain?order=route"))
    page.fill("[name=version]", "v99")
    page.press("[name=version]", "Tab")
    page.wait_for_selector("#rehearsal .bad")
    assert "v99" in page.inner_text("#rehearsal")


def test_without_script_a_plan_is_approved_all_the_same(chromium: Browser, url: str, world: World, ids: dict[str, str], token: str) -> None:
    page, _ = opened(chromium, java_script_enabled=False)
    page.goto(reached(url, ids, "/incidents/{open}/approve?plan={plan}"))
    sign_in(page, token)
    page.fill("[name=reason]", "the release is bad")
    page.click("button.primary")
    page.wait_for_url(f"**/incidents/{ids['open']}?did=approve")
    with world.transaction() as conn:
        said = [(row.approver, row.decision, row.door) for row in plans.approvals_of(conn, ids["open"]) if row.door == "console"]
    assert said == [("Ann Lee", "approved", "console")]
