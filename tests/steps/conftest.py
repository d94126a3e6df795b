"""One incident at a time on an empty store, a clock that moves when told, and a world in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.wiring import World
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of


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
