"""Values from outside are read, or refused by their name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.domain.builders import prediction


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", "1", "1.0"])
def test_what_says_true_is_true(value: Any) -> None:
    assert prediction(1, label=value, outcome=value).label is True
    assert prediction(1, outcome=value).outcome is True


@pytest.mark.parametrize("value", [False, 0, 0.0, -0.0, "false", " FALSE ", "0"])
def test_what_says_false_is_false(value: Any) -> None:
    assert prediction(1, label=value).label is False


@pytest.mark.parametrize("value", [2, 0.5, "yes", "", 10**400, float("nan"), [1], {}])
@pytest.mark.parametrize("name", ["label", "outcome"])
def test_what_says_neither_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be true or false"):
        prediction(1, **{name: value})


@pytest.mark.parametrize("value", [1.5, -0.1, 10**400, float("inf"), float("nan"), "high", True, [0.5]])
@pytest.mark.parametrize("name", ["score", "shadow_score", "threshold"])
def test_a_score_outside_0_to_1_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number from 0 to 1"):
        replace(prediction(1), **{name: value})


def test_whole_and_written_numbers_are_scores() -> None:
    assert prediction(1, shadow_score=1).shadow_score == 1.0
    assert prediction(1, shadow_score="0.25").shadow_score == 0.25
