"""What other systems told counts among the recent changes like what the model platform wrote down itself."""

from __future__ import annotations

from datetime import timedelta

from mlrunbook.domain.observed import Change
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.world import World
from mlrunbook.store import recent_changes as changes
from tests.fakes import MODEL, Clock
from tests.response.carrying import carry
from tests.response.people import recorded, report


def tell(world: World, change: Change) -> None:
    with world.transaction() as conn:
        changes.put(conn, MODEL, change, source="ci", now=world.now())


def test_a_pipeline_change_that_was_told_is_found_in_the_investigation(world: World, clock: Clock) -> None:
    tell(world, Change("data_pipeline", "etl-7", "the pipeline", clock() - timedelta(hours=3)))
    incident = report(world)
    carry(world, incident, "run-1")
    found = recorded(world, incident, "findings:recent_changes")
    (pipelines,) = [f for f in found["findings"] if f["key"] == "recent_changes.data_pipeline_changes"]
    assert "data_pipeline etl-7 by the pipeline, 3 h ago" in pipelines["sentence"]


def test_newest_first_and_what_both_tell_of_is_told_once(world: World, clock: Clock) -> None:
    (own,) = recent_changes.of_model(world, MODEL, since=clock() - timedelta(days=7))
    tell(world, Change(own.kind, own.ref, "the registry", own.at + timedelta(minutes=5)))
    tell(world, Change("feature_store", "apply", "the feature team", clock() - timedelta(minutes=1)))
    tell(world, Change("config", "long ago", "somebody", clock() - timedelta(days=8)))
    found = recent_changes.of_model(world, MODEL, since=clock() - timedelta(days=7))
    assert [(c.kind, c.author) for c in found] == [("feature_store", "the feature team"), (own.kind, own.author)]


def test_what_others_tell_cuts_no_measurement_short(world: World, clock: Clock) -> None:
    """Told once a minute, it would leave the monitor, triage and the look after the closing nothing to measure."""
    since = clock() - timedelta(days=7)
    (own,) = recent_changes.that_bound_windows(world, MODEL, since=since)
    for kind in ("deployment", "rollback", "config", "feature_store"):
        tell(world, Change(kind, "a thing", "anybody", clock() - timedelta(seconds=1)))
    assert recent_changes.that_bound_windows(world, MODEL, since=since) == [own]
