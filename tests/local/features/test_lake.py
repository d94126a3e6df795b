"""Readings as files: whole or not there, in UTC to the microsecond, merged without losing one or hiding one from a reader."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.errors import Invalid
from mlrunbook.local.features import lake
from tests.local.platform.kit import reading

AT = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)


def frame(*asset_ids: str, wear: float = 100.0, **columns: object) -> pd.DataFrame:
    rows = [{"asset_id": asset_id} | reading(tool_wear_min=wear) for asset_id in asset_ids]
    return pd.DataFrame(rows).assign(**columns)


def rows(folder: Path) -> set[tuple[str, float, datetime]]:
    """Every row there, each once."""
    found = [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    return {(row["asset_id"], row["tool_wear_min"], row["event_timestamp"].replace(tzinfo=UTC)) for row in found}


def test_a_reading_comes_back_with_its_time_in_utc_to_the_microsecond(tmp_path: Path) -> None:
    tokyo = timezone(timedelta(hours=9))
    lake.land(tmp_path, frame("a"), AT.astimezone(tokyo))
    lake.land(tmp_path, frame("b", event_timestamp=[(AT - timedelta(days=1)).astimezone(tokyo)]))
    assert rows(tmp_path) == {("a", 100.0, AT), ("b", 100.0, AT - timedelta(days=1))}
    for file in tmp_path.glob("*.parquet"):
        assert {str(pq.read_schema(file).field(name).type) for name in ("event_timestamp", "created")} == {"timestamp[us]"}


def test_an_unknown_value_is_null_also_where_the_whole_column_is(tmp_path: Path) -> None:
    file = lake.land(tmp_path, frame("a", "b", torque_nm=None, type=[None, "M"]), AT)
    assert pq.read_table(file, columns=["type", "torque_nm"]).to_pylist() == [
        {"type": None, "torque_nm": None},
        {"type": "M", "torque_nm": None},
    ]
    assert pq.read_schema(file).equals(lake.schema())


def test_nothing_to_land_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no reading"):
        lake.land(tmp_path, frame("a").head(0), AT)


def test_a_look_knows_the_newest_event_time_and_the_oldest_of_what_is_new(tmp_path: Path) -> None:
    watch = lake.Watch(tmp_path / "not-there-yet")
    assert watch.look() == lake.Look(None, None, frozenset())
    lake.land(tmp_path / "not-there-yet", frame("a"), AT)
    lake.land(tmp_path / "not-there-yet", frame("b"), AT - timedelta(seconds=2))
    first = watch.look()
    assert (first.newest_at, first.fresh_oldest_at) == (AT, AT - timedelta(seconds=2))
    assert watch.look() == lake.Look(AT, None, first.files)


def test_a_file_that_is_still_written_is_not_seen_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.new").write_bytes(b"PAR1")
    watch = lake.Watch(tmp_path)
    assert watch.look().newest_at is None
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(Invalid, match=r"broken\.parquet is no usable Parquet file"):
        watch.look()
    (tmp_path / "broken.parquet").unlink()
    pd.DataFrame({"asset_id": ["a"]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(Invalid, match=r"foreign\.parquet"):
        watch.look()


def test_many_files_become_one_and_a_reader_that_had_listed_them_still_finds_them(tmp_path: Path) -> None:
    for i in range(5):
        lake.land(tmp_path, frame("a", "b", wear=float(i)), AT + timedelta(seconds=i))
    before, listed = rows(tmp_path), list(tmp_path.glob("*.parquet"))
    lake.compact(tmp_path, from_files=5)
    assert all(file.exists() for file in listed)
    lake.compact(tmp_path, from_files=5, grace_s=-1)
    (merged,) = tmp_path.glob("*.parquet")
    assert rows(tmp_path) == before
    assert pq.read_schema(merged).equals(lake.schema())
    times = pq.read_table(merged)["event_timestamp"].to_pylist()
    assert times == sorted(times)


def test_what_lands_while_files_are_merged_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        lake.land(tmp_path, frame("a", wear=float(i)), AT + timedelta(seconds=i))
    lake.compact(tmp_path, from_files=3)
    lake.land(tmp_path, frame("late"), AT + timedelta(seconds=1))
    lake.compact(tmp_path, from_files=3, grace_s=-1)
    assert ("late", 100.0, AT + timedelta(seconds=1)) in rows(tmp_path)
    assert len(rows(tmp_path)) == 4


def test_merged_rows_are_not_taken_for_late_ones(tmp_path: Path) -> None:
    for i in range(3):
        lake.land(tmp_path, frame("a"), AT + timedelta(seconds=i))
    watch = lake.Watch(tmp_path)
    watch.look()
    lake.compact(tmp_path, from_files=3, grace_s=-1)
    assert watch.look().fresh_oldest_at is None


def test_a_broken_file_does_not_stop_the_merging_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    for i in range(3):
        lake.land(tmp_path, frame("a", wear=float(i)), AT + timedelta(seconds=i))
    lake.compact(tmp_path, from_files=3)
    lake.compact(tmp_path, from_files=3, grace_s=-1)
    assert sorted(file.name.partition("-")[0] for file in tmp_path.glob("*.parquet")) == ["broken.parquet", "merged"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.just("now"), st.just("later"), st.integers(0, 5)), max_size=14))
def test_no_row_is_ever_lost_however_landing_and_merging_mix(steps: list[str | int]) -> None:
    """A number lands a reading that many seconds after AT; `now` merges and removes at once, `later` leaves the originals."""
    folder = Path(tempfile.mkdtemp(prefix="mlrb-lake-"))
    try:
        landed = set()
        for i, step in enumerate(steps):
            if isinstance(step, int):
                lake.land(folder, frame("a", wear=float(i)), AT + timedelta(seconds=step))
                landed.add(("a", float(i), AT + timedelta(seconds=step)))
            else:
                lake.compact(folder, from_files=2, grace_s=-1 if step == "now" else 60)
            assert rows(folder) == landed
    finally:
        shutil.rmtree(folder)
