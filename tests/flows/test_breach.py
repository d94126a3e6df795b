"""A leak, through the real gateway, Prefect and model server: preserved, isolated, told, lifted by the named person alone, closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import Status
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.store import journal, outbox
from tests.flows.live import Live
from tests.flows.prefect_ui import IS_MISSING, WHY_MISSING, log_in, open_form, opened_page, shot

pytestmark = [pytest.mark.prefect, pytest.mark.stack]


@dataclass(frozen=True)
class Leak:
    """What was seen while it was isolated and when it was over."""

    id: str
    refused: httpx.Response
    engineers_word: httpx.Response
    isolated: dict[str, Any]
    detail: dict[str, Any]
    verified: dict[str, Any]
    told: list[dict[str, Any]]
    changes: list[tuple[str, str]]
    form: Form | None


@dataclass(frozen=True)
class Form:
    """What Prefect's form offers where policy does not count it, and where its link leads."""

    offers: list[str]
    fields: list[str]
    link: str


def _form(live: Live, run: str) -> Form | None:
    """As a person sees it. None: no browser here."""
    if IS_MISSING:
        return None
    with opened_page() as page:
        log_in(page, live)
        form = open_form(page, live, run, "This form decides nothing")
        shot(page, "breach-form")
        fields = [label for label in form.locator("label").all_inner_texts() if label.strip()]
        link = form.get_by_role("link").first.get_attribute("href") or ""
        form.get_by_text("Select", exact=True).click()
        page.get_by_role("option").first.wait_for()
        shot(page, "breach-form-offers")
        offers = [o.strip() for o in page.get_by_role("option").all_inner_texts()]
    return Form(offers, fields, link)


def _waits_for_people(live: Live, incident_id: str) -> bool:
    """For their word, or about a plan: what a release of a minute ago looks like to the diagnosis is not what this is about."""
    if live.said(incident_id, "Waiting for a human"):
        return True
    return live.plan(incident_id) is not None and live.lease(incident_id).state == "waiting"


@pytest.fixture(scope="module")
def leak(live: Live) -> Leak:
    incident_id = live.report(severity="high", type="security", subtype="data_leakage", description="Readings were sent to a stranger")
    run = live.wait_until_suspended(incident_id)
    plan = live.wait(incident_id, "the officer is asked", lambda: live.plan(incident_id, PlanKind.ISOLATION))
    isolated = live.loaded()
    form = _form(live, run)
    refused = live.server.post(f"/v1/models/{MODEL}:predict", json={"instances": []})
    body = {"decision": "approved", "planDigest": plan.digest, "reason": "the receiver has deleted them"}
    path = f"/api/v1/incidents/{incident_id}/approvals"
    engineers_word = live.gateway.post(path, json=body, headers=live._as("approver"))
    live.gateway.post(path, json=body, headers=live._as("security-officer")).raise_for_status()
    with live.traffic():
        live.wait(incident_id, "the isolation is lifted", lambda: not live.loaded().get("isolated"))
        live.wait(incident_id, "people are asked how to go on", lambda: _waits_for_people(live, incident_id))
        said = {"what": "the export job is removed", "rootCause": "an export without an owner"}
        live.gateway.post(f"/api/v1/incidents/{incident_id}/resolve", json=said, headers=live._as("operator")).raise_for_status()
        live.wait_until_ended(incident_id)

    def read(part: str = "") -> dict[str, Any]:
        return dict(live.gateway.get(f"/api/v1/incidents/{incident_id}{part}", headers=live._as("operator")).raise_for_status().json())

    with live.store() as conn:
        told = [r for r in outbox.of_incident(conn, incident_id, "page", "message") if r["delivered_at"]]
        changes = [(r.kind, r.state) for r in journal.of_incident(conn, incident_id)]
    return Leak(incident_id, refused, engineers_word, isolated, read(), read("/verify"), told, changes, form)


@pytest.mark.browser
@pytest.mark.skipif(IS_MISSING, reason=WHY_MISSING)
def test_prefects_form_takes_no_decision_where_policy_does_not_count_it_and_leads_to_the_console(leak: Leak) -> None:
    assert leak.form is not None
    assert leak.form.offers == ["decided_elsewhere"]
    assert leak.form.fields == ["Look again"]
    assert f"/incidents/{leak.id}/approve?plan=" in leak.form.link


def test_the_isolated_server_answers_no_caller_and_keeps_running(leak: Leak) -> None:
    assert leak.refused.status_code == 503
    assert leak.isolated["isolated"] is True


def test_it_is_isolated_once_by_the_named_rule_and_lifted_once_by_the_officer_alone(leak: Leak) -> None:
    assert leak.changes == [("isolate", "done"), ("isolate", "done")]
    assert leak.engineers_word.status_code == 409
    by = [(a["door"], a["role"], a["decision"]) for a in leak.detail["approvals"]]
    assert by == [("policy_rule", None, "approved"), ("rest", "security_officer", "approved")]


def test_what_was_preserved_before_holds(leak: Leak) -> None:
    assert leak.verified["intact"]
    assert leak.verified["evidenceFaults"] == []
    assert {"manifest.json", "predictions.json"} <= {file["name"] for file in leak.detail["evidence"]}


def test_security_and_the_compliance_officer_were_paged_and_told_and_the_clocks_run(leak: Leak) -> None:
    channels = {(row["kind"], row["payload"]["channel"]) for row in leak.told}
    assert {("page", "security"), ("page", "compliance")} <= channels
    assert {clock["clock"] for clock in leak.detail["clocks"]} == {"gdpr", "ai_act"}
    assert all(clock["secondsLeft"] > 0 for clock in leak.detail["clocks"])


def test_it_ended_closed_after_the_fix_was_measured(leak: Leak) -> None:
    assert leak.detail["status"] == Status.CLOSED
    assert leak.detail["recovery"]["recovered"] is True
