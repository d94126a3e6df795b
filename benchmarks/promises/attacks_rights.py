"""Attacks on who may do what, and on what is kept: each says what is tried, and returns True if it worked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import DBAPIError

from benchmarks.promises.site import Site
from mlrunbook.adapters.prefect import deployments
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.actions import Path as RunbookPath
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.lifecycle.opening import open_or_join
from tests.fakes import MODEL
from tests.response import people
from tests.response.carrying import carry

TWO = Policy(approvals=Approvals(resolution=ApprovalRule(roles=(Role.ML_TEAM_LEAD,), count=2)))
ACKNOWLEDGEMENTS = {
    "opsgenie": lambda i: {"action": "Acknowledge", "alert": {"alertId": "zz", "alias": f"mlrunbook:{i}", "username": "VP Engineering"}},
    "pagerduty": lambda i: {
        "event": {
            "id": "e1",
            "event_type": "incident.acknowledged",
            "agent": {"summary": "VP Engineering"},
            "data": {"id": "P1", "incident_key": f"mlrunbook:{i}"},
        }
    },
}


def _say(site: Site, incident_id: str, key: dict[str, str], decision: str = "approved", **more: Any) -> Any:
    asked = people.plan(site.world, incident_id)
    assert asked is not None
    said = {"decision": decision, "planDigest": asked.digest} | more
    return site.http().post(f"/api/v1/incidents/{incident_id}/approvals", headers=key, json=said)


def _lead(site: Site, name: str) -> dict[str, str] | None:
    """None where a token of that name is not made."""
    try:
        return site.key(name, Scope.APPROVE, Scope.READ, role="ml_team_lead")
    except RunbookError:
        return None


SIGNING_IN = "/api/v1/console/links"  # whoever has a token signs in to the console as themselves, with what the token may


def a_route_answers_without_the_right_scope(site: Site) -> bool:
    """Every route that changes something, by a token of scope read; every approval by one of scope operate."""
    reader, operator = site.key("a reader", Scope.READ), site.key("an operator", Scope.OPERATE, role="ml_team_lead")
    incident_id = site.contained()
    for name, app in site.services().items():
        http = site.http(name)
        for path, ways in app.openapi()["paths"].items():
            if path == SIGNING_IN:
                continue
            url = path.replace("{id}", incident_id).replace("{modelId}", MODEL).replace("{model}", MODEL)
            for way in ways:
                if way != "get" and http.request(way.upper(), url, headers=reader, json={}).status_code not in (401, 403, 404, 429):
                    return True
    return _say(site, incident_id, operator).status_code not in (401, 403)


def an_alert_sender_ends_paging(site: Site) -> bool:
    """Whoever may post alerts posts an acknowledgement of Opsgenie or PagerDuty, under a vice president's name."""
    for form, body in ACKNOWLEDGEMENTS.items():
        incident_id = site.fresh().critical()
        site.http().post(f"/webhooks/{form}", headers=site.key("a sender", Scope.ALERTS), json=body(incident_id))
        if site.sql("SELECT 1 FROM incidents WHERE acknowledged_at IS NOT NULL"):
            return True
    return False


def an_alert_or_report_changes_a_healthy_model(site: Site) -> bool:
    """Alerts and reports of every type and severity about a model with which nothing is wrong, by a token that may only send them."""
    sends: list[Callable[[dict[str, str]], object]] = []
    for kind in IncidentType:
        body = {"severity": "critical", "type": str(kind), "description": "x", "reportedBy": "VP Engineering"}
        sends.append(lambda key, body=body: site.http().post(f"/api/v1/model-governance/{MODEL}/incidents", headers=key, json=body))
    for name in ("ModelProbed", "AllAssetsHighRisk", "CriticalFailureMissed", "DataLeak"):
        labels = {"alertname": name, "severity": "critical", "model": MODEL, "incident_type": "security"}
        alert = {"status": "firing", "labels": labels, "annotations": {"summary": "x"}, "startsAt": "2026-03-29T00:00:00Z"}
        sends.append(lambda key, a=alert: site.http().post("/webhooks/alertmanager", headers=key, json={"version": "4", "alerts": [a]}))
    for send in sends:
        site.fresh().file_world.set(serving="v1.5.0", previous="v1.4.0", deployed_at="2026-01-01T00:00:00+00:00", bad_versions={})
        send(site.key("a sender", Scope.ALERTS, Scope.REPORT))
        for (incident_id,) in site.sql("SELECT id FROM incidents"):
            with contextlib.suppress(RunbookError):
                carry(site.world, incident_id, "run-1")
        if site.file_world.applied:
            return True
    return False


def one_person_counts_as_two(site: Site) -> bool:
    """Two approvals are asked for: one person gives both, by tokens whose names only look different, or by another door."""
    for other in ("Ann", " ANN ", "Ann\u200b", "\u0410nn", "Ann", "A\u0301nn"):
        incident_id = site.fresh(TWO).contained()
        first, second = _lead(site, "Ann"), _lead(site, other)
        if second is None or other == "A\u0301nn":  # refused when it is made; Ánn is another name
            continue
        assert first is not None
        _say(site, incident_id, first)
        if _say(site, incident_id, second, door="cli").json().get("planApproved"):
            return True
    return False


