"""Columns of any type as what we count: instants, yes or no, numbers. What cannot be read is marked as that, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from mlrunbook.adapters.warehouse.zones import local, offsets
from mlrunbook.domain.errors import Refused

YES = ("1", "1.0", "true", "t", "yes", "y")
NO = ("0", "0.0", "false", "f", "no", "n")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def us_of(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)


def time_of(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=int(us))


@dataclass(frozen=True)
class Period:
    """[since, until), and the zone of times that have none."""

    since: datetime
    until: datetime
    zone: str


def is_time(column: Any) -> bool:
    return bool(column.type().is_date() or column.type().is_timestamp())


def instant_us(column: Any, period: Period, dialect: str, key: str) -> Any:
    """Microseconds since 1970 of a time with or without a zone, or of the beginning of a day. Right for times within `period`."""
    import ibis

    kind = column.type()
    if kind.is_date():
        return instant_us(column.cast("timestamp"), period, dialect, key)
    if not kind.is_timestamp():
        raise Refused(
            f"column {column.get_name()!r} is {kind}, no time: correct predictions.{key}, or make it one with CAST in predictions.query"
        )
    us = _epoch_us(column, dialect)
    if kind.timezone is not None:
        return us
    known = offsets(period.zone, period.since - _DAY, period.until + _DAY)
    if len(known) == 1:
        return us - 1_000_000 * known[0].ahead_s if known[0].ahead_s else us
    *until, last = known
    ahead = ibis.cases(*((column < ibis.literal(one.until), one.ahead_s) for one in until), else_=last.ahead_s)
    return us - 1_000_000 * ahead.cast("int64")


def about(column: Any, period: Period) -> Any:
    """The rows that may lie in `period`, by the column as it is stored: an index, or the statistics of a file, leave out the others."""
    import ibis

    kind = column.type()
    if kind.is_date():
        return (column >= local(period.since - _DAY, "UTC").date()) & (column <= local(period.until + _DAY, "UTC").date())
    if kind.timezone is not None:
        since, until = (ibis.literal(at.astimezone(UTC), type="timestamp('UTC')") for at in (period.since, period.until))
        return (column >= since) & (column < until)
    since, until = local(period.since, period.zone) - _HOUR, local(period.until, period.zone) + _HOUR
    return (column >= ibis.literal(since)) & (column < ibis.literal(until))


def of_days(column: Any, since: datetime, until: datetime, key: str) -> Any:
    """The partitions of these days, and one more at either end: a day may be one of another zone, or of when the row was written."""
    first, last = (since - _DAY).date(), (until + _DAY).date()
    kind = column.type()
    if kind.is_date():
        return column.between(first, last)
    if kind.is_string():
        return column.between(first.isoformat(), last.isoformat())
    if kind.is_integer():
        return column.between(int(f"{first:%Y%m%d}"), int(f"{last:%Y%m%d}"))
    if kind.is_timestamp():
        return (column.cast("date") >= first) & (column.cast("date") <= last)
    raise Refused(f"column {column.get_name()!r} is {kind}, no day: predictions.{key} takes a date, a text as 2026-01-31, or 20260131")


@dataclass(frozen=True)
class Truth:
    """`yes`: null where nothing is said; `unread`: something is said that is neither yes nor no; `said` as a text."""

    yes: Any
    unread: Any
    said: Any
    may_be_unread: bool = True


def yes_and_no(positive: Sequence[str], negative: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words, in small letters, that mean yes and those that mean no, by what policy names of them."""
    said_no = _words(negative)
    yes = _words(positive) or [word for word in YES if word not in said_no]
    return yes, [word for word in said_no or NO if word not in yes]


