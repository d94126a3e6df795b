"""What was broken in what the model was fed is named with its feature and since when, and nothing learns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.inputs.faults import Kind, input_faults, judge_inputs
from mlrunbook.domain.observed import Prediction
from tests.domain.investigation.worlds import Features, Fleet, looked_into

N = 2400
BEFORE = Fleet(N, seed=1).log()
Change = Callable[[Features, np.random.Generator], Features]


def setting(name: str, value: Callable[[Any], Any]) -> Change:
    return lambda row, _: row | {name: value(row[name])}


def swapped(a: str, b: str) -> Change:
    return lambda row, _: row | {a: row[b], b: row[a]}


def shifted(row: Features, _: np.random.Generator) -> Features:
    names = ["torque", "speed", "air_c", "wear"]
    return row | dict(zip(names, [row[n] for n in (names[-1], *names[:-1])], strict=True))


def partly(change: Change, share: float) -> Change:
    return lambda row, rng: change(row, rng) if rng.random() < share else row


def now_with(change: Change, *, since: float = 0.0, until: float = 1.0, seed: int = 2, assets: int = 400) -> list[Prediction]:
    first, last = N + int(N * since), N + int(N * until)
    return Fleet(N, first=N, seed=seed, assets=assets, spoil=lambda i, row, rng: change(row, rng) if first <= i < last else row).log()


KINDS: dict[str, tuple[Change, str, Kind, str]] = {
    "ten times": (setting("torque", lambda v: v * 10), "torque", Kind.UNIT, "10 times what it was"),
    "a hundred times": (setting("wear", lambda v: v * 100), "wear", Kind.UNIT, "100 times"),
    "a thousandth": (setting("speed", lambda v: v / 1000), "speed", Kind.UNIT, "a 1 000th of what it was"),
    "a tenth": (setting("torque", lambda v: v / 10), "torque", Kind.UNIT, "a 10th of what it was"),
    "seconds for minutes": (setting("wear", lambda v: v * 60), "wear", Kind.UNIT, "60 times"),
    "kelvins": (setting("air_c", lambda v: v + 273.15), "air_c", Kind.UNIT, "273.15 more"),
    "fahrenheit": (setting("air_c", lambda v: v * 1.8 + 32), "air_c", Kind.UNIT, "Fahrenheit"),
    "the other sign": (setting("speed", lambda v: -v), "speed", Kind.UNIT, "other sign"),
    "an offset": (setting("torque", lambda v: v + 35), "torque", Kind.OFFSET, "more than it was"),
    "a constant": (setting("torque", lambda _: 55.0), "torque", Kind.CONSTANT, "always 55"),
    "a constant truth": (setting("hot", lambda _: True), "hot", Kind.CONSTANT, "always 1"),
    "filled in": (partly(setting("torque", lambda _: -999.0), 0.4), "torque", Kind.FILLED_IN, "-999"),
    "missing": (setting("torque", lambda _: None), "torque", Kind.MISSING, "missing"),
    "infinite": (setting("torque", lambda _: float("inf")), "torque", Kind.INFINITE, "infinite"),
    "text": (setting("torque", str), "torque", Kind.TEXT, "numbers written as text"),
    "a decimal comma": (setting("torque", lambda v: str(v).replace(".", ",")), "torque", Kind.TEXT, "text"),
    "words": (setting("torque", lambda _: "n/k"), "torque", Kind.TEXT, "no number"),
    "two swapped": (swapped("torque", "wear"), "torque", Kind.MIXED_UP, "torque holds what wear held"),
    "all shifted": (shifted, "speed", Kind.MIXED_UP, "speed holds what torque held"),
}


@pytest.mark.parametrize("since", [0.0, 0.96])
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_named_with_its_feature_since_when_it_is_so(name: str, since: float) -> None:
    change, feature, kind, words = KINDS[name]
    now = now_with(change, since=since)
    found = [fault for fault in input_faults(BEFORE, now) if feature in fault.features]
    assert [(fault.kind, words in fault.sentence) for fault in found] == [(kind, True)], found
    began = now[int(N * since)].at
    assert abs(found[0].since - began) <= timedelta(minutes=3)
    assert found[0].until is None
    touched = {p.id for p in now if p.at >= began}
    assert len(found[0].rows & touched) >= (0.3 if name == "filled in" else 0.9) * len(touched)
    assert len(found[0].rows - touched) <= 0.02 * N


@pytest.mark.parametrize("name", KINDS)
def test_all_rows_about_one_asset_are_judged_alike(name: str) -> None:
    change, feature, kind, _ = KINDS[name]
    before = [replace(p, asset_id="pump_1") for p in BEFORE]
    assert kind in [fault.kind for fault in input_faults(before, now_with(change, since=0.5, assets=1)) if feature in fault.features]


@pytest.mark.parametrize("seed", range(3, 11))
def test_rows_as_they_were_have_no_fault(seed: int) -> None:
    assert input_faults(BEFORE, Fleet(N, first=N, seed=seed).log()) == ()


def test_a_spike_that_the_baseline_knows_too_is_no_other_unit() -> None:
    spike: Change = setting("torque", lambda v: v * 10)
    before = now_with(spike, since=0.3, until=0.33, seed=5)
    assert input_faults(before, now_with(spike, since=0.5, until=0.53, seed=6)) == ()


def test_a_spike_that_has_passed_explains_no_fall() -> None:
    assert input_faults(BEFORE, now_with(setting("torque", lambda v: v * 10), since=0.5, until=0.52)) == ()


def test_a_feature_that_wanders_is_not_in_another_unit() -> None:
    wandering = Fleet(N, first=N, seed=7, spoil=lambda i, row, _: row | {"torque": row["torque"] + 60 * (i - N) / N}).log()
    assert not [fault for fault in input_faults(BEFORE, wandering) if fault.kind in (Kind.OFFSET, Kind.UNIT)]


def test_readings_far_outside_of_what_was_ever_seen_are_named_also_where_no_unit_fits() -> None:
    (fault,) = input_faults(BEFORE, now_with(setting("torque", lambda v: 7000 + v**2), since=0.5))
    assert fault.features == ("torque",)
    assert fault.kind in (Kind.OUTSIDE, Kind.UNIT)


def test_a_fault_of_one_asset_type_alone_is_named_with_it() -> None:
    now = [replace(p, features=dict(p.features) | {"torque": 55.0}) if p.asset_type == "H" else p for p in Fleet(N, first=N, seed=2).log()]
    (fault,) = input_faults(BEFORE, now)
    assert (fault.kind, fault.group) in {(Kind.CONSTANT, "asset type H"), (Kind.FILLED_IN, "")}


@pytest.mark.parametrize("name", ["ten times", "a constant", "infinite", "text", "two swapped", "an offset", "the other sign"])
@pytest.mark.parametrize("since", [0.0, 0.5])
def test_a_fall_that_broken_inputs_explain_is_for_people_and_never_retrained(name: str, since: float) -> None:
    change, feature, _, _ = KINDS[name]
    d = looked_into(BEFORE, now_with(change, since=since)).diagnosis
    assert (d.top.cause, d.path) == (Cause.NULL_OR_BROKEN_FEATURE, None)
    assert feature in d.sentence


def test_where_rows_that_nothing_touched_are_worse_too_the_fault_does_not_explain_it() -> None:
    now = Fleet(
        N,
        first=N,
        seed=2,
        mislead=lambda risk, rng: 1 - risk if rng.random() < 0.5 else risk,
        spoil=lambda i, row, _: row | {"air_c": -999.0} if i % 4 == 0 else row,
    ).log()
    seen = looked_into(BEFORE, now)
    assert seen.facts.inputs.faults
    assert seen.facts.inputs.explains is False
    assert seen.diagnosis.path is Path.RETRAIN


@pytest.mark.parametrize("empty", [[], BEFORE[:50]])
def test_too_few_rows_show_no_fault(empty: list[Prediction]) -> None:
    now = now_with(KINDS["ten times"][0])
    assert input_faults(empty, now) == ()
    assert judge_inputs(BEFORE, now[:10]).matters is False


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("-inf"), [1], {"a": 2}, "", "NaN", "1e999", "٣", True, None])
def test_no_value_breaks_the_look_at_the_others(value: Any) -> None:
    now = now_with(lambda row, rng: row | {"air_c": value} | {"torque": row["torque"] * 10})
    assert "torque" in {name for fault in input_faults(BEFORE, now) for name in fault.features}
    spoilt = [replace(p, features=dict(p.features) | {"air_c": value}) for p in BEFORE]
    assert "torque" in {name for fault in input_faults(spoilt, now) for name in fault.features}


@pytest.mark.parametrize("order", range(2))
def test_the_order_of_the_rows_does_not_matter(order: int) -> None:
    now = now_with(KINDS["ten times"][0], since=0.5)
    mixed = [now[i] for i in np.random.default_rng(order).permutation(N)]
    assert input_faults(BEFORE[::-1], mixed) == input_faults(BEFORE, now)
