"""Step 6: action items from the review until they are done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.policy.policy import Communication
from mlrunbook.domain.review.action_items import Item, moved, next_reminder

DUE = datetime(2026, 3, 9, 23, 59, tzinfo=UTC)
ITEM = Item(3, "incident_1", "Alert on stale rows", "ml_team_lead", DUE)
POLICY = Communication()


def test_the_owner_is_told_before_it_is_due_when_it_is_and_every_week_after() -> None:
    at, told = DUE - timedelta(days=9), []
    while len(told) < 4 and (following := next_reminder(ITEM, at, POLICY)):
        told.append(following - DUE)
        at = following
    assert told == [timedelta(hours=-48), timedelta(0), timedelta(days=7), timedelta(days=14)]


@given(st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_the_next_reminder_is_always_ahead(since: timedelta) -> None:
    now = DUE + since
    following = next_reminder(ITEM, now, POLICY)
    assert following is not None
    assert following > now


@pytest.mark.parametrize("status", [s for s in ItemStatus if not s.is_open])
def test_what_has_ended_is_told_no_more(status: ItemStatus) -> None:
    ended = moved(ITEM, status, by="the lead", note="done with care", at=DUE)
    assert next_reminder(ended, DUE, POLICY) is None
    assert not ended.is_overdue(DUE + timedelta(days=30))
    assert ended.standing(DUE) == f"{status} by the lead: done with care"


def test_dropping_needs_a_reason() -> None:
    with pytest.raises(Invalid) as refused:
        moved(ITEM, ItemStatus.DROPPED, by="the lead", note=" ", at=DUE)
    assert refused.value.field == "note"


def test_what_is_not_done_after_all_is_open_again() -> None:
    done = moved(ITEM, ItemStatus.DONE, by="the lead", note="", at=DUE)
    again = moved(done, ItemStatus.IN_PROGRESS, by="the manager", note="", at=DUE + timedelta(days=1))
    assert (again.ended_at, again.ended_by) == (None, None)
    assert again.is_overdue(DUE + timedelta(days=1))
