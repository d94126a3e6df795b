"""A second incident is measured against the time before the first one, not against its bad hours."""

from __future__ import annotations

from dataclasses import asdict

from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.incident import IncidentType
from mlrunbook.response.world import World
from tests.fakes import HEALTHY, Clock, FileWorld
from tests.response.carrying import carry
from tests.response.people import approve, recorded, report

SPOILT = Confusion(tp=600, fp=500, fn=500, tn=28_400)  # good and bad hours mixed: F1 .55


def a_bad_release_again(file_world: FileWorld, clock: Clock) -> None:
    file_world.set(serving="v2.0.0", previous="v1.5.0", deployed_at=clock().isoformat(), baseline=asdict(SPOILT))


def test_a_second_incident_is_as_severe_as_the_first_although_the_platforms_baseline_holds_its_bad_hours(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    first = report(world)
    carry(world, first, "run-1")
    approve(world, first)
    clock.advance(minutes=5)
    assert carry(world, first, "run-1") == "closed"
    clock.advance(hours=3)
    a_bad_release_again(file_world, clock)
    second = report(world)
    carry(world, second, "run-2")
    found = recorded(world, second, "triage")
    assert found["severity"] == "high"
    assert found["baseline"] == asdict(HEALTHY)


def test_after_a_week_the_platforms_baseline_counts_again(world: World, file_world: FileWorld, clock: Clock) -> None:
    first = report(world)
    carry(world, first, "run-1")
    approve(world, first)
    clock.advance(minutes=5)
    assert carry(world, first, "run-1") == "closed"
    clock.advance(days=8)
    a_bad_release_again(file_world, clock)
    second = report(world)
    carry(world, second, "run-2")
    assert recorded(world, second, "triage")["baseline"] == asdict(SPOILT)


def test_an_incident_that_opens_beside_another_is_measured_against_the_time_before_that_one(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    first = report(world)
    carry(world, first, "run-1")
    clock.advance(minutes=5)
    file_world.set(baseline=asdict(SPOILT))
    beside = report(world, type=IncidentType.BIAS_FAIRNESS)
    carry(world, beside, "run-2")
    assert recorded(world, beside, "triage")["baseline"] == asdict(HEALTHY)
