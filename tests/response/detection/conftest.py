"""A world whose platform counts outcomes by block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld
from tests.response.detection.counting import Counting


@pytest.fixture
def platform(file_world: FileWorld, clock: Clock) -> Counting:
    file_world.set(bad_versions={})
    return Counting(file_world.path, clock)


@pytest.fixture
def counting(world: World, platform: Counting) -> World:
    return replace(world, platform=platform)
