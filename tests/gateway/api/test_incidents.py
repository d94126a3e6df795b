"""Incidents over HTTP, by the runbook's sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.actions import Action, Configure, Plan, PlanKind, RollBack
from mlrunbook.domain.incident import Status
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import Page, page
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, leases, outbox, plans, records, timeline
from tests.domain.builders import triaged
from tests.gateway.conftest import Clock, Keys

REPORT = {
    "severity": "high",
    "type": "performance_degradation",
    "description": "F1 score dropped from 0.71 to 0.52",
    "impact": "Many needless inspections",
    "reportedBy": "monitoring_system",
}


def report(client: TestClient, model: str, **changes: str) -> Any:
    return client.post(f"/api/v1/model-governance/{model}/incidents", json=REPORT | changes)


def opened(client: TestClient, model: str, **changes: str) -> str:
    answer = report(client, model, **changes)
    assert answer.status_code == 201, answer.text
    return cast(str, answer.json()["id"])


def say(client: TestClient, incident_id: str, verb: str, body: Mapping[str, Any] | None = None, headers: Any = None) -> Any:
    return client.post(f"/api/v1/incidents/{incident_id}/{verb}", json=body, headers=headers)


def proposed(world: World, incident_id: str, model: str, *, version: str = "v1.5.0", kind: PlanKind = PlanKind.RESOLUTION) -> str:
    plan = Plan(incident_id, kind, model, (RollBack(model, version, "bad release"),), ("F1 fell after v2.0.0",), expected="F1 as before")
    with world.transaction() as conn:
        return plans.propose(conn, plan, now=world.now())


def contained(world: World, incident_id: str, model: str, *, state: str = "done") -> str:
    """An automatic containment action in the journal; returns its id."""
    action: Action = Configure(model, {"human_approval": True})
    plan = Plan(incident_id, PlanKind.CONTAINMENT, model, (action,), ("high severity",), rule="containment.high.human_approval")
    with world.transaction() as conn:
        plans.propose(conn, plan, now=world.now())
        by = approve_by_rule(conn, plan, now=world.now())
        row = journal.intend(conn, journal.Intent(plan, 0, by.id, 1, {"human_approval": False}), now=world.now())
        journal.mark(conn, row, state)
    return row.id


def journaled(world: World, incident_id: str, digest: str, state: str) -> None:
    """The plan's first action, as a run that rests on its approval has journaled it."""
    with world.transaction() as conn:
        plan = plans.get(conn, incident_id, digest)
        yes = plans.approvals_of(conn, incident_id, digest)[0]
        row = journal.intend(conn, journal.Intent(plan, 0, yes.id, 1, {"serving_version": "v2.0.0"}), now=world.now())
        journal.mark(conn, row, state)


def measured(world: World, incident_id: str) -> None:
    with world.transaction() as conn:
        records.keep(conn, incident_id, triaged(f1_now=0.52), now=world.now())


def waiting(world: World, incident_id: str) -> None:
    """A run carries the incident and is suspended for a human."""
    with world.transaction() as conn:
        lease = leases.take(conn, incident_id, "run-1", here=world.elapsed(), lease_s=30)
        assert lease
        leases.release(conn, lease, "waiting", now=world.now())


def due(world: World, incident_id: str, *kinds: str) -> list[str]:
    with world.transaction() as conn:
        rows = outbox.of_incident(conn, incident_id, *kinds)
    return [r["dedup_key"] for r in rows if r["delivered_at"] is None and r["cancelled_at"] is None]


# Step 1: create the incident report


def test_a_report_opens_an_incident_and_says_where_it_is(client: TestClient, world: World, model: str) -> None:
    answer = report(client, model)
    assert answer.status_code == 201
    body = answer.json()
    assert {k: body[k] for k in REPORT} == REPORT
    assert (body["model"], body["status"], body["joined"]) == (model, "detected", False)
    assert client.get(answer.headers["location"]).json()["id"] == body["id"]
    assert any(key.startswith("start:") for key in due(world, body["id"]))
    assert any(key.startswith("page:") for key in due(world, body["id"]))


