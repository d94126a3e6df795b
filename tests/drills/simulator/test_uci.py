"""The real table is read by its own column names; the tests write one of that form from the fleet."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from mlrunbook.domain.errors import Invalid
from mlrunbook.drills.simulator.fleet import MODES, Fleet
from mlrunbook.drills.simulator.uci import COLUMNS, UciTable, read_table
from mlrunbook.local.platform.columns import RAW
from mlrunbook.local.platform.training import confusion, train


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """10,000 rows as UCI writes them."""
    readings = Fleet(seed=5).readings(10_000).reset_index(names="udi")
    readings["udi"] += 1
    readings = readings.astype({name: int for name in ("failed", *MODES)})
    return readings.rename(columns={ours: theirs for theirs, ours in COLUMNS.items()})[list(COLUMNS)]


def write(folder: Path, table: pd.DataFrame) -> Path:
    table.to_csv(folder / "ai4i2020.csv", index=False)
    return folder / "ai4i2020.csv"


def test_the_table_has_the_interface_of_the_fleet(tmp_path: Path, table: pd.DataFrame) -> None:
    source, fleet = UciTable(write(tmp_path, table), seed=1), Fleet(seed=1)
    assert set(source.readings(10).columns) == set(fleet.readings(10).columns)
    assert source.readings(10)["failed"].dtype == bool
    assert len(source.readings(30_000)) == 30_000


def test_training_rows_are_all_older_than_any_traffic(tmp_path: Path, table: pd.DataFrame) -> None:
    table = table.assign(**{"Product ID": [f"M{udi}" for udi in table["UDI"]]})
    source = UciTable(write(tmp_path, table.sample(frac=1, random_state=0)), seed=1)  # shuffled: UDI gives the order
    newest_trained = source.training(10_000)["asset_id"].str[1:].astype(int).max()
    oldest_served = source.readings(20_000)["asset_id"].str[1:].astype(int).min()
    assert newest_trained == 6000 < oldest_served


def test_a_model_learns_the_table(tmp_path: Path, table: pd.DataFrame) -> None:
    now = datetime(2024, 6, 1, tzinfo=UTC)
    source = UciTable(write(tmp_path, table), seed=1)
    _, manifest = train(source.training(10_000), model="m", version="v1.5.0", seed=0, trained_from=now, trained_to=now)
    assert (manifest.metrics["f1"] or 0) > 0.6
    assert manifest.rows == 6000


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_named_together_with_the_file(tmp_path: Path, table: pd.DataFrame, name: str) -> None:
    path = write(tmp_path, table.head(20).drop(columns=name))
    with pytest.raises(Invalid) as caught:
        read_table(path)
    assert repr(name) in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.field == name


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", b'{"not": "a table"}', b'a,b\n"1,2\n3,4,5'])
def test_a_file_that_is_not_the_table_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"data\.csv") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_an_absent_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(Invalid, match="not a readable CSV"):
            read_table(path)


@pytest.mark.parametrize(
    ("column", "value"), [("Torque [Nm]", "much"), ("Torque [Nm]", ""), ("Type", "X"), ("TWF", "3"), ("Machine failure", "yes")]
)
def test_a_bad_value_is_refused_with_its_column(tmp_path: Path, table: pd.DataFrame, column: str, value: str) -> None:
    broken = table.head(20).astype(object)
    broken.loc[3, column] = value
    with pytest.raises(Invalid) as caught:
        read_table(write(tmp_path, broken))
    assert column in str(caught.value)


def test_a_table_too_small_to_learn_from_is_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(Invalid, match="too few failures"):
        UciTable(write(tmp_path, table[table["Machine failure"] == 0].head(50)), seed=1)


def test_the_same_seed_draws_the_same_traffic(tmp_path: Path, table: pd.DataFrame) -> None:
    path = write(tmp_path, table)
    first, second = UciTable(path, seed=4).readings(500), UciTable(path, seed=4).readings(500)
    pd.testing.assert_frame_equal(first, second)
    assert confusion(first["failed"].to_numpy(), second["failed"].to_numpy()).fn == 0
    assert set(RAW) <= set(first.columns)
