"""The fleet follows the published AI4I 2020 process; figures are that paper's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.errors import Invalid
from mlrunbook.drills.simulator.fleet import MODES, Fleet
from mlrunbook.local.platform import columns

READING = {
    "type": "L",
    "air_temperature_k": 300.0,
    "process_temperature_k": 310.5,
    "rotational_speed_rpm": 1500,
    "torque_nm": 40.0,
    "tool_wear_min": 100,
}


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    return Fleet(seed=7).readings(100_000)


def test_about_three_and_a_half_percent_of_readings_are_failures(readings: pd.DataFrame) -> None:
    assert readings["failed"].mean() == pytest.approx(0.034, abs=0.004)


def test_a_reading_failed_exactly_when_one_failure_mode_occurred(readings: pd.DataFrame) -> None:
    assert (readings["failed"] == readings[list(MODES)].any(axis=1)).all()
    assert all(readings[mode].sum() > 50 for mode in MODES)


def test_the_published_ranges_and_shares_hold(readings: pd.DataFrame) -> None:
    assert readings["type"].value_counts(normalize=True).to_dict() == pytest.approx({"L": 0.6, "M": 0.3, "H": 0.1}, abs=0.06)
    assert readings["air_temperature_k"].mean() == pytest.approx(300, abs=0.2)
    assert readings["air_temperature_k"].std() == pytest.approx(2, abs=0.2)
    assert (readings["process_temperature_k"] - readings["air_temperature_k"]).std() == pytest.approx(1, abs=0.1)
    assert readings["rotational_speed_rpm"].mean() == pytest.approx(1539, abs=30)
    assert np.corrcoef(readings["torque_nm"], readings["rotational_speed_rpm"])[0, 1] == pytest.approx(-0.875, abs=0.03)
    assert readings["torque_nm"].min() >= 3.8
    assert readings["tool_wear_min"].max() <= 245


def test_tools_wear_by_5_3_or_2_minutes_a_use_for_types_h_m_and_l(readings: pd.DataFrame) -> None:
    steps = readings.groupby("asset_id")["tool_wear_min"].diff()
    worn = steps[steps > 0].groupby(readings["type"]).agg(["min", "max"])
    for asset_type, minutes in (("H", 5), ("M", 3), ("L", 2)):
        assert worn.loc[asset_type].tolist() == pytest.approx([minutes, minutes])


def test_failures_obey_the_published_rules(readings: pd.DataFrame) -> None:
    engineered = columns.engineer(readings)
    hot = readings["hdf"]
    assert (engineered.loc[hot, "temperature_difference_k"] < 8.75).all()  # 8.6 K, plus the rounding of two temperatures
    assert (readings.loc[hot, "rotational_speed_rpm"] <= 1380).all()
    assert not engineered.loc[readings["pwf"], "power_w"].between(3550, 8950).any()
    assert (engineered.loc[readings["osf"], "strain_min_nm"] > 10_980).all()
    assert (readings.loc[readings["twf"], "tool_wear_min"] >= 200).all()


def test_any_window_of_the_stream_looks_like_any_other(readings: pd.DataFrame) -> None:
    shares = readings["failed"].to_numpy().reshape(5, -1).mean(axis=1)
    assert shares.max() - shares.min() < 0.008


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 1300), min_size=1, max_size=4))
def test_the_same_seed_gives_the_same_stream_however_it_is_cut(cuts: list[int]) -> None:
    whole, fleet = Fleet(seed=3).readings(sum(cuts)), Fleet(seed=3)
    pieces = pd.concat([fleet.readings(n) for n in cuts], ignore_index=True)
    pd.testing.assert_frame_equal(pieces, whole.reset_index(drop=True))


def test_a_reading_with_a_missing_column_is_refused_by_name() -> None:
    for name in columns.RAW:
        with pytest.raises(Invalid, match=name) as caught:
            columns.check({k: v for k, v in READING.items() if k != name})
        assert caught.value.field == f"features.{name}"


@pytest.mark.parametrize("value", ["1500", True, float("nan"), float("inf"), [1500], {}])
def test_a_reading_with_a_wrong_type_is_refused_by_name(value: object) -> None:
    with pytest.raises(Invalid, match="torque_nm"):
        columns.check(READING | {"torque_nm": value})


@pytest.mark.parametrize("value", ["", "X" * 65, 1, ["L"], {}])
def test_an_asset_type_is_a_short_text(value: object) -> None:
    with pytest.raises(Invalid, match="text of 1 to 64 characters"):
        columns.check(READING | {"type": value})


def test_nulls_are_allowed_and_counted() -> None:
    assert columns.check(READING) == 0
    holes = READING | {"type": None, "torque_nm": None}
    assert columns.check(holes) == 2
    engineered = columns.engineer(columns.as_frame([READING, holes]))
    assert engineered.notna().all(axis=1).tolist() == [True, False]
    assert np.isnan(engineered.loc[1, "power_w"])


def test_engineered_columns_are_physical_quantities() -> None:
    row = columns.engineer(columns.as_frame([READING])).iloc[0]
    assert row["temperature_difference_k"] == pytest.approx(10.5)
    assert row["power_w"] == pytest.approx(40 * 1500 * 2 * np.pi / 60)
    assert row["strain_min_nm"] == 4000
