from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from mlrunbook.domain.evaluation.drift import Columns, DriftVerdict, Found, Reference, ks_distance
from mlrunbook.domain.policy.judging import DriftPolicy

N = 400
POLICY = DriftPolicy()
NORMAL = np.random.default_rng(1).normal(40, 10, N)


def compare(reference: Columns, recent: Columns) -> DriftVerdict:
    """Rows in time order on both sides."""
    return Reference.of(reference).compare(recent)


def judged(old: Any, new: Any) -> DriftVerdict:
    """One column of interest beside one that does not change."""
    return compare({"x": old, "still": NORMAL}, {"x": new, "still": np.roll(NORMAL, 7)})


def found(old: Any, new: Any) -> tuple[Found, ...]:
    verdict = judged(old, new)
    assert verdict.columns["still"].found == ()
    return verdict.columns["x"].found


# --- the steps, in their order


def test_a_column_that_is_gone_new_or_of_another_type_is_a_change_of_the_schema() -> None:
    verdict = compare(
        {"gone": NORMAL, "typed": NORMAL, "still": NORMAL}, {"new": NORMAL, "typed": [str(v) for v in NORMAL], "still": NORMAL}
    )
    assert {name: c.found for name, c in verdict.columns.items()} == {
        "gone": (Found.SCHEMA,),
        "new": (Found.SCHEMA,),
        "typed": (Found.SCHEMA,),
        "still": (),
    }
    assert verdict.steps == (
        "the schema changed: gone (it is gone), new (it is new), typed (it held numbers and now holds text)",
        "missing values did not rise",
        "no category is new",
        "none of 1 distributions moved",
    )
    assert verdict.sentence.startswith("the schema changed: gone (it is gone), new")


def test_a_few_values_of_another_type_count_as_missing_and_are_no_change_of_type() -> None:
    few: list[Any] = [*NORMAL[:-4], "n/a", "n/a", True, "12"]
    assert found(NORMAL, few) == ()
    many: list[Any] = [*NORMAL[:300], *["n/a"] * 100]
    assert found(NORMAL, many) == (Found.NULLS,)


def test_missing_values_that_rise_are_told_with_their_shares() -> None:
    nulls = [None if i % 5 == 0 else v for i, v in enumerate(NORMAL)]
    verdict = judged(NORMAL, nulls)
    assert verdict.columns["x"].found == (Found.NULLS,)
    assert verdict.sentence == "missing values rose: x (0 % -> 20 %); 400 recent against 400 reference rows"
    assert found(nulls, nulls) == ()
    assert found(nulls, NORMAL) == ()


def test_a_category_never_seen_before_is_named_with_its_share() -> None:
    old = ["L", "L", "M", "H"] * 100
    verdict = judged(old, [*old[:-20], *["X"] * 20])
    assert verdict.columns["x"].found[0] is Found.UNSEEN
    assert verdict.steps[2] == "values never seen before: x (X in 5 %)"


def test_one_row_of_a_new_category_and_a_column_of_ids_are_no_drift() -> None:
    old = ["L", "L", "M", "H"] * 100
    assert found(old, [*old[:-1], "X"]) == ()
    rng = np.random.default_rng(3)
    ids = [[f"order {i}" for i in rng.integers(0, 10**6, N)] for _ in range(2)]
    assert found(*ids) == ()


def test_a_number_that_moved_is_told_with_direction_and_size() -> None:
    verdict = judged(NORMAL, NORMAL[::-1] - 8.0)
    column = verdict.columns["x"]
    assert column.found == (Found.MOVED,)
    assert column.shift_sd == pytest.approx(-8 / NORMAL.std())
    assert column.p is not None
    assert column.p < 0.001
    assert "the distribution moved for x (down by 0.9 standard deviations)" in verdict.sentence


def test_a_change_of_shape_alone_and_a_sensor_that_sticks_are_drift_too() -> None:
    wider = judged(NORMAL, (NORMAL - NORMAL.mean()) * 3 + NORMAL.mean())
    assert wider.columns["x"].found == (Found.MOVED,)
    assert "in shape, by 0." in wider.sentence
    assert found(NORMAL, np.full(N, 40.0)) == (Found.MOVED,)
    assert judged(np.full(N, 0.1), NORMAL).columns["x"].shift_sd is None


def test_a_move_too_small_to_matter_is_no_drift_however_sure_it_is() -> None:
    rng = np.random.default_rng(5)
    old, new = rng.normal(size=60_000), rng.normal(0.08, 1, 60_000)
    verdict = compare({"x": old}, {"x": new})
    assert verdict.columns["x"].p is not None
    assert verdict.columns["x"].p < 1e-9
    assert verdict.drifted is False


# --- nothing breaks it

