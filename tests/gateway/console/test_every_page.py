"""Every page of the console in Chromium, full and empty: on a phone and on a desk, in light and dark, by thumb, by keyboard and for a
screen reader. `SHOTS=folder` keeps a picture of each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.roles import Role
from mlrunbook.gateway import operations
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.closing import Closing
from mlrunbook.gateway.console.route import ConsoleRoute
from mlrunbook.response.world import World
from mlrunbook.store import incidents, plans
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.gateway.conftest import Keys
from tests.gateway.console.kit import HOSTILE, filed, opened, paged, planned, quarantined, todo
from tests.gateway.test_authorization import every
from tests.response.carrying import carry
from tests.response.people import deliver, report
from tests.served import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
WAIT_MS = 240_000
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LOOKS: tuple[tuple[Any, Any], ...] = ((PHONE, "light"), (DESK, "dark"), (PHONE, "dark"), (DESK, "light"))
EVERYTHING = {"runOnly": {"type": "tag", "values": TAGS}}
TAPPED = "main button, main a.button, main a.tap, main summary, main .choice, main .option, header a, header summary, header button"
EMPTY = ("/incidents", "/models", "/audits", "/actions", "/actions?show=overdue", "/actions?show=all", "/quarantine", "/silenced")
ACTS = (
    *("acknowledge", "approve", "approve?plan={plan}", "approve?plan=gone", "reject", "contain", "contain?order=stop_serving"),
    *("contain?order=route", "contain?order=isolate", "reverse", "resolve", "close", "handover", "severity", "go-on"),
    *("clocks/ai_act", "clocks/gdpr", "rehearsal?order=stop_serving", "messages", "history", "charts", "timeline"),
)
REVIEW = ("", "/edit", "/sign/reviewed", "/sign/approved", "/items/new", "/items/{item}")
FULL = (
    *("/incidents", "/incidents?q=hostile&status=all&severity=high", "/incidents?q=nothing+like+it"),
    *("/incidents/{open}", "/incidents/{contained}", "/incidents/{over}", "/incidents/{false}", "/incidents/{hostile}"),
    *("/incidents/{contained}/" + act for act in ACTS),
    *("/incidents/{over}/review" + part for part in REVIEW),
    *("/report", "/models", "/models/{model}", "/audits", "/audits/{audit}", "/actions", "/actions?show=all"),
    *("/actions/{item}/start", "/actions/{item}/done", "/actions/{item}/drop", "/quarantine", "/quarantine/{kept}"),
    *("/quarantine/{kept}/replay", "/quarantine/{kept}/discard", "/silenced", "/doctor", "/policy"),
    *("/nothing/here", "/incidents/incident_0", "/actions?show=nothing", "/login?next=/report"),
)
THOROUGH = ("/incidents", "/incidents/{contained}", "/incidents/{contained}/approve?plan={plan}", "/incidents/{over}/review")  # in all four
NO_PAGES = {  # parts of a page, files, what redirects, and pages that are seen by who is not signed in
    *("/waiting", "/incidents/{id}/live", "/incidents/{id}/events", "/incidents/{id}/evidence.zip", "/incidents/{id}/evidence/{name:path}"),
    *("/audits/{audit}/report", "/login/oidc", "/login/oidc/callback", "/login/link/{secret}"),
}
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
def url(world: World) -> Iterator[str]:
    app = create_app(world)
    with served(app) as address:
        yield address
        app.state.live.stop()


@pytest.fixture(scope="module")
def token(keys: Keys) -> str:
    return keys.token("Ann Lee", role="ml_team_lead")


@pytest.fixture(scope="module")
def chromium(url: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def emptied(chromium: Browser, url: str, token: str) -> dict[str, list[str]]:
    """What is wrong with the pages before anything has happened."""
    visit = Visit(chromium, url, token)
    return {f"{path} (empty)": faults for path in EMPTY if (faults := visit.faults(path, f"empty{path}"))}


@pytest.fixture(scope="module")
def ids(emptied: dict[str, list[str]], world: World, token: str) -> dict[str, str]:
    """Of what there is to see. In a thread of its own: while Playwright runs, no other event loop does in this one."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(happened, world, token).result()


