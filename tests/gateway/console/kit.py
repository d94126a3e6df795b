"""Things that happen, for pages to show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient

from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.domain.audits.period import Kind, Period
from mlrunbook.domain.audits.section import Audit, Section, Verdict
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.review.review import IN_THE_MEETING, ActionItem, Drafted
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.communication.notifications import Page, page
from mlrunbook.response.review import action_items, reminders
from mlrunbook.response.world import World
from mlrunbook.store import audits, incidents, outbox, plans, records
from mlrunbook.store.audits import Filed

HOSTILE = "\x1b[31mred\x1b[0m\x07 {{ 31337*31 }} <script>alert(1)</script><img src=x onerror=alert(2)> \"'> \u202egpj.exe"


def opened(world: World, model: str, *, description: str = "F1 fell", severity: Severity = Severity.HIGH) -> str:
    type_ = IncidentType.PERFORMANCE_DEGRADATION
    report = Report(model, type_, world.policy.family_of(type_), severity, description, "alertmanager", description)
    with world.transaction() as conn:
        return incidents.open_or_join(conn, report, now=world.now())[0].id


def ended(world: World, incident_id: str, *, why: str = "fixed") -> None:
    with world.transaction() as conn:
        for status in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, status, why=why, actor="Ann Lee", now=world.now())


def planned(world: World, incident_id: str, *, kind: PlanKind = PlanKind.RESOLUTION, to: str = "v1.4.0") -> Plan:
    with world.transaction() as conn:
        model = incidents.get(conn, incident_id).model
        plan = Plan(incident_id, kind, model, (RollBack(model, to),), reasons=("v1.5.0 is worse",))
        plans.propose(conn, plan, now=world.now())
    return plan


def paged(world: World, incident_id: str, role: Role, why: str = "high: answer by 12:00") -> None:
    """The page has gone out."""
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        page(conn, world.policy, incident, Page(role, why, str(role)), now=world.now())
        for item in outbox.claim(conn, now=world.now(), limit=100):
            outbox.delivered(conn, item, now=world.now())


def reviewed_draft(world: World, incident_id: str) -> None:
    """The incident is over and its review is drafted, with one answer missing."""
    ended(world, incident_id)
    with world.transaction() as conn:
        incidents.set_review_due(conn, incident_id, world.now() + timedelta(hours=48))
        text = f"# Post-Incident Review: {incident_id}\n\n{IN_THE_MEETING}\n"
        records.keep(conn, incident_id, Drafted(text), now=world.now())
        reminders.schedule(conn, world.policy, incidents.get(conn, incident_id), now=world.now())


def todo(world: World, incident_id: str, action: str = "Alert on stale rows", owner: str = "ml_team_lead", *, days: int = 7) -> int:
    due = (world.now() + timedelta(days=days)).date()
    with world.transaction() as conn:
        return action_items.add(conn, world.policy, incident_id, ActionItem(action, owner, due), by="Ann Lee", now=world.now()).id


def filed(world: World, model: str, sentence: str = "F1 0.80, as before", *, week: int = 9, verdict: Verdict = Verdict.PASS) -> Filed:
    since = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(weeks=week)
    period = Period(Kind.WEEKLY, f"2026-W{week:02d}", since, since + timedelta(days=7), f"2026-W{week:02d}")
    audit = Audit(model, period, since + timedelta(days=7), (Section("f1", "F1", verdict, sentence),))
    with world.transaction() as conn:
        return audits.file(conn, audit, b"<!DOCTYPE html><title>the report</title>")


def quarantined(client: TestClient, world: World, *, secret: str = "hunter2secret") -> int:
    """A message that names no model."""
    body = samples.sample("generic", "", now=world.now(), firing=True, summary=f"{HOSTILE} password={secret}")
    answer = client.post("/webhooks/generic", json=body | {"model": ""})
    assert answer.json()["quarantined"] == 1, answer.text
    return int(client.get("/api/v1/quarantine").json()["quarantined"][0]["number"])
