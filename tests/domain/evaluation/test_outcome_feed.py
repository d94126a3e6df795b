from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.outcomes import GRACE_S, due_age_s, judge_feed
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from tests.domain.builders import HEALTHY, metrics


def seen(due: int | None, missing: int | None, *, usual: float = 1.0) -> ModelMetrics:
    """A window of so many due outcomes against a baseline in which the share `usual` was known."""
    found = metrics(HEALTHY, Confusion(tp=80, fp=18, fn=22, tn=880), outcomes_due=due, outcomes_missing=missing)
    return replace(found, baseline=replace(found.baseline, predictions=round(1000 / usual)))


def test_outcomes_that_stopped_coming_are_told_with_their_numbers() -> None:
    feed = judge_feed(seen(1000, 600))
    assert (feed.stalled, feed.coverage) == (True, 0.4)
    assert feed.sentence == (
        "400 of 1000 outcomes that are due have come (40 %, usually 100 %): performance is not known, neither bad nor good"
    )


def test_half_of_the_usual_share_is_still_a_feed() -> None:
    assert judge_feed(seen(1000, 500)).stalled is False
    assert judge_feed(seen(1000, 501)).stalled is True


def test_a_fleet_of_which_one_machine_in_ten_is_ever_inspected_has_no_stalled_feed() -> None:
    assert judge_feed(seen(1000, 910, usual=0.1)).stalled is False
    assert judge_feed(seen(1000, 960, usual=0.1)).stalled is True


@pytest.mark.parametrize(("due", "missing"), [(199, 199), (0, 0), (None, None)])
def test_too_few_due_outcomes_or_a_platform_that_does_not_say_is_not_known(due: int | None, missing: int | None) -> None:
    assert judge_feed(seen(due, missing)).stalled is None


def test_a_model_that_never_had_outcomes_has_no_feed_to_stall() -> None:
    without = seen(1000, 1000)
    assert judge_feed(replace(without, baseline=replace(without.baseline, labelled=0))).stalled is None


def test_outcomes_that_take_hours_are_not_due_for_hours() -> None:
    assert due_age_s(None) == due_age_s(0.0) == GRACE_S
    assert due_age_s(3600) == GRACE_S + 3 * 3600


@given(due=st.integers(200, 5000), more=st.integers(0, 5000), usual=st.floats(0.05, 1.0))
def test_more_missing_outcomes_never_mend_a_feed(due: int, more: int, usual: float) -> None:
    states = [judge_feed(seen(due, missing, usual=usual)).stalled for missing in sorted((due // 2, min(due, due // 2 + more)))]
    assert states in ([False, False], [False, True], [True, True])
