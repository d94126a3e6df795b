"""The triage that ships, on a model whose tally and rules are defined here: nothing else knows of its task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.policy.judging import SeverityPolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.tally import TASKS
from mlrunbook.response.world import World
from mlrunbook.store import records
from tests.domain.other_tasks import DROPS, AbsoluteErrors, errors, whole, window
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import PENDING, carry
from tests.response.people import deliver, incident_of, report

BEFORE = errors(1, 20_000)


class Regression(FileWorld):
    """A platform whose model predicts a number."""

    now: Sequence[AbsoluteErrors] = ()

    def metrics(self, model: str, **asked: Any) -> ModelMetrics:
        seen = super().metrics(model, **asked)
        return ModelMetrics(model, replace(window(self.now), since=seen.current.since, until=seen.current.until), window(BEFORE))


@pytest.fixture
def platform(file_world: FileWorld, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Regression:
    monkeypatch.setitem(TASKS, "regression", AbsoluteErrors)
    file_world.set(bad_versions={})
    return Regression(file_world.path, clock)


@pytest.fixture
def regression(world: World, platform: Regression) -> World:
    return replace(world, platform=platform, policy=Policy(severity=SeverityPolicy(drops=DROPS)))


def test_a_regression_whose_error_rose_is_a_high_incident_that_pages_and_keeps_its_baseline(
    regression: World, platform: Regression, clock: Clock, notifier: LedgerNotifier
) -> None:
    platform.now = errors(2, 10_000, mae=6.0)
    incident_id = report(regression, description="MAE rose")
    assert carry(regression, incident_id, "run-1") in ("waiting for a human", PENDING), (
        "the steps that know no such task leave it to people"
    )
    clock.advance(minutes=2)
    deliver(regression)
    assert incident_of(regression, incident_id).severity is Severity.HIGH
    assert any("MAE rose" in m.body for m in notifier.pages())
    with regression.transaction() as conn:
        triage = records.recall(conn, incident_id, Triage)
    assert triage is not None
    assert triage.real
    assert triage.baseline == whole(BEFORE)


def test_a_regression_whose_error_is_as_before_is_a_false_alarm(regression: World, platform: Regression) -> None:
    platform.now = errors(2, 10_000)
    incident_id = report(regression, description="MAE rose")
    carry(regression, incident_id, "run-1")
    assert incident_of(regression, incident_id).status is Status.FALSE_ALARM
