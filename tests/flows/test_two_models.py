"""Trouble with another model leaves the one that serves here alone: its switches, its work orders, its server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from mlrunbook.domain.incident import Status
from mlrunbook.store import journal, outbox
from tests.flows.live import Live

pytestmark = [pytest.mark.prefect, pytest.mark.stack]

REPORT = {"severity": "critical", "type": "prediction_error", "description": "it lets every fraud through"}


def seen(live: Live) -> dict[str, Any]:
    """What of the model that serves here an incident could change."""
    loaded = live.loaded()
    kept = {key: loaded.get(key) for key in ("version", "routeVersion", "isolated", "config", "status")}
    return {**kept, "registry": live.serving()["servingVersion"], "applied": live.applied()}


def post(live: Live, path: str, body: dict[str, Any], token: str = "operator") -> httpx.Response:
    return live.gateway.post(path, json=body, headers=live._as(token))


def let_go(live: Live, incident_id: str) -> None:
    live.wait(incident_id, "its run has stopped", lambda: live.lease(incident_id).state in ("free", "waiting", "done"))


def close(live: Live, incident_id: str) -> None:
    answer = post(live, f"/api/v1/incidents/{incident_id}/close", {"reason": "the test is over", "falseAlarm": True})
    assert answer.status_code == 200, answer.text


def test_a_critical_report_on_a_model_that_is_not_registered_leaves_the_work_orders_on(live: Live) -> None:
    path, before = "/api/v1/model-governance/fraud/incidents", seen(live)
    assert before["config"]["autoWorkOrders"] is True
    assert post(live, path, REPORT).status_code == 404
    incident_id = str(post(live, path, REPORT | {"unknownModel": True}).raise_for_status().json()["id"])
    live.wait_until_run_is(live.start("respond", incident_id=incident_id), "COMPLETED")
    live.wait(incident_id, "the engineer is paged", lambda: live.entries(incident_id, "page"))
    assert seen(live) == before
    assert live.incident(incident_id).status is Status.DETECTED
    with live.store() as conn:
        assert journal.of_incident(conn, incident_id) == []
        assert len(outbox.of_incident(conn, incident_id, "page")) == 1
    close(live, incident_id)


def test_a_path_for_a_model_that_is_not_registered_is_refused_and_opens_nothing(live: Live) -> None:
    run = live.start("rollback", model="fraud", targetVersion="v1.5.0", reason="it is wrong", rolledBackBy="ml_engineer")
    live.wait_until_run_is(run, "FAILED")
    assert all(not i.status.is_open for i in live.incidents("fraud"))


@pytest.mark.parametrize("order", ["stop_serving", "halt_work_orders"])
def test_containment_ordered_for_a_model_that_is_served_elsewhere_leaves_this_one_serving(live: Live, order: str) -> None:
    """`churn` is named in policy, and not served on this machine."""
    before = seen(live)
    incident_id = live.report("churn", **REPORT)
    let_go(live, incident_id)
    answer = post(live, f"/api/v1/incidents/{incident_id}/containment", {"order": order, "reason": "it lets fraud through"}, "approver")
    assert answer.status_code in (202, 409, 422, 503), answer.text
    let_go(live, incident_id)
    assert seen(live) == before
    with live.store() as conn:
        assert all(row.model == "churn" and row.state not in ("done", "already_held") for row in journal.of_incident(conn, incident_id))
    close(live, incident_id)
