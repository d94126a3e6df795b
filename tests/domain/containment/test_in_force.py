"""What containment is in force, what ended it, and what it cost in service."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Isolate,
    Promote,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.containment.in_force import Change, Seen, in_force, outages, over_since, sets
from tests.domain.builders import MODEL, NOW, serving

STOP, SERVE = Scale(MODEL, 0), Scale(MODEL, 1)


def change(minute: float, action: Action, before: dict[str, Any] | None = None, *, contains: bool = True, **more: Any) -> Change:
    return Change(f"incident_1:{minute}", action, before or {}, NOW + timedelta(minutes=minute), contains=contains, **more)


def resolved(minute: float, action: Action) -> Change:
    return change(minute, action, contains=False)


@pytest.mark.parametrize(
    ("contained", "before", "later"),
    [
        (STOP, {"replicas": 1}, SERVE),
        (RouteTraffic(MODEL, "v1.5.0"), {"version": None}, RouteTraffic(MODEL, None)),
        (Isolate(MODEL, True), {"isolated": False}, Isolate(MODEL, False)),
        (Configure(MODEL, {"human_approval": True}), {"human_approval": False}, Configure(MODEL, {"human_approval": False})),
        (Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}, Configure(MODEL, {"threshold": 0.5})),
        (RollBack(MODEL, "v1.5.0"), {"serving_version": "v2.0.0"}, Promote(MODEL, "v2.1.0")),
        (RollBack(MODEL, "v1.5.0"), {"serving_version": "v2.0.0"}, RollBack(MODEL, "v1.5.0")),
        (UndoRollout(MODEL, 3), {"revision": 4}, UndoRollout(MODEL, 2)),
    ],
)
def test_what_a_later_change_has_set_is_over(contained: Action, before: dict[str, Any], later: Action) -> None:
    alone = [change(0, contained, before)]
    assert in_force(alone[0], alone)
    both = [*alone, resolved(5, later)]
    assert not in_force(both[0], both)
    assert over_since(both[0], both) == both[1].at
    assert in_force(both[0], [resolved(-5, later), *alone]), "an earlier one ends nothing"
    assert in_force(both[0], [*alone, replace(both[1], certain=False)]), "and one that may not have happened neither"


@pytest.mark.parametrize(
    ("contained", "was", "back"),
    [
        (STOP, {"replicas": 2}, SERVE),
        (RouteTraffic(MODEL, "v1.5.0"), {"version": None}, RouteTraffic(MODEL, None)),
        (Isolate(MODEL, True), {"isolated": False}, Isolate(MODEL, False)),
    ],
)
def test_containment_ordered_once_more_goes_on_from_the_first(contained: Action, was: dict[str, Any], back: Action) -> None:
    twice = [change(0, contained, was), change(3, contained, contained.target())]
    assert [one for one in twice if in_force(one, twice)] == [twice[0]]
    [lasts] = outages(twice)
    assert lasts.end is None
    over = [*twice, change(6, back, contained.target(), contains=False)]
    [outage] = outages(over)
    assert outage.end == over[-1].at


def test_of_two_changes_of_one_moment_the_later_one_ends_the_earlier() -> None:
    both = [change(0, STOP, {"replicas": 1}), resolved(0, SERVE)]
    assert not in_force(both[0], both)
    assert [one.end for one in outages(both)] == [both[1].at]


@pytest.mark.parametrize("no", [{"undone": True}, {"contains": False}, {"before": {"replicas": 0}}])
def test_what_was_taken_back_or_changed_nothing_is_not_in_force(no: dict[str, Any]) -> None:
    one = replace(change(0, STOP, {"replicas": 1}), **no)
    assert not in_force(one, [one])


def test_a_restart_leaves_nothing_in_force() -> None:
    one = change(0, Restart(MODEL, "once"), {"restart_id": None})
    assert not in_force(one, [one])


def test_a_config_is_in_force_while_one_of_its_keys_is() -> None:
    both = change(0, Configure(MODEL, {"human_approval": True, "threshold": 0.7}), {"human_approval": False, "threshold": 0.5})
    threshold_back = resolved(5, Configure(MODEL, {"threshold": 0.5}))
    assert in_force(both, [both, threshold_back])
    assert not in_force(both, [both, threshold_back, resolved(6, Configure(MODEL, {"human_approval": False}))])


@pytest.mark.parametrize(
    ("contained", "before", "seen"),
    [
        (STOP, {"replicas": 1}, Seen(serving(replicas=1))),
        (RouteTraffic(MODEL, "v1.5.0"), {"version": None}, Seen(serving(route=None))),
        (Isolate(MODEL, True), {"isolated": False}, Seen(serving())),
        (Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}, Seen(serving(threshold=0.5))),
        (FlagWorkOrders(MODEL), {"pending_unflagged": 3}, Seen(None, 0)),
    ],
)
def test_what_somebody_ended_outside_the_runbook_is_seen(contained: Action, before: dict[str, Any], seen: Seen) -> None:
    one = change(0, contained, before)
    assert in_force(one, [one])
    assert not in_force(one, [one], seen)


def test_an_outage_has_its_times_and_duration() -> None:
    changes = [change(0, STOP, {"replicas": 1}), resolved(24.5, SERVE)]
    (one,) = outages(changes)
    assert one.sentence == (
        "Serving was stopped from 2025-03-01 12:00:00 to 12:24:30 UTC (24 minutes 30 seconds): no prediction request is answered meanwhile"
    )


@pytest.mark.parametrize(
    ("action", "before", "words"),
    [
        (STOP, {"replicas": 2}, "Serving has been stopped since 2025-03-01 12:00:00 UTC"),
        (Isolate(MODEL, True), {"isolated": False}, "The model server has been isolated since"),
        (RouteTraffic(MODEL, "v1.5.0"), {"version": None}, "Traffic has been routed to v1.5.0 since"),
    ],
)
def test_one_that_lasts_says_since_when(action: Action, before: dict[str, Any], words: str) -> None:
    (one,) = outages([change(0, action, before)])
    assert words in one.sentence
    (seen,) = outages([change(0, action, before)], Seen(serving()))
    assert "ended outside mlrunbook" in seen.sentence


@pytest.mark.parametrize("action", [Configure(MODEL, {"human_approval": True}), FlagWorkOrders(MODEL), RollBack(MODEL, "v1.5.0"), SERVE])
def test_what_keeps_nobody_from_being_served_is_no_outage(action: Action) -> None:
    assert not list(outages([change(0, action)]))


ANY = st.sampled_from([STOP, SERVE, RouteTraffic(MODEL, "v1.5.0"), RouteTraffic(MODEL, None), Isolate(MODEL, True), Isolate(MODEL, False)])


@given(st.lists(st.tuples(ANY, st.booleans()), max_size=8))
def test_of_each_thing_at_most_the_last_change_is_in_force_and_an_outage_lasts_only_while_its_cause_is(
    steps: list[tuple[Action, bool]],
) -> None:
    changes = [change(n, action, contains=contains) for n, (action, contains) in enumerate(steps)]
    held = [c for c in changes if in_force(c, changes)]
    keys = [key for c in held for key in sets(c.action)]
    assert len(keys) == len(set(keys))
    for one in outages(changes):
        assert (one.end is None) is (one.change in held)
