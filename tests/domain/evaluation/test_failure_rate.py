"""Rarer failures with the same recall and false-positive rate are no worse model, and are never called one."""

from __future__ import annotations

import numpy as np
import pytest

from mlrunbook.domain.evaluation.performance import Confusion, Evidence, Verdict, grade_drop
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import DropPolicy

DROPS = DropPolicy()
MODELS = ((1000, 9000, 0.8, 0.02), (300, 2000, 0.6, 0.15), (2000, 8000, 0.9, 0.10), (150, 15_000, 0.5, 0.005))


def drawn(rng: np.random.Generator, failures: int, healthy: int, recall: float, false_positive_rate: float) -> Confusion:
    tp, fp = int(rng.binomial(failures, recall)), int(rng.binomial(healthy, false_positive_rate))
    return Confusion(tp, fp, failures - tp, healthy - fp)


def judged(seed: int, model: tuple[int, int, float, float], kept: float, worse: float = 0.0, size: float = 1.0) -> Verdict:
    """A share of the failures is `kept`; `worse`: the share of predictions that are random flags."""
    rng, (failures, healthy, recall, false) = np.random.default_rng(seed), model
    flagged = (failures * recall + healthy * false) / (failures + healthy)
    recall_now, false_now = (rate * (1 - worse) + worse * flagged for rate in (recall, false))
    now = drawn(rng, int(failures * kept * size), int(healthy * size), recall_now, false_now)
    return grade_drop(drawn(rng, *model), now, DROPS)


def slices(counts: Confusion, by: int = 60) -> list[Confusion]:
    return [Confusion(*(value // by for value in counts.values))] * by


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("model", MODELS)
def test_rarer_failures_alone_are_never_called_real(model: tuple[int, int, float, float], kept: float) -> None:
    for size in (0.1, 0.5, 1):
        assert sum(judged(seed, model, kept, size=size).is_real for seed in range(60)) <= 1


@pytest.mark.parametrize("model", [MODELS[0], MODELS[2]])
def test_a_worse_model_with_half_the_failures_is_still_found(model: tuple[int, int, float, float]) -> None:
    assert sum(judged(seed, model, kept=0.5, worse=0.35).is_real for seed in range(40)) >= 38


def test_how_severe_a_fall_is_does_not_depend_on_the_failure_rate() -> None:
    verdict = grade_drop(Confusion(8000, 1800, 2200, 88_000), Confusion(3100, 2500, 1900, 88_000), DROPS)
    assert verdict.severity is Severity.MEDIUM
    assert verdict.drop == pytest.approx(0.18, abs=0.02)  # of F1 as it is: 26 %


def test_fewer_failures_with_the_same_model_are_told_so() -> None:
    before, now = Confusion(9600, 2160, 2640, 105_600), Confusion(3180, 2160, 900, 105_600)
    verdict = grade_drop(before, now, DROPS, blocks=slices(now), baseline_blocks=slices(before))
    assert verdict.evidence is Evidence.FALSE_ALARM
    assert "fewer failures, same model" in verdict.reason


def test_few_failures_are_no_proof_of_the_same_model() -> None:
    model = MODELS[3]
    excused = sum(judged(seed, model, kept=0.25, worse=0.3).evidence is Evidence.FALSE_ALARM for seed in range(60))
    assert excused <= 3


@pytest.mark.parametrize("false_alarms", [0, 12, 600])
def test_a_quiet_window_without_a_failure_proves_nothing(false_alarms: int) -> None:
    verdict = grade_drop(Confusion(800, 180, 220, 8800), Confusion(0, false_alarms, 0, 3000), DROPS)
    assert verdict.evidence is Evidence.INSUFFICIENT
    assert "no failure" in verdict.reason


def test_healthy_assets_flagged_twice_as_often_are_no_matter_of_rarer_failures() -> None:
    before, now = Confusion(tp=1130, fp=370, fn=340, tn=1160), Confusion(tp=98, fp=1450, fn=4, tn=1448)
    assert grade_drop(before, now, DropPolicy()).is_real
    unchanged = Confusion(tp=78, fp=700, fn=24, tn=2198)
    assert not grade_drop(before, unchanged, DropPolicy()).is_real
