"""The approver sees what fixed the last incident like this one."""

from __future__ import annotations

from datetime import timedelta

from mlrunbook.domain.resolution.plan_page import plan_markdown
from mlrunbook.response.investigation import similar_incidents
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.fakes import Clock, FileWorld
from tests.response.carrying import carry
from tests.response.people import approve, incident_of, plan, report


def test_the_second_bad_release_shows_what_fixed_the_first(world: World, file_world: FileWorld, clock: Clock) -> None:
    first = report(world)
    carry(world, first, "run-1")
    with world.transaction() as conn:
        assert similar_incidents.of(conn, incidents.get(conn, first)) == [], "an open incident is no precedent, nor its own"
    approve(world, first)
    clock.advance(minutes=2)
    assert carry(world, first, "run-1") == "closed"

    clock.advance(days=1)
    at = (clock() - timedelta(hours=2)).isoformat()
    file_world.set(serving="v2.0.0", previous="v1.5.0", deployed_at=at, released_by="deployment", released_before=[])
    second = report(world)
    carry(world, second, "run-2")
    with world.transaction() as conn:
        past = similar_incidents.of(conn, incident_of(world, second))
    assert [case.incident_id for case in past] == [first]
    assert "v1.5.0" in past[0].sentence
    assert "approval" not in past[0].sentence, "containment that was taken back fixed nothing"
    asked = plan(world, second)
    assert asked is not None
    assert f"- {first} of " in plan_markdown(asked, past)