def truth(column: Any, positive: Sequence[str], negative: Sequence[str], key: str) -> Truth:
    import ibis

    kind = column.type()
    nothing = ibis.literal(None, type="boolean")
    if kind.is_boolean():
        is_no = bool(positive) and set(_words(positive)) <= set(NO)
        return Truth(~column if is_no else column, ibis.literal(False), column.cast("string"), may_be_unread=False)
    if kind.is_numeric():
        value = number(column, key)
        yes, no = _numbers(positive, key) or [1.0], _numbers(negative, key)
        no = no or [one for one in (0.0,) if one not in yes]
        decided = ibis.cases((value.isin(yes), True), (value.isin(no), False), else_=nothing)
        return Truth(decided, value.notnull() & decided.isnull(), value.cast("string"))
    if not kind.is_string():
        raise Refused(f"column {column.get_name()!r} is {kind}, neither yes nor no: correct predictions.{key}")
    said = column.strip().lower()
    said = (said == "").ifelse(ibis.literal(None, type="string"), said)
    yes_words, no_words = yes_and_no(positive, negative)
    decided = ibis.cases((said.isin(yes_words), True), (said.isin(no_words), False), else_=nothing)
    return Truth(decided, said.notnull() & decided.isnull(), said)


def number(column: Any, key: str) -> Any:
    """As a float; NaN, which is no number and would be in every sum, is null."""
    import ibis

    kind = column.type()
    if not kind.is_numeric() or kind.is_boolean():
        raise Refused(f"column {column.get_name()!r} is {kind}, no number: correct predictions.{key}, or CAST it in predictions.query")
    if not kind.is_floating():
        return column.cast("float64")
    value = column.cast("float64")
    return value.isnan().ifelse(ibis.literal(None, type="float64"), value)


def is_gap(column: Any) -> Any:
    return column.isnull() | column.isnan() if column.type().is_floating() else column.isnull()


def is_json_gap(column: Any, key: str) -> Any:
    """Whether an object of JSON has no such key, or null in it."""
    value = (column if column.type().is_json() else column.cast("json"))[key]
    return value.isnull() | (value.cast("string") == "null")


def key_of(column: Any, other: Any = None) -> Any:
    """What joins: as it is where both are of one kind, else as text."""
    kinds = [one.type() for one in (column, other) if one is not None]
    if all(kind.is_integer() for kind in kinds):
        return column.cast("int64") if not str(kinds[0]).startswith("uint64") else column.cast("string")
    if all(kind.is_string() for kind in kinds):
        return column
    if any(kind.is_floating() for kind in kinds):
        raise Refused(f"column {column.get_name()!r} is {column.type()}: a number with a point is no key; CAST it in predictions.query")
    return column.cast("decimal(38, 0)").cast("string") if column.type().is_decimal() else column.cast("string")


def _words(given: Sequence[str]) -> list[str]:
    return [word.strip().lower() for word in given]


def _numbers(given: Sequence[str], key: str) -> list[float]:
    try:
        return [float(said) for said in ({"true": "1", "false": "0"}.get(word, word) for word in _words(given))]
    except ValueError:
        raise Refused(f"predictions.{key} is a column of numbers: write positive and negative as numbers, not {list(given)}") from None


def _epoch_us(column: Any, dialect: str) -> Any:
    if dialect == "duckdb":
        return _builtin_epoch_us()(column)
    seconds = column.truncate("s").epoch_seconds()
    return (seconds * 1_000_000 + column.microsecond()).cast("float64").cast("int64")


@cache
def _builtin_epoch_us() -> Any:
    import ibis

    @ibis.udf.scalar.builtin(name="epoch_us")  # type: ignore[untyped-decorator]
    def epoch_us(at) -> int: ...  # type: ignore[no-untyped-def, empty-body]

    return epoch_us


def quantile_disc(values: Any, share: float, dialect: str) -> Any | None:
    """The value that is reached by this share of all, as percentile_disc; None where the database must be asked in another way."""
    return _builtin_quantile_disc()(values, share) if dialect == "duckdb" else None


@cache
def _builtin_quantile_disc() -> Any:
    import ibis

    @ibis.udf.agg.builtin(name="quantile_disc")  # type: ignore[untyped-decorator]
    def quantile_disc(x: float, q: float) -> float: ...  # type: ignore[empty-body]

    return quantile_disc
