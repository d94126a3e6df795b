"""The log as one table of checked rows: what cannot be read is counted by reason with an example, never dropped in silence."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlrunbook.adapters.history.mapping import Columns
from mlrunbook.adapters.history.source import Source, column, quoted
from mlrunbook.domain.backtest.result import BadRows
from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY, THREADS = "1200MB", 2
EARLIEST_S = 315_532_800  # 1980: a smaller number is no time of a prediction
MOST_FEATURES = 200
MOST_MODELS = 100
COUNTED, LEAST_COUNTED = 2000, 20  # rows that are looked at to know a counter
NUMBERS = (
    "DOUBLE",
    "FLOAT",
    "DECIMAL",
    "BIGINT",
    "INTEGER",
    "HUGEINT",
    "TINYINT",
    "SMALLINT",
    "UBIGINT",
    "UINTEGER",
    "USMALLINT",
    "UTINYINT",
)

REASONS = (
    "the time cannot be read",
    "the prediction is in the future",
    "the score is no number",
    "the score is outside 0 to 1",
    "the label is neither 0 nor 1",
    "there is no score and no label",
    "the threshold is no number from 0 to 1",
    "the outcome is neither 0 nor 1",
    "the outcome's time cannot be read",
    "the outcome is older than its prediction",
    "the outcome is in the future",
    "the prediction id was used before",
    "the time lies far from nearly all others",
)
DUPLICATE, FAR = len(REASONS) - 1, len(REASONS)
FEW = 0.001  # of the rows: further away than all others reach, they are a clock that was reset, and would stretch every block of time
TRUTHS = "write 1 or 0, true or false, yes or no, failed or ok"
NEXT = {
    "the time cannot be read": "write times as 2026-01-31T12:00:00Z, or as seconds since 1970",
    "the score is no number": "write scores from 0 to 1 with a decimal point and no sign behind; a text is a label: --column label=NAME",
    "the score is outside 0 to 1": "divide scores and thresholds in percent by 100; a score without bounds is no probability",
    "the label is neither 0 nor 1": TRUTHS,
    "there is no score and no label": "leave out the rows that were never scored",
    "the threshold is no number from 0 to 1": "write it on the scale of the score; --column threshold= ignores the column",
    "the outcome is neither 0 nor 1": f"{TRUTHS}, and nothing where it is not known",
    "the outcome's time cannot be read": "write times as 2026-01-31T12:00:00Z, or as seconds since 1970",
    "the outcome is older than its prediction": "are the two times swapped, or in two time zones?",
    "the prediction id was used before": "is it the id of something else? --column id=NAME names another, --column id= none",
}
YES = ("1", "1.0", "true", "t", "yes", "y", "failed", "fail", "failure", "positive")
NO = ("0", "0.0", "false", "f", "no", "n", "ok", "normal", "healthy", "negative")
CHECKED = ("time", "score", "label", "threshold", "outcome", "outcome_time")
NO_LINE = "the line is no row of this CSV"


@dataclass(frozen=True)
class Staged:
    """The table `log` of `db`; `rows` were read, those of `bad` are not in it any more."""

    db: DuckDBPyConnection
    columns: Columns
    features: Mapping[str, str]  # the name of each -> its column in `log`
    numeric: frozenset[str]
    truths: frozenset[str]
    rows: int
    bad: tuple[BadRows, ...]
    counters: tuple[str, ...] = ()  # features that are none: they only count up or down with the rows

    @property
    def is_delayed(self) -> bool:
        return "outcome_time" in self.columns.of


@contextmanager
def database() -> Iterator[DuckDBPyConnection]:
    """One that lives as long as the backtest; what does not fit into memory is on disk meanwhile."""
    import duckdb

    folder = Path(tempfile.mkdtemp(prefix="mlrunbook-backtest-"))
    db = duckdb.connect(str(folder / "log.duckdb"))
    try:
        for setting in (f"memory_limit = '{MEMORY}'", f"threads = {THREADS}", "TimeZone = 'UTC'", "enable_progress_bar = false"):
            db.execute(f"SET {setting}")
        db.execute(f"SET temp_directory = {quoted(str(folder))}")
        db.execute("SET autoinstall_known_extensions = false")
        yield db
    finally:
        db.close()
        shutil.rmtree(folder, ignore_errors=True)


def stage(db: DuckDBPyConnection, source: Source, columns: Columns, now_s: float, progress: Callable[[str], None]) -> Staged:
    import duckdb

    progress("reading")
    features = {name: f"f{i}" for i, name in enumerate(columns.features[:MOST_FEATURES])}
    try:
        db.execute(_sql(source, columns, features, now_s))
    except duckdb.Error as error:
        raise unreadable(source, error) from error
    if source.has_changed:
        raise Invalid(f"{source.path} changed while it was read: copy it, and name the copy")
    progress("checking")
    if "id" in columns.of:
        _mark_duplicates(db)
    _mark_far(db)
    bad = (*_rejected(db, source), *_bad(db))
    (rows,) = db.execute("SELECT count(*) FROM log").fetchone() or (0,)
    if any(b.reason != NO_LINE for b in bad):
        db.execute("DELETE FROM log WHERE reason > 0")
    numeric = frozenset(name for name in features if source.types[name].startswith(NUMBERS))
    truths = frozenset(name for name in features if source.types[name] == "BOOLEAN")
    staged = Staged(db, columns, features, numeric, truths, rows + sum(b.count for b in bad if b.reason == NO_LINE), bad)
    if 2 * sum(b.count for b in bad) >= staged.rows:
        raise Invalid(_too_few(source, staged.rows, bad))
    counters = () if columns.features_named else _counters(staged, rows)
    return replace(staged, features={name: alias for name, alias in features.items() if name not in counters}, counters=counters)


def _counters(staged: Staged, rows: int) -> tuple[str, ...]:
    """Numeric features that rise or fall with every row, in the order of the file or of time: row numbers, ids, times."""
    import numpy as np

    names = sorted(staged.numeric)
    if not names:
        return ()
    values = ", ".join(f"TRY_CAST({staged.features[name]} AS DOUBLE)" for name in names)
    found = staged.db.execute(
        f"SELECT at_s, {values} FROM log WHERE row % {max(rows // COUNTED, 1)} = 0 ORDER BY row LIMIT {2 * COUNTED}"
    ).fetchall()
    in_file = np.asarray(found, float)
    in_file[~np.isfinite(in_file)] = np.nan
    if len(in_file) < LEAST_COUNTED:
        return ()
    in_time = in_file[np.argsort(in_file[:, 0], kind="stable")]
    steps = [np.diff(order[:, 1:], axis=0) for order in (in_file, in_time)]
    counts = np.any([(way * step > 0).all(axis=0) for step in steps for way in (1, -1)], axis=0)
    return tuple(name for name, is_counter in zip(names, counts, strict=True) if is_counter)


def only_model(db: DuckDBPyConnection, source: Source, columns: Columns, model: str) -> Source:
    """The rows of one model, where a column tells models apart; Invalid where it holds several and `model` is none of them."""
    import duckdb

    if "model" not in columns.of:
        return source
    by = columns.of["model"]
    try:
        found = db.execute(
            f"SELECT CAST({column(by)} AS VARCHAR) AS m, count(*) FROM {source.scan} GROUP BY m ORDER BY 2 DESC, m LIMIT {MOST_MODELS}"
        ).fetchall()
    except duckdb.Error as error:
        raise unreadable(source, error) from error
    names = [str(name) for name, _ in found if name is not None]
    if model in names:
        return source.only(by, model)
    if len(found) < 2:
        return source
    listed = ", ".join(name[:60] for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise Invalid(
        f"column {by!r} holds several models ({listed}): name one with --model, or pass --column model= if it tells no models apart",
        field="model",
    )


def no_room(error: Exception) -> Invalid:
    words = " ".join(str(error).split())[:200]
    return Invalid(f"the replay stopped: {words}; is there room in {tempfile.gettempdir()}? TMPDIR names another folder")


def unreadable(source: Source, error: Exception) -> Invalid:
    if any(word in str(error).lower() for word in ("write", "no space", "out of memory")):
        return no_room(error)
    return Invalid(f"{source.path} cannot be read to its end: {' '.join(str(error).split())[:200]}")


def _too_few(source: Source, rows: int, bad: tuple[BadRows, ...]) -> str:
    """What the rest says is not what the log says: half of it may be half of the outcomes."""
    if not bad:
        return f"{source.path} holds a header and no row: export the predictions again"
    worst, unusable = max(bad, key=lambda b: b.count), sum(b.count for b in bad)
    share = "no row" if unusable == rows else f"only {rows - unusable:,} of {rows:,} rows"
    how = f": {NEXT[worst.reason]}" if worst.reason in NEXT else ""
    return f"{share} of {source.path} can be used; in {worst.count:,} rows {worst.reason} ({worst.example}){how}"


def _sql(source: Source, columns: Columns, features: Mapping[str, str], now_s: float) -> str:
    of = columns.of
    types = {role: "VARCHAR" if source.is_text else source.types[name] for role, name in of.items()}

    def read(role: str, how: Callable[[str, str], str]) -> str:
        return how(column(of[role]), types[role]) if role in of else "NULL"

    def text(role: str) -> str:
        return f"CAST({column(of[role])} AS VARCHAR)" if role in of else "NULL"

    values = [
        f"{read('time', _seconds)} AS at_s", f"{read('score', _number)} AS raw_score", f"{read('label', _truth)} AS raw_label",
        f"{read('threshold', _number)} AS raw_threshold", f"{read('outcome', _truth)} AS outcome",
        f"{read('outcome_time', _seconds)} AS raw_known_s",
        *(f"{column(of[role])} AS r_{role}" for role in CHECKED if role in of),
        f"{'hash(' + column(of['id']) + ')' if 'id' in of else 'NULL'} AS id",
        f"{text('asset')} AS asset", f"{text('segment')} AS segment", f"{text('version')} AS version",
        *(f"{column(name)} AS {alias}" for name, alias in features.items()),
    ]  # fmt: skip
    # Without the count of rows, two threads may leave them in another order, whatever preserve_insertion_order says (DuckDB 2.0).
    known = "raw_known_s" if "outcome_time" in of else f"at_s + {columns.outcome_delay_s or 0.0!r}"
    cases = list(_cases(types, now_s))
    whens = " ".join(f"WHEN {condition} THEN {REASONS.index(reason) + 1}" for reason, condition, _ in cases)
    shown = " ".join(f"WHEN {condition} THEN CAST(r_{role} AS VARCHAR)" for _, condition, role in cases)
    threshold = f"coalesce(raw_threshold, {columns.threshold!r})"
    return f"""
        CREATE TABLE log AS
        WITH raw AS (SELECT row_number() OVER () AS row, {", ".join(values)} FROM {source.scan})
        SELECT row, at_s, coalesce(raw_score, CAST(raw_label AS INT)) AS score, coalesce(raw_label, raw_score >= {threshold}) AS flag,
            {threshold} AS threshold, outcome, CASE WHEN outcome IS NULL THEN NULL ELSE {known} END AS known_s,
            id, asset, segment, version, CASE {whens} ELSE 0 END AS reason, left(CASE {shown} END, 200) AS example
            {"".join(", " + alias for alias in features.values())}
        FROM raw"""


def _cases(types: Mapping[str, str], now_s: float) -> Iterator[tuple[str, str, str]]:
    """Reason, condition, and the role whose value is shown; the first that holds counts."""

    def filled(role: str) -> str:
        if types[role] != "VARCHAR":
            return f"r_{role} IS NOT NULL"
        return f"(r_{role} IS NOT NULL AND lower(trim(r_{role})) NOT IN ('', 'null', 'none', 'nan', 'na', 'n/a'))"

    yield REASONS[0], f"at_s IS NULL OR NOT isfinite(at_s) OR at_s < {EARLIEST_S}", "time"
    yield REASONS[1], f"at_s > {now_s!r}", "time"
    if "score" in types:
        yield REASONS[2], f"(raw_score IS NULL AND {filled('score')}) OR isnan(raw_score)", "score"
        yield REASONS[3], "raw_score < 0 OR raw_score > 1", "score"
    if "label" in types:
        yield REASONS[4], f"raw_label IS NULL AND {filled('label')}", "label"
    yield REASONS[5], "raw_label IS NULL AND raw_score IS NULL", "time"
    if "threshold" in types:
        yield REASONS[6], f"(raw_threshold IS NULL AND {filled('threshold')}) OR NOT raw_threshold BETWEEN 0 AND 1", "threshold"
    yield REASONS[7], f"outcome IS NULL AND {filled('outcome')} AND NOT coalesce(isnan(TRY_CAST(r_outcome AS DOUBLE)), false)", "outcome"
    if "outcome_time" in types:
        yield REASONS[8], "outcome IS NOT NULL AND (raw_known_s IS NULL OR NOT isfinite(raw_known_s))", "outcome_time"
        yield REASONS[9], "outcome IS NOT NULL AND raw_known_s < at_s", "outcome_time"
        yield REASONS[10], f"outcome IS NOT NULL AND raw_known_s > {now_s!r}", "outcome_time"


def _seconds(name: str, type_: str) -> str:
    if type_.startswith(("TIMESTAMP", "DATE")):
        return f"epoch(CAST({name} AS {'TIMESTAMPTZ' if 'TZ' in type_ or 'ZONE' in type_ else 'TIMESTAMP'}))"
    if type_ == "VARCHAR":
        return f"coalesce(epoch(TRY_CAST({name} AS TIMESTAMPTZ)), {_epoch(f'TRY_CAST({name} AS DOUBLE)')})"
    return _epoch(f"TRY_CAST({name} AS DOUBLE)")


def _epoch(value: str) -> str:
    """Seconds, milli-, micro- or nanoseconds since 1970, told by their size."""
    sizes = " ".join(f"WHEN {value} > {most} THEN {value} / {by}" for most, by in (("1e17", "1e9"), ("1e14", "1e6"), ("1e11", "1e3")))
    return f"(CASE {sizes} ELSE {value} END)"


def _number(name: str, type_: str) -> str:
    return f"TRY_CAST(trim({name}) AS DOUBLE)" if type_ == "VARCHAR" else f"TRY_CAST({name} AS DOUBLE)"


def _truth(name: str, type_: str) -> str:
    if type_ == "BOOLEAN":
        return name
    if type_ != "VARCHAR":
        return f"(CASE WHEN {name} = 1 THEN true WHEN {name} = 0 THEN false END)"
    text = f"lower(trim({name}))"
    return f"(CASE WHEN {text} IN ({', '.join(map(quoted, YES))}) THEN true WHEN {text} IN ({', '.join(map(quoted, NO))}) THEN false END)"


def _mark_duplicates(db: DuckDBPyConnection) -> None:
    """All but the first of each id."""
    twice = "SELECT id, min(row) AS first FROM log WHERE id IS NOT NULL AND reason = 0 GROUP BY id HAVING count(*) > 1"
    db.execute(
        f"UPDATE log SET reason = {DUPLICATE}, example = 'the first is row ' || twice.first FROM ({twice}) AS twice "
        "WHERE log.id = twice.id AND log.row > twice.first AND log.reason = 0"
    )


def _mark_far(db: DuckDBPyConnection) -> None:
    low, high, first, last = (
        db.execute(
            f"SELECT approx_quantile(at_s, {FEW}), approx_quantile(at_s, {1 - FEW}), min(at_s), max(at_s) FROM log WHERE reason = 0"
        ).fetchone()
        or (None,) * 4
    )
    if low is None or (first >= 2 * low - high and last <= 2 * high - low):
        return
    db.execute(
        f"UPDATE log SET reason = {FAR}, example = CAST(make_timestamp(CAST(at_s * 1e6 AS BIGINT)) AS VARCHAR) "
        "WHERE reason = 0 AND NOT at_s BETWEEN ? AND ?",
        [2 * low - high, 2 * high - low],
    )


def _bad(db: DuckDBPyConnection) -> Iterator[BadRows]:
    found = db.execute(
        "SELECT reason, count(*), min(row), arg_min(example, row) FROM log WHERE reason > 0 GROUP BY reason ORDER BY reason"
    ).fetchall()
    for reason, count, row, example in found:
        yield BadRows(REASONS[reason - 1], count, f"row {row}: {example if example is not None else 'empty'}")


def _rejected(db: DuckDBPyConnection, source: Source) -> Iterator[BadRows]:
    """Lines of a CSV with too few or too many values, or that are no UTF-8."""
    if not source.is_text:
        return
    import duckdb

    try:
        found = db.execute("SELECT count(DISTINCT (file_id, line)), min(line), arg_min(error_message, line) FROM reject_errors").fetchone()
    except duckdb.Error:
        return
    if found and found[0]:
        why = " ".join(str(found[2]).split())
        yield BadRows(NO_LINE, found[0], f"line {found[1]}: {why[:160]}")
