"""kill -9 after every write to the store, before and after every change: the next run carries on, every change was applied once."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from mlrunbook.base import db
from mlrunbook.base.clocks import Elapsed
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity, Status, Subtype
from mlrunbook.domain.policy.policy import Policy, Retraining
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.containment import evidence as evidence_step
from mlrunbook.response.lifecycle import severity_change
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, leases, outbox, records, timeline
from mlrunbook.store import regulatory_clocks as clocks
from tests.fakes import Clock, FileWorld, empty_store, world_of
from tests.response import test_bad_release, test_by_severity, test_paths_b_and_c, test_threshold_slip
from tests.response.carrying import carry
from tests.response.containment import test_emergency
from tests.response.people import approve, plan, report, resolve, say
from tests.response.resolution import test_serving_recovery


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """As `mlrunbook.base.db` makes it, but no connection is asked whether it lives: thousands of transactions, nobody restarts the
    server.
    """
    engine = create_engine(db.normalise_url(database_url), connect_args={"options": "-c timezone=UTC"})
    yield engine
    engine.dispose()


Prepare = Callable[[FileWorld], None]
UNWATCHED = Policy(retraining=Retraining(watch_s=0))  # else a promotion is watched for half an hour


class Killer:
    """Counts what the process does to the world and the store, and kills it at one point."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def __call__(self, _: str = "") -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


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


def walk(engine: Engine, state: Path, incident_id: str, holder: str, now: datetime, kill_at: int | None = None) -> int:
    """Run the runbook, approving what it asks; the points it passed."""
    killer = Killer(kill_at)
    clock = Clock(now)
    base = world_of(engine, FileWorld(state, clock, killer), clock, policy=UNWATCHED)
    world = _Tapped(**base.__dict__)
    world.__dict__["tap"] = killer
    if carry(world, incident_id, holder) == "pending":
        approve(base, incident_id)
        clock.advance(seconds=1)
        carry(world, incident_id, holder)
    return killer.count


def walk_breach(engine: Engine, state: Path, incident_id: str, holder: str, now: datetime, kill_at: int | None = None) -> int:
    """Isolated, lifted by the security officer, fixed by hand; the points it passed."""
    killer = Killer(kill_at)
    clock = Clock(now)
    base = world_of(engine, FileWorld(state, clock, killer), clock)
    world = _Tapped(**base.__dict__)
    world.__dict__["tap"] = killer
    for _ in range(4):
        if (ended := carry(world, incident_id, holder)) == "pending":
            assert plan(base, incident_id, PlanKind.ISOLATION)
            say(base, incident_id, "approved", PlanKind.ISOLATION, by="Security", role="security_officer")
        elif ended == "waiting for a human":
            resolve(base, incident_id, "revoked the stolen token")
        else:
            break
        clock.advance(seconds=61)
    return killer.count


def ordered(_: FileWorld) -> None:
    """A bad release, and the engineer on call has serving stopped before any run has begun."""


def raised(_: FileWorld) -> None:
    """A bad release, contained as high; then a person says that it is critical."""


def raise_it(world: World, incident_id: str) -> None:
    assert carry(world, incident_id, "run-0") == "pending"
    with world.transaction() as conn:
        said = severity_change.Said(Severity.CRITICAL, "the lead", "a gearbox broke")
        severity_change.say(conn, world.policy, incident_id, said, now=world.now())
        leases.request_start(conn, incident_id, why="the suspended run is gone", now=world.now())


Walk = Callable[..., int]


def killed_at(engine: Engine, state: Path, incident_id: str, holder: str, now: datetime, kill_at: int, walk: Walk = walk) -> bool:
    """`walk` in a process of its own; whether it was killed there."""
    pid = os.fork()
    if pid == 0:
        try:
            gc.disable()  # it would touch, and so copy, every page shared with the parent
            engine.dispose(close=False)  # the parent's connections stay the parent's
            walk(engine, state, incident_id, holder, now, kill_at)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _revive(world: World, now: datetime) -> None:
    """What the dispatcher's reconciler does with a lease whose run is gone, also one that died between parking and suspending."""
    with world.transaction() as conn:
        for awake_s in (0.0, 3600.0):
            leases.look(conn, here := Elapsed("the dispatcher's", awake_s, awake_s))
        for lease in leases.silent(conn, here):
            leases.request_start(conn, lease.incident_id, why="went silent", now=now)


