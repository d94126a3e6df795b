"""The runbook on MLflow: a bad release is rolled back by moving the alias, once, whenever the process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from mlrunbook.base import db
from mlrunbook.domain.incident import Status
from mlrunbook.domain.policy.connections import RegistryPart, Serving
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.world import World
from mlrunbook.store import incidents, records, timeline
from tests.fake_mlflow import FakeMlflow
from tests.fakes import MODEL, Clock, FileWorld, empty_store
from tests.response.carrying import carry
from tests.response.composed import BAD, GOOD, composed, policy_with, released_badly
from tests.response.people import approve, plan, report
from tests.response.test_killed import Killer, _revive, _Tapped, killed_at

BY_THE_REGISTRY_ALONE = policy_with()
WITH_SERVERS = policy_with(Serving.KUBERNETES, RegistryPart("ml", previous_alias="previous"))
SWITCHES = {
    "config:human_approval=True": 1,
    "config:human_approval=False": 1,
}
MOVED = {f"champion:{GOOD}": 1}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(db.normalise_url(database_url), connect_args={"options": "-c timezone=UTC"})
    yield engine
    engine.dispose()


def fresh(engine: Engine, folder: Path, clock: Clock, policy: Policy) -> tuple[World, str]:
    empty_store(engine)
    world = composed(engine, folder, clock, policy)
    released_badly(world, FakeMlflow(folder / "mlflow.json"), clock)
    return world, report(world)


def test_without_a_server_to_manage_path_a_works_by_the_registry_alone(engine: Engine, tmp_path: Path) -> None:
    clock = Clock()
    world, incident_id = fresh(engine, tmp_path, clock, BY_THE_REGISTRY_ALONE)
    assert carry(world, incident_id, "run-1") == "pending"
    proposed = plan(world, incident_id)
    assert [action.target() for action in proposed.actions] == [{"target_version": GOOD}]
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert FakeMlflow(tmp_path / "mlflow.json").applied == MOVED
    assert FileWorld(tmp_path / "world.json", clock).applied == {}


def test_a_version_that_somebody_deletes_during_the_incident_is_on_its_timeline(engine: Engine, tmp_path: Path) -> None:
    clock = Clock()
    world, incident_id = fresh(engine, tmp_path, clock, BY_THE_REGISTRY_ALONE)
    carry(world, incident_id, "run-1")
    FakeMlflow(tmp_path / "mlflow.json").delete_version(MODEL, BAD)
    clock.advance(minutes=1)
    world.platform.changes(MODEL, since=clock.at)
    with world.transaction() as conn:
        told = [entry.text for entry in timeline.read(conn, incident_id) if entry.kind == "change"]
    assert len(told) == 1
    assert "deleted" in told[0]


def test_an_alias_that_somebody_moves_after_the_approval_is_not_moved_over(engine: Engine, tmp_path: Path) -> None:
    clock = Clock()
    world, incident_id = fresh(engine, tmp_path, clock, BY_THE_REGISTRY_ALONE)
    mlflow = FakeMlflow(tmp_path / "mlflow.json")
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    mlflow.set_alias(MODEL, "champion", GOOD)  # the same idea
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert mlflow.applied == {}


class _Noting(Killer):
    """Remembers which of the points were changes of the registry, or of the servers that follow it."""

    def __init__(self, at: int | None) -> None:
        super().__init__(at)
        self.changes: list[int] = []

    def __call__(self, what: str = "") -> None:
        if what.partition(" ")[2].startswith(("champion", "restart")):
            self.changes.append(self.count + 1)
        super().__call__(what)

    @property
    def worth_it(self) -> list[int]:
        """Each change, and what is written just before and after it; of all else every fortieth."""
        near = {at + by for at in self.changes for by in (-1, 0, 1)}
        return sorted(at for at in near | set(range(1, self.count + 1, 40)) if 1 <= at <= self.count)


def walk(
    engine: Engine, folder: Path, incident_id: str, holder: str, now: datetime, kill_at: int | None = None, *, policy: Policy
) -> _Noting:
    killer, clock = _Noting(kill_at), Clock(now)
    base = composed(engine, folder, clock, policy, killer)
    world = _Tapped(**base.__dict__)
    world.__dict__["tap"] = killer
    if carry(world, incident_id, holder) == "pending":
        approve(base, incident_id)
        clock.advance(seconds=1)
        carry(world, incident_id, holder)
    return killer


@pytest.mark.parametrize(
    ("policy", "at_the_servers"),
    [
        pytest.param(BY_THE_REGISTRY_ALONE, {}, id="by-the-registry-alone"),
        pytest.param(WITH_SERVERS, {**SWITCHES, "restart": 1}, id="and-a-restart-of-the-servers"),
    ],
)
def test_killed_around_every_change_the_alias_is_moved_once_and_the_servers_are_told_once(
    policy: Policy, at_the_servers: dict[str, int], engine: Engine, tmp_path: Path
) -> None:
    def walked(*args: Any, **kwargs: Any) -> _Noting:
        return walk(*args, policy=policy, **kwargs)

    clock = Clock()
    _, rehearsal = fresh(engine, tmp_path / "rehearsal", clock, policy)
    points = walked(engine, tmp_path / "rehearsal", rehearsal, "run-0", clock.at + timedelta(seconds=1))
    assert points.count > 25, "the run was not tapped"
    assert points.changes, "nothing was changed"
    wrong: list[str] = []
    for at in points.worth_it:
        folder = tmp_path / f"at-{at}"
        world, incident_id = fresh(engine, folder, clock, policy)
        now = clock.at + timedelta(seconds=1)
        killed = killed_at(engine, folder, incident_id, "run-1", now, at, walked)
        for holder in ("run-1" if at % 2 else "run-2", "run-3"):
            now += timedelta(minutes=5)
            _revive(world, now)
            walked(engine, folder, incident_id, holder, now)
        mlflow, applied = FakeMlflow(folder / "mlflow.json"), FileWorld(folder / "world.json", clock).applied
        moved = {what: count for what, count in mlflow.applied.items() if what.startswith("champion")}
        with world.transaction() as conn:
            status, chain = incidents.get(conn, incident_id).status, timeline.broken_at(conn, incident_id)
            reviewed = records.get(conn, incident_id, "review") is not None
        if (killed, status, moved, applied, chain, reviewed) != (True, Status.CLOSED, MOVED, at_the_servers, None, True):
            wrong.append(f"point {at}: killed {killed}, {status}, reviewed {reviewed}, {mlflow.applied}, {applied}, chain {chain}")
    assert wrong == []
