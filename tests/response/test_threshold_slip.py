"""The decision threshold was set far too low (Path D): the config is written, the server restarted and read back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

import pytest

from mlrunbook.domain.actions import Configure, Path, PlanKind, Restart
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.world import World
from mlrunbook.store import journal
from tests.fakes import MODEL, Clock, FileWorld
from tests.response.carrying import carry
from tests.response.people import approve, incident_of, plan, recorded, report, told

RAISED = 0.202  # by containment

EXPECTED = {
    "config:threshold=0.202": 1,  # containment: as far up as one step may go
    "config:human_approval=True": 1,
    "config:auto_scheduling=False": 1,
    "config:threshold=0.5": 1,  # path D
    "restart": 2,  # one for each threshold
    "config:human_approval=False": 1,
    "config:auto_scheduling=True": 1,
}


class Busy(FileWorld):
    """Its newest rows are all of after the detection, and carry what containment has set; those of the baseline carry 0.5."""

    detected_at = datetime.max.replace(tzinfo=UTC)

    def prediction_log(
        self, model: str, *, limit: int = 100, since: datetime | None = None, until: datetime | None = None, labelled_only: bool = False
    ) -> Sequence[Prediction]:
        rows = super().prediction_log(model, limit=limit, labelled_only=labelled_only)
        if until is None or until > self.detected_at:
            return [replace(p, at=max(p.at, self.detected_at + timedelta(seconds=1)), threshold=RAISED) for p in rows]
        carried = 0.002 if until == self.detected_at else 0.5
        return [replace(p, id=p.id + 10_000, at=until - timedelta(milliseconds=p.id + 1), threshold=carried) for p in rows]


def test_path_d_writes_the_config_restarts_once_and_reads_the_threshold_back_from_the_running_server(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    file_world.slip()
    incident_id = report(world)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).severity is Severity.HIGH
    assert recorded(world, incident_id, "diagnosis")["path"] == "threshold"
    asked = plan(world, incident_id)
    assert asked is not None
    assert [type(a) for a in asked.actions] == [Configure, Restart]
    assert asked.actions[0].target() == {"threshold": 0.5}
    assert re.search(
        r"recall \d\.\d\d -> \d\.\d\d .* known outcomes .*; work orders [\d,]+ a day now -> [\d,]+ a day at most", asked.expected
    )
    # 30,000 predictions an hour of which a sixth are flagged; the fakes' scores have no value between the two thresholds.
    assert asked.facts["work_orders_per_day_now"] == asked.facts["work_orders_per_day_expected"] == pytest.approx(115_200)
    restarts = file_world.applied["restart"]

    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    seen = file_world.observe(MODEL)
    assert seen.config is not None
    assert seen.config.threshold == 0.5
    assert file_world.applied["restart"] == restarts + 1
    assert file_world.applied == EXPECTED
    assert incident_of(world, incident_id).status is Status.CLOSED


def test_the_threshold_that_the_resolution_set_is_not_taken_back_with_the_containment(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    file_world.slip()
    incident_id = report(world)
    clock.advance(seconds=20)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    clock.advance(minutes=2)
    carry(world, incident_id, "run-1")
    assert file_world.state["config"] == {"threshold": 0.5, "human_approval": False, "auto_work_orders": True, "auto_scheduling": True}
    undo = plan(world, incident_id, PlanKind.UNDO)
    assert undo is not None
    assert not any("threshold" in a.target() for a in undo.actions)
    with world.transaction() as conn:
        raised = next(r for r in journal.of_incident(conn, incident_id) if r.target == {"threshold": 0.202})
    assert raised.kept_because == "the resolution has set threshold itself"
    assert any(line.startswith("Kept: ") and "(the resolution has set threshold itself)" in line for line in told(world, incident_id))


def ask(world: World) -> str:
    asked = Request(path=Path.THRESHOLD, reason="too many false alarms", by="the lead")
    said = NewReport(MODEL, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "threshold", "", "the lead")
    return open_or_join(world, said, asked)


def test_a_person_who_leaves_the_threshold_open_gets_the_smallest_one_that_surely_brings_precision_back(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    file_world.slip(to=0.75)
    incident_id = ask(world)
    clock.advance(seconds=20)
    outcome = carry(world, incident_id, "run-1")
    assert outcome == "pending", recorded(world, incident_id, "resolution_plan")
    asked = plan(world, incident_id)
    assert asked is not None
    assert asked.actions[0].target() == {"threshold": 0.9}  # the fakes' scores are 0.05 and 0.9
    assert "Chosen: threshold 0.75 -> 0.9: precision 0.85 and recall 0.82 expected" in asked.reasons[0]
    assert "work orders" in asked.expected


def test_where_no_threshold_one_step_away_brings_precision_back_nobody_is_offered_one(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    file_world.slip()
    incident_id = ask(world)
    clock.advance(seconds=20)
    carry(world, incident_id, "run-1")
    assert plan(world, incident_id) is None
    why = recorded(world, incident_id, "resolution_plan")["why"]
    assert "Path D was asked for, but infeasible in one step: precision" in why


def test_a_slip_that_nobody_noted_is_found_in_the_rows_of_before_the_detection_where_the_newest_ones_all_came_since(
    world: World, tmp_path: FilePath, clock: Clock
) -> None:
    busy = Busy(tmp_path / "busy.json", clock)
    busy.slip()
    busy.set(config_changes=[])
    world = replace(world, platform=busy, runtime=busy)
    incident_id = report(world)
    busy.detected_at = clock.at
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    assert recorded(world, incident_id, "diagnosis")["cause"] == "threshold_change"
    asked = plan(world, incident_id)
    assert asked is not None
    assert asked.actions[0].target() == {"threshold": 0.5}
