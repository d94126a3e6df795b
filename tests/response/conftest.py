"""One incident at a time on an empty store, a clock that moves when told, and a world in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, report


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file_world(tmp_path: Path, clock: Clock) -> FileWorld:
    return FileWorld(tmp_path / "world.json", clock)


@pytest.fixture
def notifier() -> LedgerNotifier:
    return LedgerNotifier()


@pytest.fixture
def orchestrator() -> LedgerOrchestrator:
    return LedgerOrchestrator()


@pytest.fixture
def world(engine: Engine, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator) -> World:
    empty_store(engine)
    return world_of(engine, file_world, clock, notifier=notifier, orchestrator=orchestrator)


@pytest.fixture
def closed(world: World, clock: Clock) -> str:
    """A bad release, rolled back, recovered on the first outcomes, and closed."""
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    deliver(world)
    return incident_id
