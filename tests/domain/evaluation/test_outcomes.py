from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.outcomes import LEAST_WAIT_S, LONGEST_WAIT_S, lag_of, next_look_s, relative_coverage, span
from mlrunbook.domain.evaluation.performance import Confusion
from tests.domain.builders import HEALTHY, window


def test_a_window_whose_outcomes_are_known_says_nothing_of_them() -> None:
    assert lag_of(window(HEALTHY)) == ""
    assert lag_of(window(HEALTHY, predictions=round(HEALTHY.n / 0.96))) == ""
    assert lag_of(window(Confusion())) == "", "nothing was predicted, so nothing is late"


def test_a_window_that_lags_says_how_much_is_known_and_how_long_outcomes_take() -> None:
    assert lag_of(window(HEALTHY, predictions=8000)) == "1,000 of 8,000 predictions have a known outcome"
    late = lag_of(window(HEALTHY, predictions=8000, label_delay_s=6.2 * 3600))
    assert late == "1,000 of 8,000 predictions have a known outcome; outcomes take 6 h (median of those that have come)"


def test_coverage_is_held_against_what_is_usual() -> None:
    sampled = window(HEALTHY, predictions=HEALTHY.n * 10)  # this fleet inspects one asset in ten
    assert relative_coverage(window(HEALTHY, predictions=HEALTHY.n * 10), sampled) == 1.0
    assert relative_coverage(window(Confusion()), sampled) is None


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (600, "10 min"), (7200, "2 h"), (200_000, "2 days"), (400_000, "5 days")])
def test_spans_are_told_in_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


@given(st.floats(0, 1e7), st.none() | st.floats(0, 1e7))
def test_the_next_look_is_never_at_once_and_never_far(elapsed_s: float, delay_s: float | None) -> None:
    wait_s = next_look_s(elapsed_s, delay_s)
    assert LEAST_WAIT_S <= wait_s <= LONGEST_WAIT_S
    if delay_s is not None and LEAST_WAIT_S <= delay_s - elapsed_s <= LONGEST_WAIT_S:
        assert elapsed_s + wait_s == pytest.approx(delay_s), "when the first outcomes may have come"


def test_two_days_of_waiting_for_outcomes_that_take_one_are_a_few_dozen_looks() -> None:
    elapsed_s, looks = 120.0, 0
    while elapsed_s < 2 * 86_400:
        elapsed_s, looks = elapsed_s + next_look_s(elapsed_s, 86_400.0), looks + 1
    assert looks < 60