def test_a_second_report_joins_the_open_incident(client: TestClient, model: str) -> None:
    incident_id = opened(client, model)
    again = report(client, model, type="prediction_error", description="Everything is flagged")
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["joined"]) == (incident_id, True)
    assert report(client, model, type="security").status_code == 201


def test_a_report_without_a_reporter_is_the_tokens(client: TestClient, model: str) -> None:
    body = {k: v for k, v in REPORT.items() if k not in ("reportedBy", "impact")}
    made = client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()
    assert (made["reportedBy"], made["impact"]) == ("the lead", "")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("severity", "urgent", "'critical'"),
        ("type", "fire", "'bias_fairness'"),
        ("description", " \x00\n ", "must say something"),
        ("description", None, "must be text"),
        ("reportedBy", "a\nb", "pattern"),
        ("colour", "red", "colour"),
    ],
)
def test_a_bad_report_is_422_naming_the_field(client: TestClient, model: str, field: str, value: Any, named: str) -> None:
    answer = client.post(f"/api/v1/model-governance/{model}/incidents", json=REPORT | {field: value})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("bad", ["-pump", "a" * 101, "pump%20failure", "p%00", "pump%0A", "..%2F"])
def test_a_bad_model_id_is_422_or_no_path(client: TestClient, bad: str) -> None:
    assert report(client, bad).status_code in (404, 422)
    assert client.get(f"/api/v1/model-governance/{bad}/incidents").status_code in (404, 422)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'"x"', b"\xff\xfe", b"[" * 50_000])