HOSTILE: list[Any] = [
    [None] * N,
    [math.nan] * N,
    np.full(N, math.nan),
    [],
    [1.0] * N,
    [0.1] * N,
    ["a"] * N,
    [math.inf, -math.inf] * (N // 2),
    [True, False] * (N // 2),
    [None, "a"] * (N // 2),
    [1, "1"] * (N // 2),
    [[1], {"a": 2}] * (N // 2),
    list(range(10**18, 10**18 + N)),
    NORMAL.astype(np.float32),
    [1.0],
]


@pytest.mark.parametrize("old", HOSTILE, ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize("new", HOSTILE, ids=lambda v: repr(v)[:20])
def test_no_column_breaks_the_comparison_of_the_others(old: Any, new: Any) -> None:
    verdict = compare({"x": old, "torque": NORMAL}, {"x": new, "torque": NORMAL + 10})
    assert Found.MOVED in verdict.columns["torque"].found
    json.dumps(verdict.as_dict())
    for column in verdict.columns.values():
        assert column.effect is None or 0 <= column.effect <= 1
        assert column.p is None or 0 <= column.p <= 1
        assert column.shift_sd is None or math.isfinite(column.shift_sd)


def test_a_column_without_a_value_is_not_judged_and_never_called_sound() -> None:
    verdict = compare({"x": [None] * N}, {"x": [None] * N})
    assert verdict.drifted is None
    assert verdict.sentence.endswith("too few independent values to compare")
    assert compare({}, {}).drifted is None
    assert compare({"x": [1.0] * 49}, {"x": [2.0] * 49}).drifted is None


# --- rows that resemble each other


@settings(max_examples=25)
@given(st.permutations(range(120)), st.sampled_from([0.0, 0.9]))
def test_the_order_in_which_rows_arrive_changes_nothing(order: list[int], phi: float) -> None:
    rng = np.random.default_rng(6)
    rows = {"x": lfilter([1], [1, -phi], rng.normal(size=120)), "kind": rng.choice(list("LMH"), 120).astype(object)}
    at, assets = np.arange(120) * 10.0, [f"asset_{i % 40}" for i in range(120)]
    recent = {"x": rng.normal(0.5, 1, 120), "kind": rng.choice(list("LMH"), 120).astype(object)}
    straight = Reference.of(rows, entity=assets).compare(recent, entity=assets)
    mixed = {name: values[order] for name, values in rows.items()}, [assets[i] for i in order], at[order]
    again = Reference.of(mixed[0], at=mixed[2], entity=mixed[1])
    assert again.compare({n: v[order] for n, v in recent.items()}, at=mixed[2], entity=mixed[1]) == straight


def series(rng: np.random.Generator, n: int, phi: float) -> Any:
    """An AR(1) series of variance 1."""
    return lfilter([1], [1, -phi], rng.normal(size=n + 200))[200:] * math.sqrt(1 - phi**2)


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_a_series_that_remembers_is_not_called_drift(phi: float) -> None:
    rng, runs = np.random.default_rng(8), 40

    def sample() -> dict[str, Any]:
        return {f"x{i}": series(rng, 3000, phi) for i in range(5)}

    verdicts = [compare(sample(), sample()).drifted for _ in range(runs)]
    assert verdicts.count(True) <= 0.05 * runs
    assert None not in verdicts
    naive = [any(ks_2samp(series(rng, 3000, phi), series(rng, 3000, phi)).pvalue < 0.01 for _ in range(5)) for _ in range(runs)]
    assert sum(naive) > 0.1 * runs, "the test that this guards against would alarm"


def test_a_series_that_remembers_and_has_a_long_tail_is_not_called_drift_and_its_move_is_seen() -> None:
    """A few spikes dominate the correlation of the values, and hide how long their ranks remember."""
    rng, runs = np.random.default_rng(12), 60

    def sample() -> Any:
        return np.exp(3 * series(rng, 3000, 0.97))

    def moved(old: Any) -> Any:
        """By a quarter of the ranks."""
        place = np.searchsorted(np.sort(old), sample()) + len(old) // 4
        return np.sort(old)[np.clip(place, 0, len(old) - 1)]

    assert sum(compare({"x": sample()}, {"x": sample()}).drifted is True for _ in range(runs)) <= 0.05 * runs
    assert sum(compare({"x": old}, {"x": moved(old)}).drifted is True for old in (sample() for _ in range(runs))) >= 0.5 * runs


def cycles(rng: np.random.Generator, weeks: int) -> Any:
    """Every half hour: a day's and a week's cycle, and weeks that differ by themselves."""
    hours = np.arange(weeks * 336) / 2
    by_week = np.repeat(rng.normal(0, 0.4, weeks), 336)
    return np.sin(hours * math.tau / 24) + 0.8 * np.sin(hours * math.tau / 168) + by_week + rng.normal(0, 0.3, len(hours))


def test_days_and_weeks_that_come_again_are_no_drift_where_rows_have_times() -> None:
    rng, runs = np.random.default_rng(13), 60
    at = np.datetime64("2026-01-05T00:00") + np.arange(12 * 336) * np.timedelta64(30, "m")
    verdicts = [Reference.of({"x": cycles(rng, 12)}, at=at).compare({"x": cycles(rng, 12)}, at=at).drifted for _ in range(runs)]
    assert verdicts.count(True) <= 0.05 * runs
    seen = [Reference.of({"x": cycles(rng, 12)}, at=at).compare({"x": cycles(rng, 12) + 1.5}, at=at).drifted for _ in range(20)]
    assert seen.count(True) >= 15


def test_two_days_of_such_rows_hold_too_few_independent_ones_to_judge() -> None:
    rng = np.random.default_rng(14)
    at = np.datetime64("2026-01-05T00:00") + np.arange(12 * 336) * np.timedelta64(30, "m")
    verdict = Reference.of({"x": cycles(rng, 12)}, at=at).compare({"x": cycles(rng, 1)[:96]})
    assert verdict.drifted is None
    assert "too few independent values" in verdict.sentence


def test_assets_that_keep_their_nature_count_once_however_often_they_are_read() -> None:
    """200 assets, 20 readings of each: 4,000 rows that say as much as 200."""
    rng, alarms, naive = np.random.default_rng(9), 0, 0
    for _ in range(40):
        old, new = (np.repeat(rng.normal(size=200), 20) + rng.normal(0, 0.1, 4000) for _ in range(2))
        order = rng.permutation(4000)
        assets = np.repeat(np.arange(200), 20)[order]
        alarms += Reference.of({"x": old[order]}, entity=assets).compare({"x": new[order]}, entity=assets).drifted is True
        naive += ks_2samp(old, new).pvalue < 0.05
    assert alarms <= 2
    assert naive > 20


def test_a_step_in_the_middle_of_the_recent_rows_does_not_hide_itself() -> None:
    stepped = NORMAL + np.where(np.arange(N) < N / 2, 0, 200.0)
    assert found(NORMAL, stepped) == (Found.MOVED,)


# --- against scipy, and its own promises


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.lists(st.integers(-5, 5), min_size=1, max_size=60))
def test_the_ks_distance_is_scipys_with_ties_too(old: list[int], new: list[int]) -> None:
    ours = ks_distance(np.sort(np.array(old, float)), np.sort(np.array(new, float)))
    assert ours == pytest.approx(ks_2samp(old, new, method="asymp").statistic)


def test_p_values_of_independent_rows_are_those_of_scipy() -> None:
    rng = np.random.default_rng(10)
    for shift in (0.0, 0.1, 0.2):
        old, new = rng.normal(size=700), rng.normal(shift, 1, 500)
        verdict = Reference.of({"x": old}).compare({"x": new})
        assert verdict.columns["x"].p == pytest.approx(ks_2samp(old, new, method="asymp").pvalue, rel=0.1, abs=0.01)


def test_a_reference_may_be_compared_many_times() -> None:
    reference = Reference.of({"x": NORMAL})
    assert reference.compare({"x": NORMAL + 9}).drifted is True
    assert reference.compare({"x": NORMAL}).drifted is False
    assert reference.compare({"x": NORMAL + 9}) == reference.compare({"x": NORMAL + 9})


def test_without_drift_few_reports_alarm_and_a_third_of_a_deviation_is_seen() -> None:
    rng, runs = np.random.default_rng(11), 300

    def sample(shift: float = 0.0) -> dict[str, Any]:
        return {f"x{i}": rng.normal(shift if i == 0 else 0, 1, 500) for i in range(20)}

    assert sum(compare(sample(), sample()).drifted is True for _ in range(runs)) <= 24  # 5 %, and what chance may add to it
    assert sum(bool(compare(sample(), sample(0.3)).columns["x0"].found) for _ in range(runs)) >= 240


# --- what says the same is the same

FLAGS = np.random.default_rng(20).random(N) < 0.3
WAYS = {
    "booleans": [bool(v) for v in FLAGS],
    "ints": [int(v) for v in FLAGS],
    "floats": [float(v) for v in FLAGS],
    "text": [str(bool(v)).lower() for v in FLAGS],
    "Python's text": [str(bool(v)) for v in FLAGS],
    "digits": [str(int(v)) for v in FLAGS],
    "written floats": [f"{int(v)}.0" for v in FLAGS],
    "mixed": [bool(v) if i % 10 == 0 else float(v) for i, v in enumerate(FLAGS)],
    "an array": FLAGS,
}


@pytest.mark.parametrize("old", WAYS)
@pytest.mark.parametrize("new", WAYS)
def test_a_truth_value_is_the_same_however_it_is_written(old: str, new: str) -> None:
    assert found(WAYS[old], WAYS[new]) == ()
    assert Found.MOVED in found(WAYS[old], [not v for v in FLAGS]), "and it is still compared"


def test_codes_are_the_same_as_text_and_as_numbers() -> None:
    codes = np.random.default_rng(21).integers(0, 5, N)
    assert found([int(v) for v in codes], [str(v) for v in codes]) == ()
    assert Found.MOVED in found([int(v) for v in codes], [str(min(int(v) + 1, 4)) for v in codes])


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), "1e999"])
def test_a_number_too_large_to_hold_counts_as_missing(value: Any) -> None:
    spoilt = [value if i % 10 == 0 else float(v) for i, v in enumerate(NORMAL)]
    assert found(NORMAL, spoilt) == (Found.NULLS,)


# --- cycles that the rows do not hold whole


def machines(rounds: int, start: int, *, count: int = 200, life: int = 100, seed: int = 1) -> tuple[dict[str, Any], list[str]]:
    """Tools that wear and are changed, with much the same age all over the fleet; and a load that does not remember."""
    rng = np.random.default_rng(seed)
    age = rng.normal(life / 3, life / 10, count)
    wear = np.concatenate([(age + start + k) % life for k in range(rounds)])
    load = np.random.default_rng([seed, start]).normal(size=rounds * count)
    return {"wear": wear, "load": load}, [f"machine {k}" for k in range(count)] * rounds


@pytest.mark.parametrize("later", [12, 40, 85])
def test_a_counter_that_was_hardly_ever_reset_is_not_judged(later: int) -> None:
    """Nothing changed: the tools have grown older together."""
    old, of = machines(10, 0)
    new, of_new = machines(5, later)
    verdict = Reference.of(old, entity=of).compare(new, entity=of_new)
    assert verdict.drifted is False
    assert verdict.columns["wear"].effect is None
    assert "counts up and was reset" in verdict.columns["wear"].sentence
    assert "not judged" in verdict.sentence


def test_a_counter_whose_cycle_is_known_is_judged() -> None:
    (old, of), (new, of_new) = machines(500, 0), machines(500, 500)
    reference = Reference.of(old, entity=of)
    assert reference.compare(new, entity=of_new).columns["wear"].effect is not None
    assert reference.compare(new | {"wear": new["wear"] * 0.5}, entity=of_new).columns["wear"].found


def test_what_an_asset_keeps_is_no_counter() -> None:
    rng, of = np.random.default_rng(2), [f"machine {k}" for k in range(300)] * 6
    size = np.tile(rng.normal(size=300), 6)
    verdict = Reference.of({"size": size}, entity=of).compare({"size": size + 1.0}, entity=of)
    assert verdict.columns["size"].found


@pytest.mark.parametrize("days", [0.25, 0.5, 1.5])
@pytest.mark.parametrize("reference_days", [9, 28])
def test_hours_of_a_day_are_not_compared_with_whole_days(days: float, reference_days: int) -> None:
    rng = np.random.default_rng([reference_days, int(days * 4)])

    def hourly(start: float, length: float) -> tuple[dict[str, Any], list[datetime]]:
        hours = start * 24 + np.arange(int(length * 24 * 12)) / 12
        values = np.sin(2 * np.pi * hours / 24) + 0.5 * (hours // 24 % 7 >= 5) + rng.normal(size=len(hours))
        return {"x": values}, [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=float(h)) for h in hours]

    drifted = 0
    for _ in range(20):
        start = rng.random() * 7
        (old, at), (new, at_new) = hourly(start, reference_days), hourly(start + reference_days + rng.random(), days)
        drifted += Reference.of(old, at=at).compare(new, at=at_new).drifted is True
    assert drifted <= 1


def test_what_assets_keep_under_much_noise_is_no_evidence_of_drift() -> None:
    """Other machines of the same kind: each is larger or smaller than others, and every reading is noisy."""
    rng, drifted, seen = np.random.default_rng(5), 0, 0
    of = np.repeat([f"machine {k}" for k in range(60)], 80)

    def fleet(moved: float = 0.0) -> dict[str, Any]:
        return {"x": np.repeat(rng.normal(size=60), 80) + rng.normal(size=60 * 80) + moved}

    for _ in range(40):
        reference = Reference.of(fleet(), entity=of)
        drifted += reference.compare(fleet(), entity=of).drifted is True
        seen += reference.compare(fleet(1.2), entity=of).drifted is True
    assert drifted <= 3
    assert seen >= 36