@pytest.mark.parametrize(
    ("prepare", "expected", "every"),
    [
        pytest.param(lambda _: None, test_bad_release.EXPECTED, 4, id="bad-release"),
        pytest.param(ordered, test_bad_release.EXPECTED | {"scale:0": 1, "scale:1": 1}, 7, id="serving-stopped-on-a-persons-word"),
        pytest.param(raised, test_bad_release.EXPECTED, 9, id="severity-raised-by-a-person"),
        pytest.param(test_by_severity.all_high_risk, test_by_severity.ALL_HIGH_RISK, 7, id="all-high-risk"),
        pytest.param(FileWorld.slip, test_threshold_slip.EXPECTED, 7, id="threshold-slip"),
        pytest.param(test_paths_b_and_c.stale_features, test_paths_b_and_c.MATERIALIZED, 6, id="stale-features"),
        pytest.param(test_paths_b_and_c.concept_drift, test_paths_b_and_c.RETRAINED, 5, id="concept-drift"),
        pytest.param(test_serving_recovery.hung, test_serving_recovery.RESTARTED, 4, id="server-down"),
    ],
)
def test_killed_at_every_point_the_incident_still_closes_and_every_change_is_applied_once(
    prepare: Prepare, expected: dict[str, int], every: int, engine: Engine, world: World, tmp_path: Path, clock: Clock
) -> None:
    def fresh(name: str) -> tuple[Path, str]:
        empty_store(engine)
        prepare(FileWorld(tmp_path / name, clock))
        incident_id = report(world)
        if prepare is ordered:
            test_emergency.order(world, incident_id)
        if prepare is raised:
            raise_it(world_of(engine, FileWorld(tmp_path / name, clock), clock, policy=UNWATCHED), incident_id)
        return tmp_path / name, incident_id

    state, rehearsal = fresh("rehearsal.json")
    # In this process: the children inherit its imports and compiled statements.
    points = walk(engine, state, rehearsal, "run-0", clock.at + timedelta(seconds=1))
    assert points > 25, "the run was not tapped"
    wrong: list[str] = []
    for at in range(1, points + 1, every):
        state, incident_id = fresh(f"world-{at}.json")
        now = clock.at + timedelta(seconds=1)
        killed = killed_at(engine, state, incident_id, "run-1", now, at)
        for holder in ("run-1" if at % 2 else "run-2", "run-3"):
            now += timedelta(minutes=5)
            _revive(world, now)
            walk(engine, state, incident_id, holder, now)
        applied = FileWorld(state, clock).applied
        with world.transaction() as conn:
            status, chain = incidents.get(conn, incident_id).status, timeline.broken_at(conn, incident_id)
            reviewed, lease = records.get(conn, incident_id, "review") is not None, leases.get(conn, incident_id).state
        if (killed, status, applied, chain, reviewed, lease) != (True, Status.CLOSED, expected, None, True, "done"):
            wrong.append(f"point {at}: killed {killed}, {status}, reviewed {reviewed}, {lease}, {applied}, chain broken at {chain}")
    assert wrong == []


def test_killed_at_every_point_a_breach_is_isolated_once_preserved_once_and_lifted_by_the_decision_alone(
    engine: Engine, world: World, tmp_path: Path, clock: Clock
) -> None:
    def fresh(name: str) -> tuple[Path, str]:
        empty_store(engine)
        FileWorld(tmp_path / name, clock).set(bad_versions={})
        leak = {"by_alert": False, "description": "Names were sent to a stranger", "subtype": Subtype.DATA_LEAKAGE}
        return tmp_path / name, report(world, Severity.HIGH, IncidentType.SECURITY, **leak)  # type: ignore[arg-type]

    state, rehearsal = fresh("rehearsal.json")
    points = walk_breach(engine, state, rehearsal, "run-0", clock.at + timedelta(seconds=1))
    assert points > 25, "the run was not tapped"
    with world.transaction() as conn:
        bundle = {item.name for item in evidence.manifest(conn, rehearsal)}
    wrong: list[str] = []
    for at in range(1, points + 1, 4):
        state, incident_id = fresh(f"world-{at}.json")
        now = clock.at + timedelta(seconds=1)
        killed = killed_at(engine, state, incident_id, "run-1", now, at, walk_breach)
        for holder in ("run-1" if at % 2 else "run-2", "run-3"):
            now += timedelta(minutes=10)
            _revive(world, now)
            walk_breach(engine, state, incident_id, holder, now)
        applied = FileWorld(state, clock).applied
        with world.transaction() as conn:
            status, chain = incidents.get(conn, incident_id).status, timeline.broken_at(conn, incident_id)
            kept = {item.name for item in evidence.manifest(conn, incident_id)}
            preserved = sum(e.kind == "evidence" and "manifest" in e.data for e in timeline.read(conn, incident_id))
            running = {c.name for c in clocks.of_incident(conn, incident_id)}
            timers = len(outbox.of_incident(conn, incident_id, regulatory_clocks.TIMER))
            officers = [r for r in outbox.of_incident(conn, incident_id, "page") if ":alarm:" in r["dedup_key"]]
        whole = kept == bundle and evidence_step.check(world, incident_id) == []
        found = (killed, status, applied, chain, preserved, whole, running, timers, len(officers))
        if found != (True, Status.CLOSED, {"isolate:True": 1, "isolate:False": 1}, None, 1, True, {"gdpr", "ai_act"}, 2, 2):
            wrong.append(f"point {at}: {found}, kept {sorted(kept)}")
    assert wrong == []
