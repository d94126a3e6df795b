"""Runbook Maintenance: the page is reviewed quarterly by its owner."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.audits.runbook_page import MONTHS, Upkeep, read
from mlrunbook.domain.errors import Invalid

PAGE = "### Runbook Maintenance\n\n- **Owner:** ML Team Lead\n- **Review Frequency:** Quarterly\n- **Last Reviewed:** 2026-08-31\n"
HELD = Upkeep("ML Team Lead", "Quarterly", date(2026, 8, 31))


def test_the_page_says_who_owns_it_and_when_it_was_reviewed() -> None:
    assert read(PAGE) == HELD


def test_a_review_is_due_a_quarter_later_and_overdue_the_day_after() -> None:
    assert HELD.due_on == date(2026, 11, 30)
    assert HELD.verdict(date(2026, 11, 30))[0]
    late, words = HELD.verdict(date(2026, 12, 1))
    assert not late
    assert "1 day overdue" in words


def test_a_review_dated_in_the_future_is_no_review() -> None:
    assert not HELD.verdict(date(2026, 8, 30))[0]


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.sampled_from(sorted(MONTHS)))
def test_the_next_review_is_always_so_many_months_later(day: date, frequency: str) -> None:
    due = Upkeep("x", frequency, day).due_on
    assert (due.year * 12 + due.month) - (day.year * 12 + day.month) == MONTHS[frequency]
    assert due.day == day.day or (due + timedelta(days=1)).day == 1


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("- **Owner:** ML Team Lead", "", "Owner"),
        ("Quarterly", "Now and then", "Review Frequency"),
        ("2026-08-31", "31.8.2026", "Last Reviewed"),
    ],
)
def test_a_page_that_does_not_say_it_is_refused_by_the_name_of_the_line(old: str, new: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(PAGE.replace(old, new))
    assert refused.value.field == field
