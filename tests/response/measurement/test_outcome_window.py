"""Models whose outcomes come days later, or a few an hour: the fall is measured on the predictions that are old enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.investigation.findings import State
from mlrunbook.domain.observed import Prediction
from mlrunbook.response.investigation import investigation
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from tests.fakes import MODEL, T0, Clock, FileWorld, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import incident_of, recorded, report, told

WEEK = timedelta(days=7)
LOG = timedelta(days=120)
FAILURES, CAUGHT, FALSE_ALARMS = 0.2, 0.9, 0.03


class SlowOutcomes(FileWorld):
    """A platform that counts a log of `an_hour` predictions an hour, each with an outcome `delay` later. From `fell_at` on the model
    catches a third of the failures."""

    def __init__(self, path: Path, clock: Clock, *, delay: timedelta, an_hour: int, fell_at: datetime | None) -> None:
        super().__init__(path, clock)
        self.set(serving="v1.5.0", previous="v1.4.0", deployed_at=(T0 - LOG).isoformat())
        dice, self.delay = Random(5), delay
        self.log: list[tuple[datetime, str]] = []
        for n in range(int(LOG / timedelta(hours=1)) * an_hour):
            at = T0 - LOG + n * timedelta(hours=1) / an_hour
            caught = CAUGHT / 3 if fell_at and at >= fell_at else CAUGHT
            failed = dice.random() < FAILURES
            flagged = dice.random() < (caught if failed else FALSE_ALARMS)
            self.log.append((at, ("tp" if flagged else "fn") if failed else ("fp" if flagged else "tn")))

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        since, until = since or self._now() - timedelta(hours=1), until or self._now()
        return ModelMetrics(model, self._window(since, until), self._window(since - WEEK, since))

    def prediction_log(
        self, model: str, *, limit: int = 100, since: datetime | None = None, until: datetime | None = None, labelled_only: bool = False
    ) -> Sequence[Prediction]:
        """The newest first. What the model misses reads like what it catches."""
        rows = []
        for n in range(len(self.log) - 1, -1, -1):
            at, cell = self.log[n]
            known = at + self.delay <= self._now()
            if at >= (until or self._now()) or (labelled_only and not known):
                continue
            if len(rows) == limit or (since and at < since):
                break
            flagged, failed = cell in ("tp", "fp"), cell in ("tp", "fn")
            features = {"torque_nm": 40.0 + n % 7, "tool_wear_min": float(n % 11)}
            score = 0.8 if flagged else 0.2
            rows.append(Prediction(n, at, f"asset_{n % 97}", "L", features, score, flagged, "v1.5.0", 0.5, 20.0, failed if known else None))
        return rows

    def _window(self, since: datetime, until: datetime) -> WindowMetrics:
        made = [(at, cell) for at, cell in self.log if since <= at < until]
        known = Confusion(**Counter(cell for at, cell in made if at + self.delay <= self._now()))
        delay_s = self.delay.total_seconds() if known.n else None
        return WindowMetrics(since, until, len(made), known.n, known, versions=("v1.5.0",), label_delay_s=delay_s, mature_age_s=delay_s)


@pytest.fixture
def opened(engine: Engine, tmp_path: Path, clock: Clock):  # type: ignore[no-untyped-def]
    """A world with such a model, and the incident that an alert about it opened."""
    empty_store(engine)

    def of(*, delay: timedelta, an_hour: int, fell_at: datetime | None) -> tuple[World, SlowOutcomes, str]:
        platform = SlowOutcomes(tmp_path / "slow.json", clock, delay=delay, an_hour=an_hour, fell_at=fell_at)
        world = world_of(engine, platform, clock)
        return world, platform, report(world)

    return of


def run_of(world: World, incident_id: str) -> Run:
    run = runs.take(world, incident_id, "run-1")
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("delay", "an_hour", "fallen_h"),
    [(timedelta(days=2), 20, 36), (timedelta(days=9), 20, 36), (timedelta(seconds=5), 6, 96)],
    ids=["outcomes after two days", "outcomes after nine days, longer than the baseline", "six an hour"],
)
def test_a_fall_is_measured_however_late_and_rarely_outcomes_come(  # type: ignore[no-untyped-def]
    opened, delay: timedelta, an_hour: int, fallen_h: int
) -> None:
    world, _, incident_id = opened(delay=delay, an_hour=an_hour, fell_at=T0 - delay - timedelta(hours=fallen_h))
    carry(world, incident_id, "run-1")
    found = recorded(world, incident_id, "triage")
    assert found["real"]
    assert not found["assessment"]["insufficient"], "the figures prove it"
    assert incident_of(world, incident_id).severity is Severity.HIGH
    assert any("judged on" in words for words in told(world, incident_id, "severity"))


@pytest.mark.parametrize("delay", [timedelta(days=2), timedelta(days=9)], ids=str)
def test_where_nothing_fell_the_alert_is_a_false_alarm(opened, delay: timedelta) -> None:  # type: ignore[no-untyped-def]
    world, _, incident_id = opened(delay=delay, an_hour=20, fell_at=None)
    carry(world, incident_id, "run-1")
    assert recorded(world, incident_id, "triage")["real"] is False


def test_outcomes_of_the_version_before_say_nothing_of_a_release(opened) -> None:  # type: ignore[no-untyped-def]
    """Deployed yesterday, and its first outcomes come in a day: nobody knows yet how it does."""
    world, platform, incident_id = opened(delay=timedelta(days=2), an_hour=20, fell_at=T0 - timedelta(days=12))
    platform.set(serving="v2.0.0", previous="v1.5.0", deployed_at=(T0 - timedelta(days=1)).isoformat())
    carry(world, incident_id, "run-1")
    assert recorded(world, incident_id, "triage")["assessment"]["insufficient"]
    assert not any("judged on" in words for words in told(world, incident_id, "severity"))


def test_after_a_release_only_its_own_mature_predictions_count(opened) -> None:  # type: ignore[no-untyped-def]
    released = T0 - timedelta(days=8)
    world, platform, incident_id = opened(delay=timedelta(days=2), an_hour=20, fell_at=released)
    platform.set(serving="v2.0.0", previous="v1.5.0", deployed_at=released.isoformat())
    now = measured.metrics(run_of(world, incident_id)).current
    assert now.outcomes_since is not None
    assert now.outcomes_until is not None
    assert released <= now.outcomes_since < now.outcomes_until <= T0 - timedelta(days=2)
    assert now.confusion.recall is not None
    assert now.confusion.recall < 0.5


def test_a_model_that_hears_enough_within_the_hour_is_judged_on_that_hour(opened) -> None:  # type: ignore[no-untyped-def]
    world, platform, incident_id = opened(delay=timedelta(seconds=5), an_hour=600, fell_at=T0 - timedelta(minutes=50))
    now = measured.metrics(run_of(world, incident_id)).current
    assert (now.outcomes_since, now.labelled) == (None, platform.metrics(MODEL).current.labelled)


def test_the_investigation_reads_the_rows_that_performance_is_judged_on(opened) -> None:  # type: ignore[no-untyped-def]
    """None of the last hour's predictions has an outcome yet."""
    world, platform, incident_id = opened(delay=timedelta(days=2), an_hour=20, fell_at=T0 - timedelta(days=2, hours=36))
    run = run_of(world, incident_id)
    assert not platform.prediction_log(MODEL, since=T0 - timedelta(hours=1), labelled_only=True)
    found = {f.key: f for f in investigation.check_ground_truth(run)}
    assert found["ground_truth.predictions_vs_outcomes"].state is State.SUSPECT
