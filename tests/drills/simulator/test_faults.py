"""Each fault does to the model what its truth says, on every seed tried; measured without any server."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mlrunbook.domain.actions import Path
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.drills.simulator.faults import FAULTS, BadRelease, Blip, ConceptDrift, OrdinaryWeek, SensorOffset, ThresholdSlip, fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.simulator import INJECTED, REPAIRED
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.platform.training import confusion, train

TO = datetime(2024, 6, 1, tzinfo=UTC)
ANY_THRESHOLD = np.unique(np.concatenate([np.logspace(-4, -1, 30), np.arange(0.1, 0.999, 0.01)]))


class World:
    """A fleet, the good version trained on it, and 60,000 live readings to judge releases by."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.fleet = Fleet(seed)
        self.good = self.train(self.fleet.training(40_000))
        self.live = self.fleet.readings(60_000)
        self.truth = self.live["failed"].to_numpy()
        self.baseline = self.f1(self.good.score(self.live), self.good.manifest.threshold)

    def train(self, frame: Any) -> LoadedModel:
        estimator, manifest = train(frame, model="m", version="v", seed=0, trained_from=TO, trained_to=TO)
        return LoadedModel(manifest, estimator)

    def release(self, name: str) -> LoadedModel:
        bad = fault(name)
        assert isinstance(bad, BadRelease)
        frame = self.fleet.training(40_000)
        return self.train(frame.assign(failed=bad.mislabel(frame, bad.magnitude, np.random.default_rng(self.seed))))

    def f1(self, scores: Any, threshold: float) -> float:
        return confusion(self.truth, scores >= threshold).f1 or 0.0

    def f1_of(self, live: Any) -> float:
        """Of the good version on these readings."""
        return confusion(live["failed"].to_numpy(), self.good.score(live) >= self.good.manifest.threshold).f1 or 0.0

    def drop(self, f1: float) -> float:
        return 1 - f1 / self.baseline


@pytest.fixture(scope="module", params=[1, 2])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_a_bad_release_costs_far_more_than_20_percent_of_f1_and_no_threshold_mends_it(world: World) -> None:
    bad = world.release("bad-release")
    scores = bad.score(world.live)
    for threshold in (bad.manifest.threshold, world.good.manifest.threshold):
        assert world.drop(world.f1(scores, threshold)) > 0.3
    assert min(world.drop(world.f1(scores, t)) for t in ANY_THRESHOLD) > 0.2
    assert (scores >= world.good.manifest.threshold).mean() < 0.1


def test_a_bad_release_looks_fine_to_the_team_that_trained_it(world: World) -> None:
    assert (world.release("bad-release").manifest.metrics["f1"] or 0) > 0.8


def test_a_mild_release_costs_10_to_20_percent_of_f1(world: World) -> None:
    mild = world.release("mild-release")
    scores = mild.score(world.live)
    assert 0.10 < world.drop(world.f1(scores, mild.manifest.threshold)) < 0.20
    assert 0.10 < world.drop(world.f1(scores, world.good.manifest.threshold)) < 0.20


def test_an_all_high_risk_release_flags_every_asset_whatever_the_threshold_in_force(world: World) -> None:
    release = world.release("all-high-risk")
    scores = release.score(world.live)
    for threshold in (release.manifest.threshold, world.good.manifest.threshold):
        assert (scores >= threshold).mean() > 0.98


def test_a_slipped_threshold_ruins_precision_but_leaves_most_assets_alone(world: World) -> None:
    slip = fault("threshold-slip")
    assert isinstance(slip, ThresholdSlip)
    scores = world.good.score(world.live)
    counts = confusion(world.truth, scores >= slip.threshold)
    assert world.drop(counts.f1 or 0) > 0.3
    assert (counts.precision or 0) < 0.5 < (counts.recall or 0)
    assert (scores >= slip.threshold).mean() < 0.4


def test_a_sensor_that_reads_too_high_costs_more_than_20_percent_of_f1_and_is_no_danger(world: World) -> None:
    offset = fault("sensor-offset")
    assert isinstance(offset, SensorOffset)
    read = world.live.assign(**{offset.feature: world.live[offset.feature] + offset.offset})
    counts = confusion(world.truth, world.good.score(read) >= world.good.manifest.threshold)
    assert 0.3 < world.drop(counts.f1 or 0) < 0.7
    assert (counts.recall or 0) > 0.3


def test_a_biased_segment_fails_one_type_badly_while_f1_over_all_hides_it(world: World) -> None:
    drift = fault("biased-segment")
    assert isinstance(drift, ConceptDrift)
    fleet = copy.deepcopy(world.fleet)
    fleet.limit_power(*drift.limits_w, asset_type=drift.asset_type)
    live = fleet.readings(40_000)
    hit = live["type"] == drift.asset_type
    assert hit.mean() < 0.15
    before = world.f1_of(world.live[world.live["type"] == drift.asset_type])
    assert 1 - world.f1_of(live[hit]) / before > 0.25
    assert world.drop(world.f1_of(live)) < 0.10
    assert world.f1_of(live[~hit]) == pytest.approx(world.f1_of(world.live[world.live["type"] != drift.asset_type]), rel=0.03)


def test_nothing_is_wrong_on_any_day_of_an_ordinary_week(world: World) -> None:
    week = fault("nothing-wrong")
    assert isinstance(week, OrdinaryWeek)
    fleet = copy.deepcopy(world.fleet)
    fleet.swing(week.uses_a_day, air_k=week.air_k, load_nm=week.load_nm)
    for _ in range(7):
        assert abs(world.drop(world.f1_of(fleet.readings(6000)))) < 0.10


def test_every_fault_says_how_it_must_end() -> None:
    quiet = {name for name, f in FAULTS.items() if f.truth.status is Status.FALSE_ALARM}
    assert quiet == {"blip", "nothing-wrong"}
    assert {name for name, f in FAULTS.items() if f.truth.diagnosed is None} == quiet
    assert not [name for name in quiet if FAULTS[name].truth.path]
    assert {f.truth.status for name, f in FAULTS.items() if name not in quiet} == {Status.CLOSED}
    assert {name for name, f in FAULTS.items() if f.truth.path is Path.RETRAIN} == {"new-asset-type", "concept-drift"}
    by_people = {
        "null-feature",
        "feature-store-down",
        "bad-candidate",
        "sensor-offset",
        "biased-segment",
        "late-labels",
        "adversarial-burst",
    }
    assert by_people <= {name for name, f in FAULTS.items() if f.truth.path is None} - quiet
    assert FAULTS["all-high-risk"].truth.severity is Severity.CRITICAL
    assert isinstance(FAULTS["blip"], Blip)


def test_an_unknown_fault_is_refused_with_the_list() -> None:
    with pytest.raises(NotFound, match="bad-release"):
        fault("meteor")


def test_the_simulator_knows_how_to_inject_every_fault_and_to_repair_those_that_people_fix() -> None:
    for one in FAULTS.values():
        assert type(one) in INJECTED, one.name
        if one.truth.path is None and one.truth.status is Status.CLOSED:
            assert type(one) in REPAIRED, one.name
