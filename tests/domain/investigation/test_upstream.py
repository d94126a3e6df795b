"""One sensor that reads wrong is for people; a fleet that changed is for the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.investigation.upstream import Course, course_of, courses, judge_upstream, moved_features
from mlrunbook.domain.observed import Prediction
from tests.domain.builders import BASELINE, FALLEN, prediction

JUMPED, CREPT = Course(0.6, 0.95), Course(0.6, 0.2)
MORE_FAILURES = Confusion(tp=90, fp=30, fn=90, tn=790)


def readings(mean: float | Sequence[float], n: int = 2000, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 10, n))


def test_one_feature_that_jumped_while_machines_fail_as_before_is_a_broken_sensor() -> None:
    found = judge_upstream(["torque_nm"], {"torque_nm": JUMPED, "speed": Course(0.0, 0.5)}, BASELINE, FALLEN)
    assert found.broken_sensor is True
    assert found.sentence == (
        "torque_nm moved by +0.6 standard deviations at once, no other feature did, and machines fail as often as before "
        "(10 % of them failed before and 10 % now): a sensor that reads wrong"
    )


@pytest.mark.parametrize(
    ("moved", "seen", "now", "why"),
    [
        (["air", "torque"], {"air": CREPT, "torque": CREPT}, FALLEN, "another one than the model learned"),
        (["air", "torque"], {"air": JUMPED, "torque": JUMPED}, FALLEN, "another one than the model learned"),
        (["air"], {"air": CREPT}, FALLEN, "little by little"),
        (["torque"], {"torque": JUMPED}, MORE_FAILURES, "at another rate"),
    ],
)
def test_a_fleet_that_changed_is_no_broken_sensor(moved: list[str], seen: dict[str, Course], now: Confusion, why: str) -> None:
    found = judge_upstream(moved, seen, BASELINE, now)
    assert found.broken_sensor is False
    assert why in found.sentence


@pytest.mark.parametrize(
    ("moved", "seen", "now"),
    [([], {}, FALLEN), (["torque"], {}, FALLEN), (["torque"], {"torque": JUMPED}, Confusion(tp=20, fn=9, tn=900))],
)
def test_what_cannot_be_told_is_not_known(moved: list[str], seen: dict[str, Course], now: Confusion) -> None:
    assert judge_upstream(moved, seen, BASELINE, now).broken_sensor is None


@pytest.mark.parametrize("at", [0, 300, 1000, 1700])
def test_an_offset_since_any_moment_is_a_jump(at: int) -> None:
    recent = readings([0.0] * at + [6.0] * (2000 - at), seed=1)
    course = course_of(readings(0.0), recent)
    assert course is not None
    assert course.at_once
    assert course.shift == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_rise_is_no_jump(seed: int) -> None:
    course = course_of(readings(list(np.linspace(0, 10, 2000)), seed=seed), readings(list(np.linspace(10, 20, 2000)), seed=seed + 50))
    assert course is not None
    assert not course.at_once


@pytest.mark.parametrize(("reference", "recent"), [([1.0] * 2000, [2.0] * 2000), (readings(0, 99), readings(6, 2000)), ([], [])])
def test_too_few_values_or_one_that_never_varied_have_no_course(reference: list[float], recent: list[float]) -> None:
    assert course_of(reference, recent) is None


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(120)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    rows: list[Prediction] = [prediction(i, features={"torque_nm": 40.0 + i % 7 + 5 * (i > 60), "type": "L"}) for i in range(120)]
    reference = [prediction(1000 + i, features={"torque_nm": 40.0 + i % 7}) for i in range(120)]
    assert courses(reference, [rows[i] for i in order]) == courses(reference, rows)


def test_the_features_that_moved_are_read_from_the_finding() -> None:
    key = "data_quality.feature_distributions"
    value = {
        "torque_nm": {"found": ["moved"], "effect": 0.3},
        "type": {"found": [], "effect": 0.0},
        "tool_wear_min": {"found": ["moved"], "effect": 0.06},  # as machines that wear do by themselves: it explains nothing
    }
    assert moved_features(Finding(key, State.SUSPECT, "log", value, "moved")) == ("torque_nm",)
    assert moved_features(Finding(key, State.UNKNOWN, "log", None, "not known")) == moved_features(None) == ()
