"""What other systems told counts among the recent changes like what the model platform wrote down itself."""

from __future__ import annotations

from datetime import timedelta

from mlrunbook.domain.actions import Order, Restart
from mlrunbook.domain.observed import Change
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.measurement import metrics, recent_changes
from mlrunbook.response.world import World
from mlrunbook.store import journal
from mlrunbook.store import recent_changes as changes
from tests.fakes import MODEL, Clock, FileWorld
from tests.response.carrying import carry
from tests.response.containment.test_emergency import order
from tests.response.people import approve, recorded, report


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


def test_a_report_just_after_a_fixed_threshold_is_not_judged_by_what_the_wrong_one_did(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    """No platform writes down what we changed of the config: the journal does."""
    file_world.slip()
    incident = report(world)
    clock.advance(seconds=20)
    carry(world, incident, "run-1")
    approve(world, incident)
    clock.advance(minutes=2)
    assert carry(world, incident, "run-1") == "closed"
    with world.transaction() as conn:
        fixed_at = max(row.done_at for row in journal.of_incident(conn, incident) if row.kind == Restart.kind and row.done_at)

    clock.advance(seconds=70)
    again = report(world)
    run = runs.take(world, again, "run-2")
    assert run is not None
    assert metrics.window_start(run) >= fixed_at
    assert recent_changes.that_bound_windows(world, MODEL, since=fixed_at)[0].author == "mlrunbook"


def test_a_switch_that_changes_no_prediction_cuts_no_measurement_short(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident = report(world)
    order(world, incident, Order.HALT_WORK_ORDERS)
    carry(world, incident, "run-1")
    assert file_world.state["config"]["auto_work_orders"] is False
    assert incident not in {change.ref for change in recent_changes.that_bound_windows(world, MODEL, since=clock() - timedelta(days=7))}
