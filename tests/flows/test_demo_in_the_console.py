"""`mlrunbook demo --approve console`, without a stack of its own: the person follows the link that the demo prints, and clicks."""

from __future__ import annotations

import io
import re
import threading
import time

import httpx
import pytest
from rich.console import Console

from mlrunbook.domain.incident import Status
from mlrunbook.drills.demo import Demo, Options, play
from mlrunbook.drills.simulator.faults import fault
from mlrunbook.store import plans
from tests.flows.live import Live, wait_for

pytestmark = [pytest.mark.prefect, pytest.mark.stack]

LINK = re.compile(r"http://127\.0\.0\.1:\d+/login/link/\S+")


def links(said: io.StringIO) -> list[str]:
    return LINK.findall(said.getvalue())


def signed_in(link: str) -> tuple[httpx.Client, httpx.Response]:
    """A browser that opened the link and pressed its button, and the page that it then shows."""
    browser = httpx.Client(follow_redirects=True, timeout=120, trust_env=False)
    assert browser.get(link).status_code == 200
    return browser, browser.post(link).raise_for_status()


def field(page: httpx.Response, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', page.text)
    assert found, f"no field {name} on {page.url}"
    return found[1]


def test_the_link_that_the_demo_prints_signs_in_once_and_leads_to_the_plan_whose_approval_closes_the_incident(live: Live) -> None:
    known = {i.id for i in live.incidents()}
    said = io.StringIO()
    options = Options(approve="console")
    demo = Demo(live.stack, fault("bad-release"), live.simulator, options, Console(file=said, width=200), time.monotonic())
    playing = threading.Thread(target=play, args=([demo],), daemon=True)
    playing.start()

    front, decision = wait_for("the demo asks for a decision", lambda: links(said) if len(links(said)) > 1 else None)[:2]
    browser, page = signed_in(front)
    assert page.url.path == "/incidents"
    browser, page = signed_in(decision)
    assert page.url.path.endswith("/approve")
    assert httpx.post(decision, trust_env=False).status_code == 401  # the link is used up
    form = {"csrf": field(page, "csrf"), "plan_digest": field(page, "plan_digest"), "reason": "the release is the only change of the day"}
    browser.post(str(page.url), data=form).raise_for_status()

    playing.join(300)
    assert not playing.is_alive(), said.getvalue()
    (incident,) = (i for i in live.incidents() if i.id not in known and i.id in str(page.url))
    assert incident.status is Status.CLOSED
    with live.store() as conn:
        row = next(a for a in plans.approvals_of(conn, incident.id) if a.plan_digest == form["plan_digest"])
    assert (row.door, row.verified, row.decision) == ("console", True, "approved")
