"""What makes a figure wrong without a sound elsewhere: zones, words, gaps, keys, columns, permissions, budgets. Counted right, or said."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlrunbook.adapters.warehouse import files
from mlrunbook.adapters.warehouse.connection import Warehouse, _hang_up, _within
from mlrunbook.adapters.warehouse.log import WarehouseLog
from mlrunbook.adapters.warehouse.looking import Looking
from mlrunbook.adapters.warehouse.zones import Offset, offsets
from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.policy.connections import Columns, OutcomeColumns, PredictionsPart
from mlrunbook.domain.tally import Confusion

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
Tables = Callable[..., WarehouseLog]
PLAIN = "SELECT i AS prediction_id, TIMESTAMP '2026-11-02 11:00:00' + i * INTERVAL 1 MINUTE AS at, 0.9 AS score, 'v1' AS version"
SAID = "SELECT i AS prediction_id, true AS outcome, TIMESTAMP '2026-11-02 11:30:00' AS reported_at"
ROWS = " FROM range(10) AS r(i)"


def part(**changes: Any) -> PredictionsPart:
    return PredictionsPart("lake", **({"table": "predictions", "outcomes_table": "outcomes"} | changes))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """A folder with these two tables, and the log that the part makes of it."""

    def made(predictions: str = PLAIN + ROWS, reports: str | None = SAID + ROWS, *, now: datetime = NOW, **changes: Any) -> WarehouseLog:
        for name, query in (("predictions", predictions), ("outcomes", reports)):
            if query:
                duckdb.sql(f"COPY ({query}) TO '{tmp_path / name}.parquet'")
        one = part(**({} if reports else {"outcomes_table": None}), **changes)
        return WarehouseLog("lake", f"duckdb://{tmp_path}", lambda model: one, now=lambda: now)

    return made


def known(log: WarehouseLog, since: datetime = NOW - DAY, until: datetime = NOW) -> Any:
    return log.outcome_blocks("m", since=since, until=until, block_s=(until - since).total_seconds()).tally


# --- time


def test_the_hour_that_a_clock_shows_twice_is_counted_once_and_the_days_around_it_lie_where_they_should() -> None:
    turn = offsets("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 10, 27, tzinfo=UTC))
    assert turn == [Offset(datetime.fromisoformat("2026-10-25 03:00"), 7200), Offset(None, 3600)]
    assert offsets("UTC", NOW - 400 * DAY, NOW) == [Offset(None, 0)]


def test_times_without_a_zone_are_of_the_zone_that_policy_states_also_across_the_end_of_summer_time(tables: Tables) -> None:
    local = PLAIN.replace("11-02 11:00:00' + i * INTERVAL 1 MINUTE", "10-24 12:00:00' + i * INTERVAL 1 HOUR")
    words: dict[str, Any] = {"outcomes": OutcomeColumns(outcome="version"), "positive": ("v1",)}
    log = tables(local + " FROM range(48) AS r(i)", None, time_zone="Europe/Berlin", **words)
    noon = datetime(2026, 10, 24, 10, 0, tzinfo=UTC)  # 12:00 of summer time
    assert known(log, noon, noon + HOUR).n == 1
    assert known(log, noon, noon + 16 * HOUR).n == 15  # 02:00 to 03:00 happens twice, and its rows count as of the first
    assert known(log, noon, noon + 24 * HOUR).n == 23, "the day has 25 hours"


def test_an_outcome_is_found_that_comes_as_late_as_policy_says_and_a_later_one_is_not(tables: Tables) -> None:
    late = "SELECT i AS prediction_id, true AS outcome, TIMESTAMP '2026-11-02 11:00:00' + i * INTERVAL 1 DAY AS reported_at" + ROWS
    later = NOW + 30 * DAY
    assert known(tables(reports=late, now=later, late_outcomes_days=30)) == Confusion(tp=10)
    assert known(tables(reports=late, now=later, late_outcomes_days=4)).n in (5, 6)


# --- values


def test_nan_is_no_score_and_no_latency_in_postgres_either(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS scores")
        db.execute("CREATE TABLE scores (prediction_id text, at timestamptz, score float8, ms float8, outcome text, x float8)")
        rows = [
            ("a", "NaN", "1", "true", "1"),
            ("b", "0.9", "NaN", "true", "NaN"),
            ("c", "0.2", "20", "false", None),
            (None, "0.7", "30", None, "2"),
        ]
        for key, score, ms, outcome, x in rows:
            db.execute("INSERT INTO scores VALUES (%s, %s, %s, %s, %s, %s)", (key, NOW - HOUR, score, ms, outcome, x))
    one = part(table="scores", outcomes_table=None, columns=Columns(version=None, latency_ms="ms"))
    log = WarehouseLog("lake", database_url, lambda _: one, now=lambda: NOW)
    window = log.metrics("m", since=NOW - DAY, until=NOW).current
    assert (window.predictions, window.tally, window.errors) == (3, Confusion(tp=1, tn=1), {"scoring": 1})
    assert window.latency_p95_ms == pytest.approx(29.5)
    assert window.null_rate == pytest.approx(2 / 3), "NaN and null are both empty"
    assert window.error_rate == 0.25
    assert [one.label for one in log.prediction_log("m", since=NOW - DAY)].count(True) == 2


@pytest.mark.parametrize(
    ("outcome", "changes", "expected"),
    [
        ("CASE WHEN i < 4 THEN 'Yes ' WHEN i < 6 THEN '' ELSE 'n' END", {}, Confusion(tp=4, fp=4)),
        ("CAST(i < 4 AS INTEGER)", {}, Confusion(tp=4, fp=6)),
        ("CAST(CAST(i < 4 AS INTEGER) AS DECIMAL(9, 2))", {}, Confusion(tp=4, fp=6)),
        ("CASE WHEN i < 4 THEN 2.0 WHEN i < 6 THEN 'nan'::DOUBLE ELSE 0 END", {"positive": ("2",)}, Confusion(tp=4, fp=4)),
        ("i >= 4", {"positive": ("false",)}, Confusion(tp=4, fp=6)),
    ],
)
def test_yes_and_no_are_read_of_any_type(tables: Tables, outcome: str, changes: dict[str, Any], expected: Confusion) -> None:
    log = tables(reports=SAID.replace("true AS outcome", f"{outcome} AS outcome") + ROWS, **changes)
    assert known(log) == expected


AGAIN = f"{SAID}{ROWS} UNION ALL {SAID.replace('true AS', 'false AS')}"
UNTIMED = OutcomeColumns(reported_at=None)
REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "an outcome that is neither": (PLAIN, SAID.replace("true AS", "'pending' AS"), {}, "pending"),
    "two outcomes and no time": (PLAIN, AGAIN, {"outcomes": UNTIMED}, "10"),
    "two outcomes at one time": (PLAIN, AGAIN, {}, "10"),
    "an outcome without its time": (PLAIN, SAID.replace("TIMESTAMP '2026-11-02 11:30:00'", "NULL::TIMESTAMP"), {}, "reported_at"),
    "a key that is no id": (PLAIN.replace("i AS prediction_id", "i // 5 AS prediction_id"), SAID, {}, "prediction_id"),
    "a column that is not there": (PLAIN.replace("AS score", "AS scores"), SAID, {}, "'scores'"),
    "a column of another type": (PLAIN.replace("0.9 AS", "'high' AS"), SAID, {}, "score"),
    "a time that is none": (PLAIN.replace("TIMESTAMP '2026-11-02 11:00:00' + i * INTERVAL 1 MINUTE", "1793617200 + i"), SAID, {}, "'at'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_make_a_figure_wrong_is_refused_by_its_name(tables: Tables, case: str) -> None:
    predictions, outcomes, changes, named = REFUSED[case]
    log = tables(predictions + ROWS, outcomes + ROWS, **changes)
    with pytest.raises(Refused, match=named):
        known(log)


def test_a_score_in_percent_is_refused(tables: Tables) -> None:
    with pytest.raises(Refused, match="87"):
        tables(PLAIN.replace("0.9 AS", "87.0 AS") + ROWS).metrics("m", since=NOW - DAY, until=NOW)


def test_keys_of_two_types_join_and_those_of_a_row_that_came_twice_count_once(tables: Tables) -> None:
    twice = f"{PLAIN}{ROWS} UNION ALL {PLAIN} FROM range(3) AS r(i)"
    log = tables(twice, SAID.replace("i AS", "CAST(i AS VARCHAR) AS") + ROWS)
    assert known(log) == Confusion(tp=10)
    assert len(log.prediction_log("m", limit=50)) == 10
    assert log.metrics("m", since=NOW - DAY, until=NOW).current.predictions == 10


def test_a_log_without_versions_refuses_a_question_about_one(tables: Tables) -> None:
    log = tables(columns=Columns(version=None))
    with pytest.raises(Refused):
        log.metrics("m", since=NOW - DAY, until=NOW, version="v1")


def test_columns_that_only_some_files_have_and_names_in_another_case_are_found(tmp_path: Path) -> None:
    for day, more in (("2026-11-01", ", 3.0 AS extra"), ("2026-11-02", "")):
        folder = tmp_path / "p" / f"day={day}"
        folder.mkdir(parents=True)
        upper = PLAIN.replace("i AS", "i + 10 AS" if more else "i AS").replace("score", '"SCORE"')
        duckdb.sql(f"COPY ({upper}, true AS outcome{more}{ROWS}) TO '{folder}/a.parquet'")
    one = part(table="p", outcomes_table=None, columns=Columns(day="day", features=("extra",)))
    log = WarehouseLog("lake", f"duckdb://{tmp_path}", lambda _: one, now=lambda: NOW)
    rows = log.prediction_log("m", limit=20)
    assert {row.features["extra"] for row in rows} == {None, 3.0}


# --- places, permissions, budgets


@pytest.fixture
def reader(database_url: str) -> Iterator[str]:
    """The address of a role that may read one of two tables."""
    with psycopg.connect(database_url, autocommit=True) as db:
        for statement in (
            "CREATE TABLE seen AS SELECT g AS prediction_id, now() AS at, 0.9 AS score, 'v1' AS version, true AS outcome "
            "FROM generate_series(1, 20) g",
            "CREATE TABLE hidden AS SELECT * FROM seen",
            "CREATE ROLE watcher LOGIN PASSWORD 'w4tcher'",
            "GRANT SELECT ON seen TO watcher",
        ):
            db.execute(statement)
        yield database_url.replace("//postgres:", "//watcher:")
        for statement in ("DROP TABLE seen, hidden", "DROP ROLE watcher"):
            db.execute(statement)


def test_select_alone_suffices_and_what_else_is_wrong_in_postgres_is_one_line_without_the_password(reader: str) -> None:
    def log(token: str = "w4tcher", **changes: Any) -> WarehouseLog:
        one = part(**({"table": "seen", "outcomes_table": None} | changes))
        return WarehouseLog("lake", reader, lambda _: one, token=token)

    now = datetime.now(UTC)
    asked: dict[str, Any] = {"since": now - HOUR, "until": now + HOUR}
    assert known(log(), **asked) == Confusion(tp=20)
    assert known(log(table=None, query="SELECT * FROM seen -- all"), **asked) == Confusion(tp=20)
    assert log().metrics("m", **asked).current.tally == Confusion(tp=20)
    for wrong, error in (
        (log(token="n0t-it"), Refused),
        (log(table="hidden"), Refused),
        (log(table="sen"), NotFound),
        (log(table=None, query="SELECT *, 1 / 0 AS x FROM seen WHERE 1 / (prediction_id - 1) > 0"), Refused),
        (log(table=None, query="SELECT *, pg_sleep(30) FROM seen", timeout_s=0.3), Transient),
        (log(table=None, query="WITH d AS (DELETE FROM seen RETURNING *) SELECT * FROM d"), Refused),
        (log(most_rows=1), Refused),
    ):
        with pytest.raises(error) as caught:
            known(wrong, **asked)
        assert "n0t-it" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with Warehouse("lake", reader, "w4tcher").look(5) as look, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        look.fetch("CREATE TEMP TABLE t (a int)")
    assert Looking("lake", reader, "w4tcher").tables() == ["seen"]


def test_nobody_there_may_pass_and_nothing_there_does_not(tmp_path: Path) -> None:
    def ask(address: str, **changes: Any) -> Any:
        return known(WarehouseLog("lake", address, lambda _: part(**changes)))

    with pytest.raises(Transient):
        ask("postgresql://someone:s3cret@127.0.0.1:1/lake")
    for address in (f"duckdb://{tmp_path}/none", f"duckdb://{tmp_path}/none.duckdb", f"duckdb://{tmp_path}"):
        with pytest.raises(NotFound):
            ask(address)
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises((Refused, Transient)):
        ask(f"duckdb://{tmp_path}", outcomes_table=None)


def test_files_outside_of_the_folder_are_not_read_and_nothing_is_written(tables: Tables, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.csv"
    outside.write_text("a\n1\n")
    tables()
    with Warehouse("lake", f"duckdb://{tmp_path}").look(5) as look, pytest.raises(duckdb.PermissionException):
        look.fetch(f"SELECT * FROM read_csv('{outside}')")
    with pytest.raises(Refused):
        known(tables(table=None, query=f"SELECT * FROM read_csv('{outside}')"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1) AS x; COPY (SELECT 1 AS a) TO '{folder}/made.parquet'; SELECT * FROM (SELECT 1",
        "SELECT 1; COPY (SELECT 1 AS a) TO '{folder}/made.parquet'",
        "COPY (SELECT 1 AS a) TO '{folder}/made.parquet'",
        "ATTACH '{folder}/made.parquet'",
        "SELECT",
    ],
)
def test_a_query_is_one_select_and_writes_nothing(tables: Tables, tmp_path: Path, query: str) -> None:
    with pytest.raises(Refused):
        known(tables(table=None, query=query.format(folder=tmp_path)))
    assert not (tmp_path / "made.parquet").exists()


def test_a_query_that_closes_our_parenthesis_changes_nothing_in_postgres(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute("CREATE TABLE kept AS SELECT 1 AS a")
        evil = "SELECT 1) AS x; COMMIT; BEGIN READ WRITE; DELETE FROM kept; COMMIT; SELECT * FROM (SELECT 1"
        with pytest.raises(Refused):
            Looking("lake", database_url).query(evil)
        assert db.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        db.execute("DROP TABLE kept")


def test_a_name_of_a_column_is_only_a_name(tmp_path: Path) -> None:
    name = "at\" AS TIMESTAMPTZ) AS y) FROM r; COPY (SELECT 1) TO 'made.parquet'; --"
    pq.write_table(pa.table({name: pa.array([NOW], pa.timestamp("ns", "UTC"))}), tmp_path / "t.parquet")
    assert [column.name for column in Looking("lake", f"duckdb://{tmp_path}").table("t").columns] == [name]


def test_an_interrupt_that_duckdb_loses_comes_again() -> None:
    slow = "SELECT count(*) FROM range(100000) a, range(1000000) b WHERE hash(a.range + b.range) = 1"
    for _ in range(5):  # about every second one that comes as the statement begins is lost
        with duckdb.connect() as db, pytest.raises(duckdb.InterruptException), _within(0.0001, db.interrupt):
            db.execute(slow)


def test_a_server_that_says_nothing_more_holds_nobody(database_url: str) -> None:
    """As one that is stopped: it takes the statement, and neither answers nor ends."""
    with psycopg.connect(database_url) as db, pytest.raises(psycopg.OperationalError), _within(0.1, lambda: _hang_up(db)):
        db.execute("SELECT pg_sleep(600)")


def test_what_the_address_says_of_options_holds_beside_ours(database_url: str) -> None:
    more = "&" if "?" in database_url else "?"
    log = Warehouse("lake", f"{database_url}{more}options=-c%20search_path%3Dpg_catalog")
    with log.look(5) as look:
        assert look.fetch("SELECT current_setting('search_path') AS s, current_setting('default_transaction_read_only') AS r") == [
            {"s": "pg_catalog", "r": "on"}
        ]


@pytest.mark.parametrize(
    "address", ["postgresql://u:hu%zzsh@db/lake", "postgresql://db/lake?password=hu%zzsh", "nothing://u:hu%zzsh@db/lake"]
)
def test_no_password_stands_in_an_error_nor_in_what_it_is_chained_to(address: str) -> None:
    with pytest.raises(Refused) as caught:
        Looking("lake", address).tables()
    assert "hu%zzsh" not in "".join(traceback.format_exception(caught.value))


def test_a_look_that_takes_too_long_is_stopped(tables: Tables) -> None:
    slow = "SELECT p.* FROM predictions p, (SELECT count(*) FROM range(100000) a, range(1000000) b WHERE hash(a.range + b.range) = 1) AS c"
    with pytest.raises(Transient):
        known(tables(table=None, query=slow, timeout_s=0.5))


def test_a_file_of_duckdb_is_let_go_after_a_look(tmp_path: Path) -> None:
    file = tmp_path / "lake.duckdb"
    with duckdb.connect(str(file)) as db:
        db.execute(f"CREATE TABLE predictions AS {PLAIN}, true AS outcome {ROWS}")
    log = WarehouseLog("lake", f"duckdb://{file}", lambda _: part(outcomes_table=None), now=lambda: NOW)
    assert known(log) == Confusion(tp=10)
    with duckdb.connect(str(file)) as db:
        db.execute("DELETE FROM predictions WHERE prediction_id = 0")
    assert known(log) == Confusion(tp=9)


def test_a_pattern_makes_one_table_and_a_folder_one_each(tables: Tables, tmp_path: Path) -> None:
    tables()
    assert Looking("lake", f"duckdb://{tmp_path}").tables() == ["outcomes", "predictions"]
    alone = Looking("lake", f"duckdb://{tmp_path}/pred*.parquet")
    (name,) = alone.tables()
    table = alone.table(name)
    assert [(column.name, column.is_time) for column in table.columns][:2] == [("prediction_id", False), ("at", True)]
    assert alone.span(name, "at") == (datetime.fromisoformat("2026-11-02 11:00"), datetime.fromisoformat("2026-11-02 11:09"))
    assert alone.values_of(name, "version") == [("v1", 10)]
    assert Looking("lake", f"duckdb://{tmp_path}").matched("outcomes", "prediction_id", "predictions", "prediction_id") == 1.0
    assert files.Place.of("duckdb:///a/b.duckdb").database == Path("/a/b.duckdb")


def test_a_flow_without_a_warehouse_pays_for_none() -> None:
    import subprocess

    modules = "sys, mlrunbook.adapters.warehouse.log, mlrunbook.adapters.warehouse.looking"
    code = f"import {modules}; sys.exit(bool({{'ibis', 'duckdb'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