def who_asks_for_a_change_approves_it_alone(site: Site) -> bool:
    """Two people must agree: the one who asked for the rollback gives one of the two."""
    site.fresh(TWO)
    asked = Request(path=RunbookPath.ROLLBACK, target_version="v1.5.0", reason="r", by="Ann")
    said = NewReport(MODEL, Severity.MEDIUM, IncidentType.PERFORMANCE_DEGRADATION, "r", "", "Ann")
    incident_id = open_or_join(site.world, said, asked)
    if carry(site.world, incident_id, "run-1") != "pending":
        return False
    ann, bob = _lead(site, "Ann"), _lead(site, "Bob")
    assert ann is not None
    assert bob is not None
    _say(site, incident_id, ann)
    return bool(_say(site, incident_id, bob).json().get("planApproved"))


def a_plan_is_approved_by_a_guess(site: Site) -> bool:
    """Digests that are short, hold wildcards, or belong to a plan that was replaced or to another incident; foreign doors and fields."""
    incident_id = site.contained()
    lead, asked = _lead(site, "the lead"), people.plan(site.world, incident_id)
    assert lead is not None
    assert asked is not None
    for digest in (asked.digest[:7], "%" * 8, "_" * 8, "0" * 64):
        if _say(site, incident_id, lead, planDigest=digest).status_code < 400:
            return True
    for extra in ({"door": "policy_rule"}, {"door": "prefect_form"}, {"approver": "VP"}, {"verified": True}, {"role": "vp_engineering"}):
        if _say(site, incident_id, lead, **extra).status_code < 400:
            return True
    return carry(site.world, incident_id, "run-1") != "pending" or "rollback" in site.file_world.applied


def an_approval_outlives_its_time_or_a_rejection(site: Site) -> bool:
    """A plan is carried out an hour after its approval, after a rejection, or after its text was edited in the database."""
    for spoil in ("expire", "reject", "edit"):
        incident_id = site.fresh().contained()
        lead, other = _lead(site, "the lead"), _lead(site, "another lead")
        assert lead is not None
        assert other is not None
        _say(site, incident_id, lead)
        if spoil == "expire":
            site.clock.advance(minutes=61)
        elif spoil == "reject":
            _say(site, incident_id, other, "rejected")
        else:
            site.sql("ALTER TABLE plans DISABLE TRIGGER USER")
            site.sql("UPDATE plans SET body = replace(body::text, 'v1.5.0', 'v1.4.0')::jsonb")
        with contextlib.suppress(Exception):
            carry(site.world, incident_id, "run-1")
        if "rollback" in site.file_world.applied:
            return True
    return False


def _edits() -> dict[str, str]:
    return {
        "a text": "UPDATE timeline SET text = 'nothing happened' WHERE incident_id = :i AND seq = 3",
        "one in the middle is gone": "DELETE FROM timeline WHERE incident_id = :i AND seq = 4",
        "a time": "UPDATE timeline SET at = at + interval '1 hour' WHERE incident_id = :i AND seq = 2",
        "an actor": "UPDATE timeline SET actor = 'somebody' WHERE incident_id = :i AND seq = 2",
        "the first is gone": "DELETE FROM timeline WHERE incident_id = :i AND seq = 1",
        "the last are gone": "DELETE FROM timeline WHERE incident_id = :i AND seq > 20",
        "all are gone": "DELETE FROM timeline WHERE incident_id = :i",
        "who approved": "UPDATE approvals SET approver = 'somebody else' WHERE incident_id = :i",
        "the journal's target": 'UPDATE actions SET target = \'{"target_version": "v9"}\' WHERE incident_id = :i',
        "who acknowledged": "UPDATE incidents SET acknowledged_by = 'x', severity = 'low' WHERE id = :i",
        "an evidence file": "UPDATE evidence SET content = 'x' WHERE incident_id = :i AND name = 'metrics.json'",
        "the evidence manifest": "UPDATE evidence SET content = '{\"files\": []}' WHERE incident_id = :i AND name = 'manifest.json'",
        "all evidence is gone": "DELETE FROM evidence WHERE incident_id = :i",
    }


def what_was_kept_is_edited_unseen(site: Site) -> bool:
    """Whoever has the database edits the timeline, the journal, approvals, the incident or the evidence; then somebody verifies it."""
    for what, statement in _edits().items():
        incident_id = site.fresh().closed()
        try:
            changed = site.sql(f"{statement} RETURNING 1", i=incident_id)
        except DBAPIError:  # an edit that the database refuses has not worked
            continue
        assert changed, f"nothing to edit: {what}"
        answer = site.http().get(f"/api/v1/incidents/{incident_id}/verify", headers=site.key("a reader", Scope.READ)).json()
        if answer["intact"] and not answer["evidenceFaults"]:
            return True
    return False


def prefect_runs_the_command_of_whoever_logs_in(site: Site) -> bool:
    """The work pool takes a command or an environment from whoever starts a run: a variable of its template, or any the server lets by."""
    template = deployments.BASE_JOB_TEMPLATE
    return "{{" in json.dumps(template["job_configuration"]) or template["variables"].get("additionalProperties") is not False


ATTACKS = (
    a_route_answers_without_the_right_scope,
    an_alert_sender_ends_paging,
    an_alert_or_report_changes_a_healthy_model,
    one_person_counts_as_two,
    who_asks_for_a_change_approves_it_alone,
    a_plan_is_approved_by_a_guess,
    an_approval_outlives_its_time_or_a_rejection,
    what_was_kept_is_edited_unseen,
    prefect_runs_the_command_of_whoever_logs_in,
)
