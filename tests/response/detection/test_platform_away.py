"""A platform that is away when triage looks: looked at again before the incident is taken for an outage of the platform."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.response.world import World
from tests.fakes import FileWorld
from tests.response.carrying import carry
from tests.response.people import incident_of, report, told


def test_away_for_one_look_the_model_is_measured_at_the_next_and_a_plan_is_made(world: World, file_world: FileWorld) -> None:
    file_world.down = True

    def comes_back(_: float) -> None:
        file_world.down = False

    incident_id = report(world)
    assert carry(replace(world, sleep=comes_back), incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).type is IncidentType.PERFORMANCE_DEGRADATION
    assert any(text.startswith("Look 1 of 3: the model platform cannot be reached") for text in told(world, incident_id))


def test_away_at_every_look_the_incident_is_real_and_of_the_infrastructure(world: World, file_world: FileWorld) -> None:
    file_world.down = True
    incident_id = report(world)
    assert carry(world, incident_id, "run-1").startswith("waiting for a human")
    incident = incident_of(world, incident_id)
    assert (incident.type, incident.severity) == (IncidentType.INFRASTRUCTURE, Severity.HIGH)
