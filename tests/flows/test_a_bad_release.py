"""A bad release, from real traffic to the reviewed and closed incident, while part after part is killed with -9.

One incident proves both: what the runbook does, and that no kill makes it do less, or anything twice.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.investigation.findings import CHECKLIST
from mlrunbook.drills.simulator.faults import fault
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.store import action_items, incidents, journal, outbox, timeline
from tests.flows.live import Live, wait_for

pytestmark = [pytest.mark.prefect, pytest.mark.stack]

ASK_AGAIN = "Reported again by"


class Story(NamedTuple):
    live: Live
    incident: Incident
    changed: dict[str, int]
    """What the platform applied, by kind, from the release to the closing."""

    @property
    def id(self) -> str:
        return self.incident.id

    @property
    def target(self) -> str:
        """Of the two sound versions the newest, unless the other is better at 95 % on the requests that happened to come: now and then."""
        chosen = self.live.record(self.id, "rollback_targets")
        assert chosen is not None
        assert chosen["target"] in ("v1.5.0", "v1.4.0")
        return str(chosen["target"])


@pytest.fixture(scope="module")
def story(live: Live) -> Story:
    """Each kill follows something seen on the timeline; nobody helps afterwards but the supervisor."""
    known = {i.id for i in live.incidents()}
    live.simulator.inject(fault("bad-release"))
    before = live.applied()
    with live.traffic():
        found = live.wait("", "the alert opens an incident", lambda: [i for i in live.incidents() if i.id not in known])
        one = found[0].id

        live.wait(one, "a run carries it", lambda: live.lease(one).state == "running")
        live.kill_flow(one, "in triage")
        live.kill_part("platform", "in triage")
        live.wait(one, "another run carries it", lambda: live.lease(one).generation == 2 and live.lease(one).state == "running")
        flow = live.flow(one)
        wait_for("the first containment action", lambda: live.said(one, "Done, read back: require human approval"), every_s=0.002)
        live.kill_flow(one, "between two containment actions", flow)
        live.kill_part("gateway", "between two containment actions")
        live.wait_until_said(one, "-> contained")
        live.kill_part("model-server", "in the investigation")

        live.wait_until_suspended(one)
        # The killed gateway may hold a page: it goes out when the claim is over, and a decision before that would make it needless.
        live.wait(one, "every page that is due went out", lambda: not live.pages_on_their_way(one))
        live.kill_part("worker", "while the run is suspended")
        live.kill_part("prefect", "while the run is suspended")
        assert live.decide(one).status_code == 201

        live.wait_until_said(one, "-> resolving")
        live.stack.kill()
        live.killed.append("everything, while resolving")
        live.stack.start()
        incident = live.wait_until_ended(one)
    after = live.applied()
    return Story(live, incident, {kind: n - before.get(kind, 0) for kind, n in after.items() if n != before.get(kind, 0)})


def test_it_is_graded_high_and_ends_closed(story: Story) -> None:
    assert (story.incident.severity, story.incident.type) == (Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION)
    assert story.incident.status is Status.CLOSED
    assert len(story.live.killed) == 8


def test_the_old_version_serves_again_and_f1_is_back_within_5_percent(story: Story) -> None:
    assert story.live.serving()["servingVersion"] == story.live.loaded()["version"] == story.target
    recovery = story.live.record(story.id, "recovery")
    diagnosis = story.live.record(story.id, "diagnosis")
    assert recovery is not None
    assert diagnosis is not None
    assert diagnosis["figures"]["f1_now"] < 0.8 * diagnosis["figures"]["f1_baseline"]
    assert recovery["f1"] > 0.95 * recovery["f1_baseline"]


def test_every_change_was_applied_once_as_the_platform_counts_them(story: Story) -> None:
    assert story.changed == {"rollback": 1}
    with story.live.store() as conn:
        rows = journal.of_incident(conn, story.id)
    assert {row.state for row in rows} == {"done"}


def test_containment_is_taken_back(story: Story) -> None:
    config = story.live.loaded()["config"]
    assert (config["humanApproval"], config["autoScheduling"], config["autoWorkOrders"]) == (False, True, True)
    with story.live.store() as conn:
        rows = journal.of_incident(conn, story.id)
    assert sum(row.undone_by is not None for row in rows) == 2
    assert sum(row.undo_of is not None for row in rows) == 2


def test_each_rung_of_the_ladder_was_paged_and_both_notifications_went_out(story: Story) -> None:
    with story.live.store() as conn:
        pages = [row for row in outbox.of_incident(conn, story.id, "page") if row["delivered_at"]]
    assert sorted(p["payload"]["to"] for p in pages if "ask:" not in p["dedup_key"]) == ["ML Team Lead", "On-Call ML Engineer"]
    assert [p["payload"]["to"] for p in pages if "ask:" in p["dedup_key"]] == ["On-Call ML Engineer", "ML Team Lead"]
    told = [f.read_text() for f in (story.live.stack.data / "messages" / story.id).iterdir()]
    assert any("[INCIDENT] Predictive Maintenance Model - High" in text for text in told)
    assert any("[RESOLVED] Predictive Maintenance Model - High" in text for text in told)


def test_every_item_of_the_checklist_has_its_finding(story: Story) -> None:
    shown = story.live.artifacts(story.id)[f"{story.id.replace('_', '-')}-findings"]
    titles = [row.split(" | ")[0].removeprefix("| ") for row in shown.splitlines() if row.startswith("| ") and " | Source |" not in row]
    assert titles == [item.title for item in CHECKLIST]
    assert len(titles) == 19


def test_plan_and_review_are_artifacts_and_the_review_is_due_with_its_action_items(story: Story) -> None:
    shown = story.live.artifacts(story.id)
    key = story.id.replace("_", "-")
    assert story.target in shown[f"{key}-plan"]
    review = story.live.record(story.id, "review")
    assert review is not None
    assert shown[f"{key}-review"] == review["markdown"]
    with story.live.store() as conn:
        assert action_items.of_incident(conn, story.id)
    due, resolved = story.incident.review_due_at, story.incident.resolved_at
    assert due is not None
    assert resolved is not None
    assert (due - resolved).total_seconds() == 48 * 3600


def test_the_same_alert_again_was_counted_and_opened_no_second_incident(story: Story) -> None:
    with story.live.store() as conn:
        assert [i.id for i in incidents.find(conn, model=MODEL, only_open=True)] == []
        opened = [i for i in incidents.find(conn, model=MODEL) if i.detected_at >= story.incident.detected_at]
    assert [i.id for i in opened] == [story.id]
    assert story.live.said(story.id, ASK_AGAIN)


def test_the_timeline_is_whole(story: Story) -> None:
    with story.live.store() as conn:
        assert timeline.broken_at(conn, story.id) is None
