"""A caller who probes the model leaves marks in the prediction log that machines at work never do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.probing import LEAST_ALIKE, LEAST_IMPOSSIBLE, judge_probing
from mlrunbook.domain.observed import Prediction
from tests.domain.builders import prediction

ROWS = 1000


def row(i: int, torque: float, speed: float, temperature: float, **changes: Any) -> Prediction:
    features = {"type": "L", "torque_nm": torque, "speed_rpm": speed, "air_k": temperature}
    return prediction(i, asset_type="L", features=features, **({"asset_id": f"asset_{i % 500}"} | changes))


def ordinary(seed: int, first: int = 0) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    drawn = zip(np.abs(rng.normal(40, 10, ROWS)), rng.normal(1500, 150, ROWS), rng.normal(300, 2, ROWS), strict=True)
    return [row(first + i, float(t), float(s), float(k)) for i, (t, s, k) in enumerate(drawn)]


REFERENCE, RECENT = ordinary(0), ordinary(1, first=10_000)


def near(n: int, **changes: Any) -> list[Prediction]:
    """The same machine again and again, torque up by a hair each time, across the boundary."""
    return [row(50_000 + i, 60.0 + i * 0.01, 1400.0, 301.0, asset_id="asset_7", score=0.4 + 0.2 * i / n, **changes) for i in range(n)]


def impossible(n: int) -> list[Prediction]:
    return [row(60_000 + i, -50.0 - 10 * i, 1e5 + i * 5000, 0.0, asset_id="asset_7") for i in range(n)]


@pytest.mark.parametrize("seed", range(10, 20))
def test_machines_at_work_are_nobody_probing(seed: int) -> None:
    found = judge_probing(ordinary(seed, first=10_000), REFERENCE)
    assert (found.suspicious, found.assets) == (False, ())


def test_near_duplicates_of_one_machine_on_both_sides_of_the_threshold_are_probing() -> None:
    found = judge_probing(RECENT + near(80), REFERENCE)
    assert (found.suspicious, found.assets[0]) == (True, "asset_7")
    assert 80 <= found.alike <= 82, "one or two machines at work happen to be in that corner"
    assert found.flips == 1
    assert "requests that hardly differ from each other; they lie on both sides of the threshold, 8 % of the 1080 newest" in found.sentence


def test_readings_no_machine_can_have_are_probing_when_they_are_about_a_few() -> None:
    found = judge_probing(RECENT + impossible(60), REFERENCE)
    assert (found.suspicious, found.impossible, found.assets) == (True, 60, ("asset_7",))
    assert "readings no machine has shown" in found.sentence


def test_a_sensor_that_breaks_over_the_whole_fleet_is_no_caller() -> None:
    broken = [row(p.id, 9999.0, p.features["speed_rpm"], p.features["air_k"], asset_id=p.asset_id) for p in RECENT]
    assert judge_probing(broken, REFERENCE).suspicious is False


def test_a_store_that_stands_still_repeats_readings_and_is_no_caller() -> None:
    same = [row(50_000 + i, 60.0, 1400.0, 301.0, asset_id="asset_7") for i in range(400)]
    assert judge_probing(RECENT + same, REFERENCE).suspicious is False


def test_a_handful_is_not_called_an_attack() -> None:
    assert judge_probing(RECENT + near(LEAST_ALIKE - 2) + impossible(LEAST_IMPOSSIBLE - 1), REFERENCE).suspicious is False


def test_a_model_whose_machines_all_look_alike_is_not_under_attack_for_ever() -> None:
    """Two settings and one number: near-duplicates are all there is."""
    rng = np.random.default_rng(3)
    rows = [[row(at + i, float(v), 1500.0, 300.0) for i, v in enumerate(rng.normal(40, 10, ROWS))] for at in (0, 10_000)]
    assert judge_probing(rows[1], rows[0]).suspicious is False


@pytest.mark.parametrize(("recent", "reference"), [(RECENT[:199], REFERENCE), (RECENT, REFERENCE[:199]), ([], [])])
def test_too_few_rows_are_not_known(recent: list[Prediction], reference: list[Prediction]) -> None:
    assert judge_probing(recent, reference).suspicious is None


def test_nulls_are_no_readings() -> None:
    empty = [prediction(i, features={"type": None, "torque_nm": None, "speed_rpm": float("nan"), "air_k": None}) for i in range(400)]
    assert judge_probing(empty, REFERENCE).suspicious is False
    assert judge_probing(RECENT, empty).suspicious is False


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    rows = RECENT + near(80) + impossible(60)
    order = np.random.default_rng(seed).permutation(len(rows))
    assert judge_probing([rows[i] for i in order], REFERENCE[::-1]) == judge_probing(rows, REFERENCE)