def test_a_body_that_is_no_json_object_is_a_client_error(client: TestClient, model: str, content: bytes) -> None:
    url = f"/api/v1/model-governance/{model}/incidents"
    answer = client.post(url, content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"


def test_descriptions_are_capped_and_lose_control_characters(client: TestClient, model: str) -> None:
    made = report(client, model, description="\x1b[31mred\x00\nsecond line\r " + "x" * 5_000).json()
    assert made["description"].startswith("[31mred\nsecond line")
    assert len(made["description"]) == 4_000


# Reading


def test_incidents_are_listed_newest_first_by_model_status_and_openness(client: TestClient, model: str) -> None:
    first, second = opened(client, model), opened(client, model, type="security", severity="low")
    assert say(client, second, "close", {"reason": "a drill"}).status_code == 200

    def listed(query: str) -> list[str]:
        return [i["id"] for i in client.get(f"/api/v1/model-governance/{model}/incidents{query}").json()["incidents"]]

    assert listed("") == [second, first]
    assert listed("?open=true") == [first]
    assert listed("?status=closed") == [second]
    assert listed("?limit=1") == [second]
    assert first in [i["id"] for i in client.get("/api/v1/incidents?open=true").json()["incidents"]]
    for bad in ("status=burning", "limit=0", "limit=99999999999", "open=perhaps"):
        assert client.get(f"/api/v1/incidents?{bad}").status_code == 422


def test_one_incident_is_shown_whole(client: TestClient, world: World, clock: Clock, model: str) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    action = contained(world, incident_id, model)
    measured(world, incident_id)
    with world.transaction() as conn:
        found = {"key": "recent_changes.model_deployment", "state": "suspect", "source": "platform", "value": {"a_b": 1}, "sentence": "s"}
        records.put(conn, incident_id, "findings:platform", {"findings": [found]}, now=world.now())
        records.put(conn, incident_id, "diagnosis", {"cause": "bad_deployment", "target_version": "v1.5.0"}, now=world.now())
        evidence.preserve(conn, incident_id, "metrics.json", b"{}", "application/json", now=world.now())
    clock.pass_(minutes=5)
    say(client, incident_id, "acknowledge")

    shown = client.get(f"/api/v1/incidents/{incident_id}").json()
    assert shown["seconds"] == {"toDetect": None, "toAcknowledge": 300, "toContain": None, "toResolve": None}
    by_kind = {p["kind"]: p for p in shown["plans"]}
    assert by_kind["resolution"]["digest"] == digest
    assert by_kind["resolution"]["decision"] == "pending"
    assert by_kind["resolution"]["actions"] == [
        {"kind": "roll_back", "summary": f"roll {model} back to v1.5.0", "target": {"targetVersion": "v1.5.0"}}
    ]
    assert by_kind["containment"]["decision"] == "approved"
    assert [(a["id"], a["target"], a["state"]) for a in shown["actions"]] == [(action, {"humanApproval": True}, "done")]
    assert [a["door"] for a in shown["approvals"]] == ["policy_rule"]
    assert shown["findings"] == [found]
    assert shown["diagnosis"]["targetVersion"] == "v1.5.0"
    assert shown["recovery"] is None
    assert shown["evidence"][0]["name"] == "metrics.json"
    assert client.get(f"/api/v1/model-governance/{model}/incidents/{incident_id}").json() == shown


def test_a_person_opens_a_piece_of_evidence_in_a_browser_and_it_cannot_reach_the_gateway(
    client: TestClient, anonymous: TestClient, keys: Keys, world: World, model: str
) -> None:
    incident_id = opened(client, model)
    with world.transaction() as conn:
        evidence.preserve(conn, incident_id, "drift-report.html", b"<script>1</script>", "text/html", now=world.now())
        evidence.preserve(conn, incident_id, "drift-report.html", b"another", "text/html", now=world.now())
    at = f"/api/v1/incidents/{incident_id}/evidence/drift-report.html"
    seen = anonymous.get(at, auth=("anyone", keys.token("a reader", Scope.READ)))
    assert (seen.status_code, seen.content) == (200, b"<script>1</script>")
    assert seen.headers["content-type"].startswith("text/html")
    assert seen.headers["x-content-type-options"] == "nosniff"
    rules = seen.headers["content-security-policy"].split("; ")
    assert {"sandbox allow-scripts", "default-src 'none'"} <= set(rules)
    assert not any("http" in rule or "'self'" in rule or "*" in rule for rule in rules)
    assert anonymous.get(at, headers=keys.of("a machine", Scope.READ)).status_code == 200
    refused = anonymous.get(at)
    assert refused.status_code == 401
    assert "Basic" in refused.headers["www-authenticate"]
    assert anonymous.get(at, auth=("anyone", keys.token("a sensor", Scope.ALERTS))).status_code == 403
    assert client.get(f"/api/v1/incidents/{incident_id}/evidence/nothing").status_code == 404
    assert client.get("/api/v1/incidents/incident_0/evidence/drift-report.html").status_code == 404


def test_an_incident_of_another_model_or_an_unknown_one_is_404(client: TestClient, model: str) -> None:
    incident_id = opened(client, model)
    for path in ("", "/timeline", "/verify", "/review"):
        assert client.get(f"/api/v1/model-governance/another/incidents/{incident_id}{path}").status_code == 404
        assert client.get(f"/api/v1/incidents/incident_0{path}").status_code == 404
    for verb, body in (("acknowledge", None), ("close", {}), ("resolve", {"what": "x"})):
        assert client.post(f"/api/v1/model-governance/another/incidents/{incident_id}/{verb}", json=body).status_code == 404
        assert say(client, "incident_0", verb, body).status_code == 404
    assert client.get("/api/v1/incidents/a%00b").status_code == 422


def test_the_timeline_is_read_from_an_entry_on_and_verified(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    report(client, model, description="still bad")
    entries = client.get(f"/api/v1/incidents/{incident_id}/timeline").json()["entries"]
    assert [e["kind"] for e in entries] == ["detected", "reported"]
    assert client.get(f"/api/v1/incidents/{incident_id}/timeline?after=1").json()["entries"] == entries[1:]
    assert client.get(f"/api/v1/incidents/{incident_id}/timeline?after=-1").status_code == 422
    sound = client.get(f"/api/v1/incidents/{incident_id}/verify").json()
    assert sound == sound | {"intact": True, "entries": 2, "brokenAt": None, "faults": [], "evidenceFaults": None, "after": None}
    with world.transaction() as conn:
        conn.execute(text("UPDATE timeline SET text = 'all is well' WHERE incident_id = :i AND seq = 2"), {"i": incident_id})
    edited = client.get(f"/api/v1/incidents/{incident_id}/verify").json()
    assert (edited["intact"], edited["brokenAt"], edited["evidenceFaults"]) == (False, 2, None)
    assert edited["faults"] == ["Entry 2 of the timeline was changed after it was written"]


def test_a_head_from_a_page_is_compared_with_the_chain(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    at = f"/api/v1/incidents/{incident_id}"
    head = client.get(f"{at}/head").json()["head"]
    report(client, model, description="still bad")
    sound = client.get(f"{at}/verify", params={"head": f"Chain {head}"}).json()
    assert (sound["intact"], sound["heads"]) == (True, 1)
    longer = "9/9 " + head.partition(" ")[2]
    cut = client.get(f"{at}/verify", params={"head": longer}).json()
    assert not cut["intact"]
    assert "cut off" in cut["faults"][0]
    assert client.get(f"{at}/verify", params={"head": "F1 fell"}).status_code == 422


def test_what_there_is_to_verify_is_listed_with_what_was_deleted(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    with world.transaction() as conn:
        conn.execute(text("INSERT INTO chain_heads (incident_id, entries, changed_at) VALUES ('incident_gone', 7, now())"))
        conn.execute(text("UPDATE incidents SET severity = 'none' WHERE id = :i"), {"i": incident_id})
    chains = client.get("/api/v1/chains").json()
    with world.transaction() as conn:
        conn.execute(text("DELETE FROM chain_heads WHERE incident_id = 'incident_gone'"))
        conn.execute(text("UPDATE incidents SET severity = 'low' WHERE id = :i"), {"i": incident_id})
    assert incident_id in chains["incidents"], "also one whose row nobody can read"
    assert [said for said in chains["deleted"] if "incident_gone" in said]


def test_the_review_is_markdown_once_it_is_drafted(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    missing = client.get(f"/api/v1/incidents/{incident_id}/review")
    assert missing.status_code == 404
    assert "not drafted" in missing.json()["detail"]
    with world.transaction() as conn:
        records.put(conn, incident_id, "review", {"markdown": "# Post-Incident Review\n"}, now=world.now())
    review = client.get(f"/api/v1/incidents/{incident_id}/review")
    assert review.headers["content-type"].startswith("text/markdown")
    assert review.text.startswith("# Post-Incident Review\n\n## Action Items\n")


# Acknowledge


def test_acknowledging_ends_the_paging_of_that_role_and_not_the_escalation(
    client: TestClient, world: World, keys: Keys, model: str
) -> None:
    incident_id = opened(client, model)
    oncall = keys.of("the engineer on call", Scope.OPERATE, role="oncall_ml_engineer")
    before = due(world, incident_id, "page")
    acknowledged = say(client, incident_id, "acknowledge", headers=oncall)
    assert acknowledged.json()["acknowledgedBy"] == "the engineer on call"
    assert acknowledged.json()["acknowledgedAt"] is not None
    cancelled = set(before) - set(due(world, incident_id, "page"))
    assert cancelled
    assert all(":oncall_ml_engineer:" in key for key in cancelled)
    assert any(":ml_team_lead:" in key for key in due(world, incident_id, "page"))


def test_a_request_for_a_decision_survives_an_acknowledgement(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        role = next(r for r in world.policy.approvals.resolution.roles if r == "ml_team_lead")
        page(conn, world.policy, incident, Page(role, "decide", "ask:abc"), now=world.now())
    say(client, incident_id, "acknowledge")
    assert any(":ask:abc:" in key for key in due(world, incident_id, "page"))


# Step 4: approval


def test_an_approval_covers_exactly_the_plan_that_was_shown(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    waiting(world, incident_id)
    body = {"decision": "approved", "planDigest": digest[:8].upper(), "reason": "the release is bad", "door": "cli"}
    made = say(client, incident_id, "approvals", body)
    assert made.status_code == 201
    row = made.json()
    assert (row["planDigest"], row["approver"], row["role"], row["door"]) == (digest, "the lead", "ml_team_lead", "cli")
    assert (row["verified"], row["planApproved"]) == (True, True)
    assert due(world, incident_id, "resume_run")


def test_approving_twice_is_one_approval(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    body = {"decision": "approved", "planDigest": proposed(world, incident_id, model)}
    assert say(client, incident_id, "approvals", body).json() == say(client, incident_id, "approvals", body).json()
    assert len(client.get(f"/api/v1/incidents/{incident_id}").json()["approvals"]) == 1


def test_an_expired_approval_can_be_given_again(client: TestClient, world: World, clock: Clock, model: str) -> None:
    incident_id = opened(client, model)
    body = {"decision": "approved", "planDigest": proposed(world, incident_id, model)}
    say(client, incident_id, "approvals", body)
    clock.pass_(hours=2)
    shown = client.get(f"/api/v1/incidents/{incident_id}").json()["plans"][0]
    assert shown["decision"] == "pending"
    assert "expired" in shown["why"]
    assert say(client, incident_id, "approvals", body).json()["planApproved"] is True


def test_a_replaced_plan_cannot_be_approved(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    old = proposed(world, incident_id, model)
    proposed(world, incident_id, model, version="v1.4.0")
    refused = say(client, incident_id, "approvals", {"decision": "approved", "planDigest": old})
    assert refused.status_code == 409
    assert "replaced by a newer one" in refused.json()["detail"]


def test_a_plan_nobody_proposed_is_404_and_another_incidents_too(client: TestClient, world: World, model: str) -> None:
    incident_id, other = opened(client, model), opened(client, model, type="security")
    digest = proposed(world, other, model)
    for unknown in ("0" * 64, digest):
        refused = say(client, incident_id, "approvals", {"decision": "approved", "planDigest": unknown})
        assert refused.status_code == 404
        assert "incidents show" in refused.json()["detail"]


def test_a_role_that_may_not_decide_is_refused_by_name(client: TestClient, world: World, keys: Keys, model: str) -> None:
    incident_id = opened(client, model)
    body = {"decision": "approved", "planDigest": proposed(world, incident_id, model)}
    for role in ("oncall_ml_engineer", None):
        refused = say(client, incident_id, "approvals", body, headers=keys.of("somebody", Scope.APPROVE, role=role))
        assert refused.status_code == 409
        assert "ml_team_lead" in refused.json()["detail"]
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["approvals"] == []


def test_a_rejected_plan_stays_rejected(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    no = say(client, incident_id, "approvals", {"decision": "rejected", "planDigest": digest, "reason": "wrong version"})
    assert (no.status_code, no.json()["planApproved"]) == (201, False)
    yes = say(client, incident_id, "approvals", {"decision": "approved", "planDigest": digest})
    assert yes.status_code == 409
    assert "a new plan is needed" in yes.json()["detail"]


@pytest.mark.parametrize("decision", ["approved", "rejected"])
@pytest.mark.parametrize("state", [None, "intended", "applying", "done", "already_held", "unknown", "refused"])
def test_what_has_begun_is_not_rejected_and_what_is_over_not_approved(
    client: TestClient, world: World, model: str, state: str | None, decision: str
) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    say(client, incident_id, "approvals", {"decision": "approved", "planDigest": digest})
    if state:
        journaled(world, incident_id, digest, state)
    answer = say(client, incident_id, "approvals", {"decision": decision, "planDigest": digest})
    begun = state not in (None, "refused")
    carried_out = state in ("done", "already_held")
    assert answer.status_code == (409 if (begun if decision == "rejected" else carried_out) else 201)
    shown = client.get(f"/api/v1/incidents/{incident_id}").json()["plans"][0]
    assert (shown["decision"], shown["carriedOut"]) == ("approved" if begun or decision == "approved" else "rejected", carried_out)
    assert shown["waits"] is False
    if answer.status_code == 409:
        assert answer.headers["content-type"] == "application/problem+json"
    if state == "done" and decision == "rejected":
        assert "rolled back to v1.5.0" in answer.json()["detail"]
        assert f"mlrunbook incidents contain {incident_id} --route v2.0.0" in answer.json()["detail"]


def test_a_plan_that_is_carried_out_waits_for_nobody_when_its_approval_has_expired(
    client: TestClient, world: World, clock: Clock, model: str
) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    say(client, incident_id, "approvals", {"decision": "approved", "planDigest": digest})
    journaled(world, incident_id, digest, "done")
    clock.pass_(hours=2)
    shown = client.get(f"/api/v1/incidents/{incident_id}").json()["plans"][0]
    assert (shown["decision"], shown["waits"], shown["why"]) == ("approved", False, "carried out: rolled back to v1.5.0")


def test_an_order_that_lapsed_is_given_again_and_not_approved(client: TestClient, world: World, clock: Clock, model: str) -> None:
    incident_id = opened(client, model)
    order = client.post(f"/api/v1/incidents/{incident_id}/containment", json={"order": "stop_serving", "reason": "pumps fail"}).json()
    clock.pass_(hours=1)
    shown = client.get(f"/api/v1/incidents/{incident_id}").json()["plans"][0]
    assert (shown["decision"], shown["waits"]) == ("lapsed", False)
    refused = say(client, incident_id, "approvals", {"decision": "approved", "planDigest": order["digest"]})
    assert refused.status_code == 409
    assert f"mlrunbook incidents contain {incident_id}" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"planDigest": "abc"}, "planDigest"),
        ({"planDigest": "0123456"}, "planDigest"),
        ({"planDigest": ""}, "planDigest"),
        ({"planDigest": "0" * 65}, "planDigest"),
        ({"planDigest": "incident"}, "planDigest"),
        ({"planDigest": "%" * 8}, "planDigest"),
        ({"planDigest": None}, "planDigest"),
        ({"decision": "perhaps"}, "decision"),
        ({"door": "prefect_form"}, "door"),
    ],
)
def test_a_bad_decision_is_422_naming_the_field(client: TestClient, model: str, changes: dict[str, Any], field: str) -> None:
    answer = say(client, opened(client, model), "approvals", {"decision": "approved", "planDigest": "0" * 8} | changes)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


# Resolve and close


def test_a_human_who_fixed_it_lets_the_run_go_on(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    waiting(world, incident_id)
    body = {"what": "Restored the sensor feed", "rootCause": "The feed was cut"}
    assert say(client, incident_id, "resolve", body).status_code == 202
    assert say(client, incident_id, "resolve", body).status_code == 202  # the same word again
    with world.transaction() as conn:
        said = records.get(conn, incident_id, "human_resolution")
        notes = [e.text for e in timeline.read(conn, incident_id) if e.kind == "human_resolution"]
    assert said is not None
    assert (said["by"], said["what"], said["root_cause"], said["at"]) == (
        "the lead",
        body["what"],
        body["rootCause"],
        world.now().isoformat(),
    )
    assert notes == ["Fixed by the lead: Restored the sensor feed"]
    assert len(due(world, incident_id, "resume_run")) == 1


def test_a_later_word_replaces_an_earlier_one_and_both_stay_on_the_timeline(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    waiting(world, incident_id)
    say(client, incident_id, "resolve", {"what": "Restarted it"})
    say(client, incident_id, "resolve", {"what": "Mended the feed"})
    shown = client.get(f"/api/v1/incidents/{incident_id}").json()
    assert shown["humanResolution"]["what"] == "Mended the feed"
    texts = [e["text"] for e in client.get(f"/api/v1/incidents/{incident_id}/timeline").json()["entries"]]
    assert [t for t in texts if t.startswith("Fixed by")] == ["Fixed by the lead: Restarted it", "Fixed by the lead: Mended the feed"]
    assert len(due(world, incident_id, "resume_run")) == 2


def test_a_low_incident_closes_with_a_reason_and_nothing_goes_out_for_it_anymore(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model, severity="low")
    measured(world, incident_id)
    wordless = say(client, incident_id, "close")
    assert (wordless.status_code, wordless.json()["field"]) == (422, "reason")
    closed = say(client, incident_id, "close", {"reason": "the page in the handbook is mended"})
    assert closed.json()["status"] == "closed"
    assert closed.json()["closedAt"] is not None
    assert due(world, incident_id, "page", "message", "update", "response_due") == [f"message:{incident_id}:closed:incidents"]
    with world.transaction() as conn:
        assert leases.get(conn, incident_id).state == "done"
        assert leases.take(conn, incident_id, "run-2", here=world.elapsed(), lease_s=30) is None


def test_an_incident_that_nothing_has_measured_closes_with_a_reason(client: TestClient, model: str) -> None:
    assert say(client, opened(client, model, severity="critical", type="compliance"), "close", {"reason": "a drill"}).status_code == 200


def test_an_incident_closed_by_a_person_has_its_review_drafted_too(client: TestClient, model: str) -> None:
    incident_id = opened(client, model, severity="high", type="compliance")
    say(client, incident_id, "close", {"reason": "a drill"})
    review = client.get(f"/api/v1/incidents/{incident_id}/review")
    assert review.status_code == 200
    assert review.text.startswith("# Post-Incident Review:")
    assert "a drill" in review.text


def fixed(client: TestClient, world: World, incident_id: str) -> None:
    """A person says it is fixed, and the recovery is being measured."""
    measured(world, incident_id)
    assert say(client, incident_id, "resolve", {"what": "restarted it"}).status_code == 202
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.INVESTIGATING, why="real", actor="mlrunbook", now=world.now())
        incidents.set_status(conn, incident_id, Status.MONITORING, why="fixed", actor="mlrunbook", now=world.now())


def unanswered(world: World, incident_id: str) -> bool:
    with world.transaction() as conn:
        return reports.unanswered(conn, incident_id) is not None


def test_a_report_while_the_recovery_is_measured_waits_for_a_persons_word(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    fixed(client, world, incident_id)
    assert report(client, model).json()["id"] == incident_id
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["status"] == "investigating"
    assert unanswered(world, incident_id)
    assert say(client, incident_id, "resolve", {"what": "restarted it"}).status_code == 202, "the same words again"
    assert not unanswered(world, incident_id)


def test_who_looked_at_a_new_report_closes_it_with_a_reason(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    fixed(client, world, incident_id)
    assert report(client, model).json()["id"] == incident_id
    assert say(client, incident_id, "close", {}).status_code == 422
    assert say(client, incident_id, "close", {"reason": "it was about another model"}).json()["status"] == "closed"


def test_a_person_calls_it_a_false_alarm_with_a_reason(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    measured(world, incident_id)
    assert say(client, incident_id, "close", {"falseAlarm": True}).status_code == 422
    ended = say(client, incident_id, "close", {"falseAlarm": True, "reason": "the planner had the wrong week"})
    assert ended.json()["status"] == "false_alarm"
    assert opened(client, model) != incident_id, "a report after that opens another one"


def test_what_has_been_fixed_was_no_false_alarm(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    fixed(client, world, incident_id)
    refused = say(client, incident_id, "close", {"falseAlarm": True, "reason": "it looks fine"})
    assert refused.status_code == 409
    assert "close it with a reason instead" in refused.json()["detail"]


def test_a_measured_incident_does_not_close_on_a_word(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    measured(world, incident_id)
    refused = say(client, incident_id, "close", {"reason": "looks fine"})
    assert refused.status_code == 409
    assert "incidents resolve" in refused.json()["detail"]


def test_a_resolved_incident_closes_and_the_running_flow_is_fenced_off(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    measured(world, incident_id)
    waiting(world, incident_id)
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.RESOLVED, why="recovered", actor="mlrunbook", now=world.now())
    closed = say(client, incident_id, "close").json()
    assert closed["status"] == "closed"
    assert closed["reviewDueAt"] is not None
    assert say(client, incident_id, "close").json() == closed


@pytest.mark.parametrize("state", ["done", "applying", "unknown"])
def test_no_incident_closes_with_an_unexplained_containment(client: TestClient, world: World, model: str, state: str) -> None:
    incident_id = opened(client, model, severity="low")
    contained(world, incident_id, model, state=state)
    refused = say(client, incident_id, "close", {"reason": "enough"})
    assert refused.status_code == 409
    assert "require human approval for all predictions" in refused.json()["detail"]
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["status"] == "detected"
    kept = say(client, incident_id, "close", {"reason": "the model is given up", "keepContainment": True})
    assert kept.status_code == (200 if state == "done" else 409), "what nobody knows is no containment to keep"


def test_a_measured_incident_closes_with_its_containment_kept_by_who_may_order_it_and_with_a_reason(
    client: TestClient, world: World, keys: Keys, model: str
) -> None:
    incident_id = opened(client, model)
    measured(world, incident_id)
    contained(world, incident_id, model, state="done")
    keep = {"keepContainment": True, "reason": "the model is given up"}
    nobody = keys.of("an operator", Scope.READ, Scope.OPERATE)
    assert client.post(f"/api/v1/incidents/{incident_id}/close", json=keep, headers=nobody).status_code == 409
    assert say(client, incident_id, "close", keep | {"reason": ""}).status_code == 422
    assert say(client, incident_id, "close", keep).json()["status"] == "closed"
    [action] = client.get(f"/api/v1/incidents/{incident_id}").json()["actions"]
    assert action["keptBecause"] == "kept by the lead: the model is given up"


def test_what_was_kept_at_the_closing_and_ended_since_is_over_in_the_review(
    client: TestClient, world: World, clock: Clock, model: str
) -> None:
    incident_id = opened(client, model)
    contained(world, incident_id, model)
    done = say(client, incident_id, "close", {"reason": "the vendor asked for it", "keepContainment": True})
    assert done.status_code == 200, done.text
    review = f"/api/v1/incidents/{incident_id}/review"
    still = "Containment still in force: require human approval for all predictions"
    assert still in client.get(review).text
    clock.pass_(hours=1)
    later = opened(client, model, type="infrastructure")
    action = Configure(model, {"human_approval": False})
    with world.transaction() as conn:
        plan = Plan(later, PlanKind.RESOLUTION, model, (action,), ("a test",))
        digest = plans.propose(conn, plan, now=world.now())
    say(client, later, "approvals", {"decision": "approved", "planDigest": digest})
    journaled(world, later, digest, "done")
    text = client.get(review).text
    assert still not in text
    assert f"Containment outlived the incident and is over since {clock():%Y-%m-%d %H:%M:%S} UTC" in text


def test_what_is_over_takes_no_more_decisions(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.FALSE_ALARM, why="chance", actor="mlrunbook", now=world.now())
    assert say(client, incident_id, "close").json()["status"] == "false_alarm"
    for verb, body in (
        ("acknowledge", None),
        ("resolve", {"what": "x"}),
        ("approvals", {"decision": "approved", "planDigest": digest}),
    ):
        refused = say(client, incident_id, verb, body)
        assert refused.status_code == 409
        assert "false alarm" in refused.json()["detail"]
