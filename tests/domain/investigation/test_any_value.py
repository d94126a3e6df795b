"""Whatever somebody writes into a feature, the investigation goes on, and what says the same counts as the same."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlrunbook.domain.actions import Path
from mlrunbook.domain.observed import Prediction
from tests.domain.investigation.worlds import Fleet, looked_into

N = 600
BEFORE, NOW = Fleet(N, seed=1).log(), Fleet(N, first=N, seed=2).log()
ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["1", "0", "1.0", "true", "FALSE", "nan", "inf", "1e999", "-0", "0x1f", "1_000", "1,5", "\u0663", "", " "]),
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def with_values(rows: list[Prediction], name: str, values: list[Any], every: int) -> list[Prediction]:
    """Every so many rows hold one of the values in turn."""
    return [
        replace(p, features=dict(p.features) | {name: values[(i // every) % len(values)]}) if i % every == 0 else p
        for i, p in enumerate(rows)
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["torque", "hot", "new"]),
    values=st.lists(ANY, min_size=1, max_size=4),
    every=st.sampled_from([1, 2, 40]),
    before=st.booleans(),
)
def test_no_value_of_a_feature_stops_the_investigation(name: str, values: list[Any], every: int, before: bool) -> None:
    old = with_values(BEFORE, name, values, every) if before else BEFORE
    assert looked_into(old, with_values(NOW, name, values, every)).diagnosis.sentence


SAME = {
    "as 1 and 0": int,
    "as 1.0 and 0.0": float,
    "as text": lambda hot: "true" if hot else "false",
    "as text in capitals": lambda hot: "TRUE" if hot else "FALSE",
    "as digits": lambda hot: "1" if hot else "0",
    "as a number of numpy": lambda hot: np.float64(hot),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("of", [1, 10])
def test_a_flag_that_another_writer_spells_otherwise_is_the_same_flag(name: str, of: int) -> None:
    spelt = [replace(p, features=dict(p.features) | {"hot": SAME[name](p.features["hot"])}) if p.id % of == 0 else p for p in NOW]
    seen = looked_into(BEFORE, spelt)
    assert "hot" not in " ".join(seen.facts.inputs.faults)
    assert seen.diagnosis.path is None


WHOLE: dict[str, Any] = {"a whole float": float, "a number of numpy": lambda v: np.int64(v)}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_the_same_as_floats(name: str) -> None:
    def counted(rows: list[Prediction], kind: Any) -> list[Prediction]:
        return [replace(p, features=dict(p.features) | {"cycles": kind(int(p.features["wear"]))}) for p in rows]

    assert looked_into(counted(BEFORE, int), counted(NOW, WHOLE[name])).facts.inputs.faults == ()


@pytest.mark.parametrize("value", ["false", "0", 0, 0.0, False, np.bool_(False), np.int64(0)])
def test_an_outcome_is_what_it_says_however_it_is_written(value: Any) -> None:
    assert replace(NOW[0], outcome=value, label=value).outcome is False


@pytest.mark.parametrize("value", ["no", 2, 0.5, math.nan, [], {}, "nan", 10**400, b"1"])
@pytest.mark.parametrize("field", ["label", "outcome"])
def test_what_is_neither_true_nor_false_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(NOW[0], **{field: value})


@pytest.mark.parametrize("value", [1.01, -0.1, math.nan, math.inf, 10**400, "high", [], True, {}])
@pytest.mark.parametrize("field", ["score", "threshold", "shadow_score"])
def test_a_score_that_is_no_probability_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(NOW[0], **{field: value})


def test_a_column_of_text_numbers_is_named_and_not_learned() -> None:
    text = [replace(p, features=dict(p.features) | {"torque": str(p.features["torque"])}) for p in NOW]
    seen = looked_into(BEFORE, text)
    assert "torque holds numbers written as text" in " ".join(seen.facts.inputs.faults)
    assert seen.diagnosis.path is not Path.RETRAIN
