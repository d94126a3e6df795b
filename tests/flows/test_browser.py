"""A person, a browser, the Prefect UI: report, look, approve."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mlrunbook.base.processes import MARK, marked
from mlrunbook.domain.communication import console_links
from mlrunbook.domain.incident import Status
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.response.plan_state import PREFECT_FORM
from mlrunbook.store import plans
from mlrunbook.store.plans import StoredApproval
from tests.flows.live import Live, wait_for
from tests.flows.prefect_ui import IS_MISSING, WHY_MISSING, log_in, open_form, opened_page, shot

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.prefect, pytest.mark.stack, pytest.mark.browser, pytest.mark.skipif(IS_MISSING, reason=WHY_MISSING)]


@pytest.fixture
def page() -> Iterator[Page]:
    with opened_page() as page:
        yield page


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


def approve_in_form(page: Page, live: Live, incident_id: str) -> StoredApproval:
    """Fill it in and send it off, until the approval is stored: an alert that comes meanwhile has the run look once more, and what was
    typed into the form of before goes nowhere."""
    from playwright.sync_api import Error

    failed: list[str] = []

    def stored() -> list[StoredApproval]:
        with live.store() as conn:
            return [row for row in plans.approvals_of(conn, incident_id) if row.door == PREFECT_FORM]

    for _ in range(5):
        run = live.wait_until_suspended(incident_id)
        try:
            form = open_form(page, live, run, "roll predictive_maintenance back to v1.5.0")
            shot(page, "3-form")
            link = form.locator(f"a[href*='{console_links.of_incident(incident_id)}/approve']")
            assert "Your answer in this form counts" in form.inner_text()
            assert link.count() == 1
            form.get_by_label("Your name").fill("Team Lead")
            form.get_by_label("Comment").fill("the findings name the release")
            form.get_by_text("Select", exact=True).click()
            page.get_by_role("option", name="approved").click()
            shot(page, "4-form-filled")
            form.get_by_role("button", name="Resume").click()
            return wait_for("the approval is stored", stored, timeout_s=60)[0]
        except (Error, AssertionError) as error:
            failed.append(str(error))
    raise AssertionError(f"no approval: {failed}; {[e.text for e in live.entries(incident_id)]}")


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
