"""Outcomes that somebody rewrote are noticed, named, and no ground for a change; what they hide is graded all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import Configure, FlagWorkOrders
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.containment.containment import Situation, plan_containment
from mlrunbook.domain.detection.severity import AlertSignal
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.investigation.diagnosis import diagnose
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.policy.judging import OutcomesPolicy
from tests.domain.builders import FALLEN, HEALTHY, NOW, assessed, metrics, status

POLICY = OutcomesPolicy()
MISSED = AlertSignal("CriticalFailureMissed", "critical", IncidentType.PREDICTION_ERROR)


def by(count: int, of: int, first: Confusion = HEALTHY, now: Confusion = HEALTHY) -> Rewritten:
    return Rewritten(count, of, {"another caller": count} if count else {}, first, now)


def window(first: Confusion, now: Confusion, count: int) -> ModelMetrics:
    """`now` is what outcomes say today."""
    return metrics(now, rewritten=by(count, now.n, first, now))


def test_a_platform_that_does_not_say_is_judged_as_before() -> None:
    assert judge_rewrites(metrics(FALLEN), POLICY).beyond is None
    assert assessed(metrics=metrics(FALLEN), status=status()).insufficient is False


@pytest.mark.parametrize(("count", "beyond"), [(0, False), (50, False), (51, True)])
def test_more_than_fifty_in_a_day_are_a_finding_however_old_the_predictions(count: int, beyond: bool) -> None:
    found = judge_rewrites(replace(metrics(HEALTHY), rewritten_lately=by(count, 100_000)), POLICY)
    assert found.beyond is beyond
    assert ("another caller" in found.sentence) is beyond


@pytest.mark.parametrize(("count", "of", "beyond"), [(9, 20, False), (10, 200, False), (10, 199, True)])
def test_so_is_more_than_a_twentieth_of_a_window(count: int, of: int, beyond: bool) -> None:
    assert judge_rewrites(metrics(HEALTHY, rewritten=by(count, of)), POLICY).beyond is beyond


def test_a_few_that_move_the_figures_are_enough() -> None:
    """Fifteen of 1,000 outcomes, and half of all failures there were."""
    first, now = Confusion(tp=28, fp=4, fn=2, tn=966), Confusion(tp=13, fp=19, fn=2, tn=966)
    assert judge_rewrites(window(first, now, 15), POLICY).beyond is True


@given(st.integers(0, 400), st.integers(0, 400))
def test_no_fall_that_rests_on_rewritten_outcomes_changes_anything_by_itself(flipped: int, missed: int) -> None:
    """Whoever turns caught failures into false alarms, and sound assets into failures, reaches no automatic change."""
    first = Confusion(tp=400, fp=90, fn=100, tn=4410)
    now = Confusion(tp=400 - flipped, fp=90 + flipped, fn=100 + missed, tn=4410 - missed)
    seen = window(first, now, flipped + missed)
    seen = replace(seen, baseline=replace(seen.baseline, tally=first))
    found = assessed(alerts=(MISSED,) if missed else (), metrics=seen, status=status())
    planned = plan_containment("INC", "m", found, Situation(status=status()))
    moved = judge_rewrites(seen, POLICY)
    assert planned.automatic is None or not moved.beyond
    if moved.beyond:
        assert found.real
        assert any("another caller" in reason for reason in found.reasons)


def test_a_failure_that_rewritten_outcomes_hide_is_still_graded() -> None:
    found = assessed(metrics=window(FALLEN, HEALTHY, 400), status=status())
    assert (found.real, found.severity, found.insufficient) == (True, Severity.HIGH, True)
    assert any("on the first-reported outcomes F1 fell" in reason for reason in found.reasons)


def test_a_model_that_flags_everything_is_stopped_whatever_was_rewritten() -> None:
    """No outcome is needed to see that."""
    seen: Any = metrics(FALLEN, predictions=2000, flagged_share=0.97, rewritten=by(400, FALLEN.n, HEALTHY, FALLEN))
    found = assessed(metrics=seen, status=status())
    assert (found.dangerous, found.insufficient, found.severity) == (True, False, Severity.CRITICAL)
    automatic = plan_containment("INC", "m", found, Situation(status=status())).automatic
    assert automatic is not None
    assert any(isinstance(a, Configure | FlagWorkOrders) for a in automatic.actions)


def test_the_cause_is_named_and_a_person_decides() -> None:
    facts = DiagnosisFacts(NOW, metrics=window(HEALTHY, FALLEN, 400), changes=(), status=status(), model_version="v2.0.0")
    found = diagnose((), facts, NOW)
    assert (found.top.cause, found.path) == (Cause.OUTCOMES_REWRITTEN, None)
    assert "400 of" in found.sentence
    assert facts.degraded is None