def happened(world: World, token: str) -> dict[str, str]:
    from tests.gateway.console.conftest import TestClient

    ann = Identity("", "Ann Lee", "ml_team_lead", frozenset(Scope))
    broken = operations.Reported("pump_failure", IncidentType.INFRASTRUCTURE, Severity.HIGH, "it is down", unknown_model=True)
    over = operations.report(world, ann, broken).incident.id
    operations.close(world, over, ann, Closing("a test"))
    mistaken = opened(world, "vibration", description="a sensor was being cleaned")
    operations.close(world, mistaken, ann, Closing("the sensor was being cleaned", false_alarm=True))
    hostile = opened(world, f"pump_{'long_name_' * 8}", description=HOSTILE)
    planned(world, hostile)
    paged(world, hostile, Role.ML_TEAM_LEAD)
    fresh = opened(world, "bearing_wear", severity=Severity.CRITICAL)
    paged(world, fresh, Role.ML_TEAM_LEAD)
    contained = report(world)
    carry(world, contained, "run-1")
    deliver(world)
    item, audit = todo(world, over, HOSTILE, days=-3), filed(world, "pump_failure", HOSTILE)
    with TestClient(create_app(world), headers={"Authorization": f"Bearer {token}"}) as client:
        kept = quarantined(client, world)
    with world.transaction() as conn:
        plan = plans.current(conn, contained, PlanKind.RESOLUTION)
        assert incidents.get(conn, mistaken).status is Status.FALSE_ALARM
    assert plan is not None
    names = {"open": fresh, "contained": contained, "over": over, "false": mistaken, "hostile": hostile}
    return {**names, "plan": plan.digest, "item": str(item), "audit": str(audit.id), "kept": str(kept), "model": "pump_failure"}


@dataclass
class Visit:
    """One person's look at pages. `said`: what the browser complains of."""

    chromium: Browser
    url: str
    token: str = ""
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from axe_playwright_python.base import AXE_SCRIPT

        context = self.chromium.new_context(viewport=PHONE)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        if self.token:
            context.request.post(f"{self.url}/login/token", form={"token": self.token})
        context.add_init_script(AXE_SCRIPT)
        self.page: Page = context.new_page()
        self.page.on("console", lambda one: self.said.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def faults(self, path: str, name: str = "", *, thorough: bool = False) -> list[str]:
        self.said.clear()
        self.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        self.page.goto(self.url + path)
        self.page.wait_for_selector(".htmx-request:not(#entries)", state="detached")  # the stream alone never ends
        found = [] if self.page.locator("h1").count() == 1 else ["not one h1"]
        self._keep_picture(f"first-{name or path}")
        self.page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
        for size, scheme in LOOKS[: 4 if thorough else 2]:
            self.page.set_viewport_size(size)
            self.page.emulate_media(color_scheme=scheme)
            self._keep_picture(f"{name or path}-{size['width']}-{scheme}")
            found += [f"{size['width']} {scheme}: {one}" for one in (*self._layout(size), *self._axe())]
        return found + [one for one in self.said if "the server responded with a status of 4" not in one]

    def _keep_picture(self, name: str) -> None:
        if folder := os.environ.get("SHOTS"):
            self.page.screenshot(path=f"{folder}/{re.sub('[^a-z0-9_-]+', '_', name)}.png", full_page=True)

    def _axe(self) -> list[str]:
        wrong = self.page.evaluate("rules => axe.run(document, rules).then(found => found.violations)", EVERYTHING)
        return [f"{one['id']}: {node['html'][:160]}" for one in wrong for node in one["nodes"][:3]]

    def _layout(self, size: dict[str, int]) -> Iterator[str]:
        if self.page.evaluate("document.documentElement.scrollWidth") > size["width"]:
            yield "scrolls sideways"
        boxes = self.page.locator(TAPPED).evaluate_all("""all => all.filter(one => one.checkVisibility()).map(one => {
            const at = one.getBoundingClientRect(); return [one.textContent.trim().slice(0, 60), at.height, at.right]; })""")
        for words, height, right in boxes:
            if height < 44 or right > size["width"] + 1:
                yield f"hard to tap: {words} ({height:.0f} px high, ends at {right:.0f})"


def test_every_page_can_be_read_and_tapped_by_everybody(
    emptied: dict[str, list[str]], ids: dict[str, str], chromium: Browser, url: str, token: str
) -> None:
    visit = Visit(chromium, url, token)
    found = {path: visit.faults(path.format(**ids), path, thorough=path in THOROUGH) for path in FULL}
    nobody = Visit(chromium, url)
    found |= {f"{path} (nobody)": nobody.faults(path, f"nobody{path}") for path in ("/login", "/login/link/used", "/login?next=/report")}
    assert emptied | {path: faults for path, faults in found.items() if faults} == {}


def test_no_page_is_left_out(url: str, ids: dict[str, str], world: World) -> None:
    seen = [path.format(**ids).partition("?")[0] for path in FULL]
    routes = [route for _, _, route in every(create_app(world)) if isinstance(route, ConsoleRoute) and "GET" in (route.methods or ())]
    assert {one.path for one in routes if not any(one.path_regex.match(path) for path in seen)} == NO_PAGES


def test_the_menu_works_by_keyboard_and_the_focus_can_be_seen(chromium: Browser, url: str, token: str) -> None:
    page = Visit(chromium, url, token).page
    page.goto(f"{url}/policy")
    words = "document.activeElement.textContent.trim()"
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", page.evaluate(words)
        if page.evaluate(words) == "More":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate(words) == "Report an incident"
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/report")
