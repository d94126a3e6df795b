"""One incident, a bad release, through every step on a real store; then killed at every point it can be killed at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from mlrunbook import db
from mlrunbook.approvals import decide
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.intake import take_in
from mlrunbook.store import evidence, incidents, journal, leases, outbox, plans, records, timeline
from mlrunbook.store.incidents import Report
from mlrunbook.wiring import World
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, world_of
from tests.steps.protocol import carry

EXPECTED = {
    "config:human_approval=True": 1,
    "config:auto_scheduling=False": 1,
    "rollback": 1,
    "config:human_approval=False": 1,
    "config:auto_scheduling=True": 1,
}


def report(world: World) -> str:
    """An alert says F1 fell."""
    told = Report(MODEL, IncidentType.PERFORMANCE_DEGRADATION, "performance", Severity.MEDIUM, "F1 fell 40 %", "alertmanager")
    with world.transaction() as conn:
        return take_in(conn, world.policy, told, now=world.now(), by_alert=True)[0].id


def approve(world: World, incident_id: str) -> None:
    with world.transaction() as conn:
        plan = plans.current(conn, incident_id, PlanKind.RESOLUTION)
        assert plan is not None
        decide(
            conn,
            world.policy,
            incident_id,
            plan.digest,
            decision="approved",
            approver="the lead",
            role="ml_team_lead",
            door="rest",
            verified=True,
            reason="",
            now=world.now(),
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file_world(tmp_path: Path, clock: Clock) -> FileWorld:
    return FileWorld(tmp_path / "world.json", clock)


@pytest.fixture
def world(engine: Engine, file_world: FileWorld, clock: Clock) -> World:
    with engine.begin() as conn:  # an earlier test of this module may have left an open incident of the same model
        conn.exec_driver_sql("UPDATE incidents SET status = 'closed'")
    return world_of(engine, file_world, clock)


def test_a_bad_release_is_contained_rolled_back_verified_told_and_closed(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        assert (incident.severity, incident.status) == (Severity.HIGH, Status.CONTAINED)
        assert records.get(conn, incident_id, "diagnosis")["path"] == "rollback"
    assert file_world.state["config"] | {"threshold": 0} == {
        "threshold": 0,
        "human_approval": True,
        "auto_work_orders": True,
        "auto_scheduling": False,
    }
    assert file_world.state["serving"] == "v2.0.0", "nothing is rolled back before somebody approved it"

    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert file_world.applied == EXPECTED
    assert file_world.state["serving"] == "v1.5.0"
    assert file_world.state["config"]["auto_scheduling"] is True, "containment is taken back"
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        assert incident.status is Status.CLOSED
        assert incident.review_due_at == incident.resolved_at + timedelta(hours=48)
        assert timeline.broken_at(conn, incident_id) is None
        assert "# Post-Incident Review" in records.get(conn, incident_id, "review")["markdown"]
        assert {item.name for item in evidence.manifest(conn, incident_id)} >= {"metrics.json", "predictions.json", "config.json"}
        assert all(row.settled for row in journal.of_incident(conn, incident_id))


def test_evidence_is_preserved_before_the_first_change(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        kinds = [e.kind for e in timeline.read(conn, incident_id)]
    assert kinds.index("evidence") < kinds.index("action")


def test_a_rejected_plan_changes_nothing(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        digest = plans.current(conn, incident_id, PlanKind.RESOLUTION).digest
        decide(
            conn,
            world.policy,
            incident_id,
            digest,
            decision="rejected",
            approver="the lead",
            role="ml_team_lead",
            door="rest",
            verified=True,
            reason="wrong version",
            now=world.now(),
        )
    assert carry(world, incident_id, "run-1") == "rejected"
    assert "rollback" not in file_world.applied


class Killer:
    """Counts what the process does to the world and the store, and kills it at one point."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def __call__(self, _: str = "") -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def child(database_url: str, state: Path, incident_id: str, holder: str, now: datetime, kill_at: int | None, decide_now: bool) -> int:
    """Run the protocol in a process of its own; the number of points passed, or 0 when it was killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            killer = Killer(kill_at)
            engine = create_engine(db.normalise_url(database_url))
            clock = Clock(now)
            base = world_of(engine, FileWorld(state, clock, killer), clock)
            world = _Tapped(**{**base.__dict__})
            world.__dict__["tap"] = killer
            outcome = carry(world, incident_id, holder)
            if outcome == "pending" and decide_now:
                approve(base, incident_id)
                outcome = carry(world, incident_id, holder)
            os.write(write, f"{killer.count} {outcome}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return int(said.split()[0]) if said else 0


class _Tapped(World):
    """A world in which every transaction that writes is a point to be killed at, once it has committed."""

    def transaction(self) -> AbstractContextManager[Connection]:
        return self._tapped()

    @contextmanager
    def _tapped(self) -> Iterator[Connection]:
        written: list[str] = []

        def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(("INSERT", "UPDATE", "DELETE")):
                written.append(statement)

        with db.transaction(self.engine) as conn:
            event.listen(conn, "after_cursor_execute", note)
            yield conn
        if written:
            self.__dict__["tap"]()


def test_killed_at_every_point_the_incident_still_closes_and_every_change_is_applied_once(
    database_url: str, world: World, tmp_path: Path, clock: Clock
) -> None:
    """kill -9 after every write to the store, before and after every change; the next run carries on once the lease has expired."""
    rehearsal = report(world)
    points = child(database_url, tmp_path / "rehearsal.json", rehearsal, "run-0", clock.at, None, True)
    assert points > 40, "the protocol was not tapped"
    wrong: list[str] = []
    for at in range(1, points + 1):
        clock.advance(hours=3)  # out of the hour that the guardrail on automatic changes counts
        incident_id = report(world)
        state = tmp_path / f"world-{at}.json"
        killed = child(database_url, state, incident_id, "run-1", clock.at, at, True) == 0
        later = clock.at
        for holder in ("run-1" if at % 2 else "run-2", "run-3"):
            later += timedelta(minutes=5)
            _revive(world, later)
            child(database_url, state, incident_id, holder, later, None, True)
        applied = FileWorld(state, clock).applied
        with world.transaction() as conn:
            status, chain = incidents.get(conn, incident_id).status, timeline.broken_at(conn, incident_id)
            if not killed or status is not Status.CLOSED or applied != EXPECTED or chain is not None:
                wrong.append(f"point {at}: killed {killed}, {status}, applied {applied}, chain broken at {chain}")
            conn.exec_driver_sql("UPDATE incidents SET status = 'closed' WHERE status <> 'closed'")
    assert wrong == []


def _revive(world: World, now: datetime) -> None:
    """What the dispatcher's reconciler does with a lease whose run is gone, also one that died between parking and suspending."""
    with world.transaction() as conn:
        for lease in leases.expired(conn, now=now):
            leases.request_start(conn, lease.incident_id, why="went silent", now=now)


def test_nobody_is_paged_after_the_resolution(world: World, clock: Clock) -> None:
    notifier = LedgerNotifier()
    world = World(**{**world.__dict__, "notifier": notifier})
    incident_id = report(world)
    dispatcher = Dispatcher(world)
    carry(world, incident_id, "run-1")
    while dispatcher.turn():
        pass
    assert {"On-Call ML Engineer", "ML Team Lead"} <= {m.body.split(":")[0] for m in notifier.pages()}
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    clock.advance(minutes=1)
    while dispatcher.turn():
        pass
    told = len(notifier.sent)
    clock.advance(hours=5)
    while dispatcher.turn():
        pass
    assert len(notifier.sent) == told
    with world.transaction() as conn:
        assert all(row["delivered_at"] or row["cancelled_at"] for row in outbox.of_incident(conn, incident_id))
