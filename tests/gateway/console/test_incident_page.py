"""The page of one incident, read from the store alone: hostile text, long timelines, evidence, charts; nothing behind it answers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Limits, Scope
from mlrunbook.domain.actions import Order
from mlrunbook.domain.communication.messages import Rendered
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console import incident_reading
from mlrunbook.response.communication.notifications import To, send_message
from mlrunbook.response.containment import emergency
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, timeline
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.gateway.conftest import Keys
from tests.response.carrying import carry
from tests.response.people import deliver, report

HOSTILE = "<script>alert(1)</script>{{ 31337*31 }}\"'><img src=x onerror=alert(2)>\x1b[31m\u202e# head\n@here"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(engine: Engine, tmp_path: Path, clock: Clock) -> World:
    empty_store(engine)
    files = FileWorld(tmp_path / "world.json", clock)
    return world_of(engine, files, clock, notifier=LedgerNotifier(), orchestrator=LedgerOrchestrator())


@pytest.fixture
def bad_release(world: World, clock: Clock) -> str:
    """An alert, contained and diagnosed: a plan waits for the lead."""
    incident_id = report(world)
    carry(world, incident_id, "0b5c1d3e-98a1-4c71-b1d2-3a2ce35ea001")
    clock.advance(minutes=2)
    deliver(world)
    return incident_id


class Gone:
    """A port that nobody answers at."""

    def __getattr__(self, name: str) -> Any:
        def nobody(*_: object, **__: object) -> None:
            raise Transient("nothing answers")

        return nobody


def visit(world: World, token: str) -> TestClient:
    """A browser that is signed in; behind the gateway nothing answers."""
    alone = replace(world, platform=cast(Any, Gone()), runtime=cast(Any, Gone()), known_models=cast(Any, None))
    app = create_app(alone, prefect_ui_url="http://127.0.0.1:4200")
    browser = TestClient(app, raise_server_exceptions=False)
    assert browser.post("/login/token", data={"token": token}, follow_redirects=False).status_code == 303
    return browser


@pytest.fixture
def lead(world: World, keys: Keys) -> TestClient:
    return visit(world, keys.token("Ann Lee", role="ml_team_lead"))


def is_safe(html: str) -> None:
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "971447" not in html, "no template is rendered"
    assert not re.search(r"<[^>]+\s(?:style|on\w+)=", html), "nothing that the page's policy would refuse"


def test_everything_is_on_it_while_platform_and_runtime_are_away(lead: TestClient, bad_release: str) -> None:
    page = lead.get(f"/incidents/{bad_release}")
    assert page.status_code == 200
    for words in ("v2.0.0", "roll predictive_maintenance back to v1.5.0", "require human approval", "metrics.json", "ML Team Lead"):
        assert words in page.text
    for act in ("acknowledge", "approve?plan=", "reject?plan=", "contain", "reverse", "resolve", "handover", "severity"):
        assert re.search(rf'(?:href|action)="/incidents/{bad_release}/{re.escape(act)}', page.text), act
    assert "/runs/flow-run/0b5c1d3e-98a1-4c71-b1d2-3a2ce35ea001" in page.text
    is_safe(page.text)


def test_who_may_only_read_sees_all_of_it_and_no_button(world: World, keys: Keys, bad_release: str) -> None:
    page = visit(world, keys.token("Cas Vu", Scope.READ)).get(f"/incidents/{bad_release}").text
    assert not re.search(rf'class="button[^"]*"[^>]*href="/incidents/{bad_release}/(?:approve|reject|acknowledge|contain|close)', page)
    assert "sign in as somebody who has" in page


def test_hostile_text_stays_text_in_every_field(world: World, keys: Keys, clock: Clock) -> None:
    incident_id = report(world, Severity.HIGH, by_alert=False, description=HOSTILE)
    now = world.now()
    by = emergency.Requester("Ann Lee", "ml_team_lead", "rest", "ann lee")
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        emergency.request(conn, world.policy, incident, emergency.Requested(Order.ROUTE, by, HOSTILE, "v1.5.0"), now=now)
        timeline.append(conn, incident_id, "note", HOSTILE.replace("\x00", ""), actor=HOSTILE, at=now)
        evidence.preserve(conn, incident_id, f"runtime/{HOSTILE}", HOSTILE.encode(), "text/html", now=now)
        send_message(conn, world.policy, incident, To("incidents", HOSTILE), Rendered(HOSTILE, HOSTILE), key="x", now=now)
    browser = visit(world, keys.token("Ann Lee", role="ml_team_lead"))
    for path in ("", "/live", "/timeline", "/charts", "/messages", "/history"):
        answer = browser.get(f"/incidents/{incident_id}{path}")
        assert answer.status_code == 200, (path, answer.text[:300])
        is_safe(answer.text)
    assert "&lt;script&gt;alert(1)" in browser.get(f"/incidents/{incident_id}").text


def test_a_breach_shows_the_deadlines_of_the_law(world: World, keys: Keys) -> None:
    incident_id = report(world, Severity.CRITICAL, IncidentType.SECURITY, by_alert=False, subtype=Subtype.DATA_LEAKAGE)
    carry(world, incident_id, "run-1")
    assert "GDPR Art. 33(1)" in visit(world, keys.token("Ann Lee")).get(f"/incidents/{incident_id}").text


def test_a_long_timeline_shows_its_newest_entries_and_older_ones_page_by_page(world: World, lead: TestClient) -> None:
    incident_id = report(world)
    with world.transaction() as conn:
        for n in range(2 * incident_reading.ENTRIES + 20):
            timeline.append(conn, incident_id, "note", f"entry {n} of many", actor="the lead", at=world.now())
        length = timeline.length(conn, incident_id)
    html = lead.get(f"/incidents/{incident_id}").text
    seen, pages = numbers(html), 1
    while found := re.search(r'hx-get="(/incidents/[^"]+/timeline\?before=\d+)"', html):
        html = lead.get(found[1], headers={"HX-Request": "true"}).text
        assert "<h1" not in html, "a piece, not a page"
        seen, pages = seen + numbers(html), pages + 1
    assert seen == list(range(length, 0, -1))
    assert pages == 3
    assert "<h1" in lead.get(f"/incidents/{incident_id}/timeline?before=100").text, "a page where no script runs"


def numbers(html: str) -> list[int]:
    return [int(n) for n in re.findall(r'id="entry-(\d+)"', html)]


def test_evidence_is_saved_and_never_shown_as_a_page_of_ours(world: World, lead: TestClient, bad_release: str) -> None:
    with world.transaction() as conn:
        evidence.preserve(conn, bad_release, "runtime/pod é.html", b"<script>alert(1)</script>", "text/html", now=world.now())
    saved = lead.get(f"/incidents/{bad_release}/evidence/runtime/pod é.html")
    assert saved.content == b"<script>alert(1)</script>"
    assert saved.headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in saved.headers["content-security-policy"]
    assert lead.get(f"/incidents/{bad_release}/evidence/nothing").status_code == 404


def test_charts_come_by_themselves_and_say_so_when_the_platform_is_away(lead: TestClient, bad_release: str) -> None:
    charts = lead.get(f"/incidents/{bad_release}/charts", headers={"HX-Request": "true"})
    assert charts.text.count("<svg") >= 3
    assert charts.text.count("<table") == charts.text.count("<svg"), "each with its values"
    away = lead.get(f"/incidents/{bad_release}/history")
    assert away.status_code == 200
    assert "does not answer" in away.text


def test_a_token_of_another_model_sees_nothing_of_it(world: World, bad_release: str) -> None:
    with transaction(world.engine) as conn:
        token = tokens.create(conn, name="Eli Moe", scopes=tuple(Scope), limits=Limits(models=("other_*",)))
    browser = visit(world, token)
    for path in ("", "/live", "/timeline", "/charts", "/history", "/messages", "/evidence/metrics.json"):
        answer = browser.get(f"/incidents/{bad_release}{path}")
        assert answer.status_code == 403, path
        assert "v2.0.0" not in answer.text
    assert "signed-out" in browser.get(f"/incidents/{bad_release}/events", headers={"HX-Request": "true"}).text


def test_an_incident_that_is_not_there_is_a_page_that_says_so(lead: TestClient) -> None:
    for path in ("", "/live", "/timeline", "/charts", "/history", "/events"):
        answer = lead.get(f"/incidents/incident_999999{path}")
        assert answer.status_code == 404, path
        assert "there is no incident" in answer.text
