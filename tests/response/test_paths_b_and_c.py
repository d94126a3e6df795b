"""Path B mends what the model reads, path C what it learned; what neither can mend goes to a human."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from mlrunbook.domain.actions import Materialize, Promote, ResumeMaterialization
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.policy import Policy, Retraining
from mlrunbook.ports import ModelPlatform
from mlrunbook.response.communication.notifications import actions_taken
from mlrunbook.response.world import World
from tests import fake_features
from tests.fakes import Clock, FileWorld, LedgerNotifier, empty_store
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, say, told

SOUND = {"features": fake_features.START}
CONTAINED = {"config:human_approval=True": 1, "config:auto_scheduling=False": 1}
TAKEN_BACK = {"config:human_approval=False": 1, "config:auto_scheduling=True": 1}
MATERIALIZED = CONTAINED | {"materialize:asset_sensors,asset_wear": 1, "resume:asset_sensors,asset_wear": 1} | TAKEN_BACK
RETRAINED = CONTAINED | {"train:v2.1.0": 1, "register:v2.1.0": 1, "stage:v2.1.0": 1, "promote:v2.1.0": 1} | TAKEN_BACK


def an_old_sound_release(file_world: FileWorld, **changes: Any) -> None:
    long_ago = (file_world._now() - timedelta(days=60)).isoformat()
    file_world.set(**({"serving": "v1.5.0", "previous": "v1.4.0", "deployed_at": long_ago, "bad_versions": {}} | changes))


def stale_features(file_world: FileWorld) -> None:
    an_old_sound_release(file_world, features=fake_features.START | {key: list(fake_features.VIEWS) for key in ("stale", "suspended")})


def concept_drift(file_world: FileWorld) -> None:
    """Nothing was changed, and every version there is answers badly."""
    an_old_sound_release(file_world, bad_versions=dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0"), "degraded"))


@pytest.fixture
def unwatched(world: World) -> World:
    return replace(world, policy=Policy(retraining=Retraining(watch_s=0)))


class UnmeasuredOncePromoted:
    """The platform, which has no figures any more once the candidate serves."""

    def __init__(self, platform: FileWorld) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)

    def metrics(self, model: str, **window: Any) -> ModelMetrics:
        if self._platform.state["serving"] == "v2.1.0":
            raise Transient("the metrics of predictive_maintenance are not computed: try again later")
        return self._platform.metrics(model, **window)


def approved(world: World, clock: Clock, incident_id: str) -> str:
    """How the run ends once the plan is approved."""
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    clock.advance(minutes=2)
    return carry(world, incident_id, "run-1")


class TestPathB:
    def test_stale_features_are_materialized_after_approval_and_their_schedule_runs_again(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        stale_features(file_world)
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        asked = plan(world, incident_id)
        assert asked is not None
        assert [type(a) for a in asked.actions] == [Materialize, ResumeMaterialization]
        assert "materialize" not in " ".join(file_world.applied), "nothing is loaded before somebody approved it"
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert file_world.applied == MATERIALIZED
        assert incident_of(world, incident_id).status is Status.CLOSED
        assert recorded(world, incident_id, "diagnosis")["cause"] == "stale_features"

    def test_a_feature_empty_online_alone_is_loaded_again_from_its_whole_source(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        an_old_sound_release(file_world, features=fake_features.START | {"empty": {"torque_nm": "online"}})
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "closed"
        assert file_world.applied["materialize:asset_sensors"] == 1
        asked = plan(world, incident_id)
        assert asked is not None
        assert [a.since is not None for a in asked.actions if isinstance(a, Materialize)] == [True], "an incremental run would skip them"

    def test_a_feature_empty_at_its_source_goes_to_a_human_with_the_finding(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        an_old_sound_release(file_world, features=fake_features.START | {"empty": {"torque_nm": "source"}})
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        deliver(world)
        assert any("find where the feature's values are lost" in m.body for m in notifier.pages())
        assert not [kind for kind in file_world.applied if kind.startswith("materialize")]

        file_world.set(**SOUND)
        clock.advance(minutes=30)
        resolve(world, incident_id, "the pipeline is mended")
        clock.advance(minutes=5)
        assert carry(world, incident_id, "run-2") == "closed"

    def test_a_feature_store_that_cannot_be_read_is_left_to_people(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        an_old_sound_release(file_world, features=fake_features.START | {"out": "a session holds its tables"})
        incident_id = report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False, description="predictions fail")
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert recorded(world, incident_id, "diagnosis")["cause"] == "feature_store_outage"
        deliver(world)
        assert any("restore the feature store" in m.body for m in notifier.pages())

    def test_a_critical_incident_of_blind_features_stops_serving_and_serves_again_with_the_repair(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        """Another version would be as blind: traffic is not sent there."""
        stale_features(file_world)
        file_world.set(bad_versions={"v1.5.0": "dangerous"})
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        assert (file_world.state["replicas"], file_world.state["route"]) == (0, None)
        file_world.set(bad_versions={})
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        assert (file_world.state["replicas"], file_world.applied["scale:1"]) == (1, 1)


class TestPathC:
    def test_concept_drift_is_retrained_on_proved_approved_promoted_and_verified(
        self, unwatched: World, file_world: FileWorld, clock: Clock
    ) -> None:
        concept_drift(file_world)
        incident_id = report(unwatched)
        assert carry(unwatched, incident_id, "run-1") == "pending"
        assert file_world.state["serving"] == "v1.5.0", "nothing promotes alone"
        asked = plan(unwatched, incident_id)
        assert asked is not None
        assert [a.version for a in asked.actions if isinstance(a, Promote)] == ["v2.1.0"]
        assert any(r.startswith("validation: ") for r in asked.reasons)
        assert any(r.startswith("shadow: ") for r in asked.reasons)
        approve(unwatched, incident_id)
        clock.advance(minutes=2)
        assert carry(unwatched, incident_id, "run-1") == "closed"
        assert file_world.applied == RETRAINED
        assert file_world.state["serving"] == "v2.1.0"

    def test_assets_of_a_new_type_are_named_and_retrained_on(self, unwatched: World, file_world: FileWorld, clock: Clock) -> None:
        concept_drift(file_world)
        file_world.set(asset_types=["L", "XL"])
        incident_id = report(unwatched)
        assert approved(unwatched, clock, incident_id) == "closed"
        assert recorded(unwatched, incident_id, "diagnosis")["cause"] == "new_segment"
        assert "XL" in recorded(unwatched, incident_id, "review")["markdown"]

    def test_a_candidate_that_is_no_better_goes_to_a_human_with_the_reason(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier
    ) -> None:
        concept_drift(file_world)
        file_world.set(bad_versions=file_world.state["bad_versions"] | {"v2.1.0": "degraded"})
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        deliver(world)
        assert any("the retrained candidate is not promoted: " in m.body for m in notifier.pages())
        assert (file_world.state["serving"], file_world.state["staging"]) == ("v1.5.0", None)

    def test_a_cause_that_policy_does_not_list_is_not_retrained_on_by_itself(self, world: World, file_world: FileWorld) -> None:
        concept_drift(file_world)
        careful = replace(world, policy=Policy(retraining=Retraining(triggers=(Cause.NEW_SEGMENT,))))
        incident_id = report(careful)
        assert carry(careful, incident_id, "run-1") == "waiting for a human"
        assert "train:v2.1.0" not in file_world.applied

    def test_a_promotion_is_watched_and_the_incident_stays_open_until_the_watch_is_over(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "too early to say"
        assert incident_of(world, incident_id).status is Status.MONITORING
        clock.advance(seconds=world.policy.retraining.watch_s)
        assert carry(world, incident_id, "run-2") == "closed"
        assert file_world.applied == RETRAINED
        assert file_world.state["staging"] is None
        with world.transaction() as conn:
            (staged,) = [said for said in actions_taken(conn, incident_id) if said.startswith("Staged")]
        assert staged == "Staged v2.1.0 in the shadow (until it was promoted, which emptied the slot)"

    def test_a_promoted_version_that_falls_within_the_watch_gives_way_to_the_one_before_by_itself(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "too early to say"
        file_world.set(bad_versions=file_world.state["bad_versions"] | {"v2.1.0": "degraded"})
        for holder in ("run-2", "run-3"):
            clock.advance(minutes=2)
            carry(world, incident_id, holder)
        assert file_world.state["serving"] == "v1.5.0"
        assert file_world.applied["rollback"] == 1
        assert incident_of(world, incident_id).status is Status.INVESTIGATING
        deliver(world)
        assert any("the fix did not work" in m.body for m in notifier.pages())
        assert "did not hold within the watch window" in " ".join(told(world, incident_id, "containment"))

    def test_a_promoted_version_that_cannot_be_measured_serves_on_and_a_person_decides(
        self, unwatched: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        """It has proved better before it was promoted, and what it replaced was failing: taking it back would be a change without a
        reason.
        """
        concept_drift(file_world)
        incident_id = report(unwatched)
        blind = replace(unwatched, platform=cast(ModelPlatform, UnmeasuredOncePromoted(file_world)))
        assert approved(blind, clock, incident_id) == "too early to say"
        clock.advance(minutes=90)
        assert carry(blind, incident_id, "run-2") == "not recovered"
        assert file_world.state["serving"] == "v2.1.0"
        assert "rollback" not in file_world.applied
        assert incident_of(unwatched, incident_id).status.is_open
        deliver(unwatched)
        assert any("cannot be measured" in m.body for m in notifier.pages())

    def test_a_rejected_promotion_changes_nothing_and_empties_the_staging_slot(self, world: World, file_world: FileWorld) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        say(world, incident_id, "rejected")
        assert carry(world, incident_id, "run-1") == "rejected"
        assert (file_world.state["serving"], file_world.state["staging"]) == ("v1.5.0", None)


@pytest.fixture(autouse=True)
def _empty(world: World) -> None:
    empty_store(world.engine)
