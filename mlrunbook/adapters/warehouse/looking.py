"""What a connection holds, for whoever sets it up: tables, columns with their types, some values, and from when to when. Reads alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from mlrunbook.adapters.warehouse import values
from mlrunbook.adapters.warehouse.connection import Warehouse

TIMEOUT_S = 20.0
ROWS = 200  # that values are taken from
VALUES = 5
MOST_TABLES = 500


@dataclass(frozen=True)
class Column:
    """`kind` as ibis names it (int64, string, timestamp('UTC')); `samples` are some of its values, as text, each once. `low` and `high` of
    the numbers, how many are `distinct` and what share is `missing`, in the rows that were looked at."""

    name: str
    kind: str
    samples: tuple[str, ...] = ()
    empty: bool = False
    low: float | None = None
    high: float | None = None
    distinct: int = 0
    missing: float = 0.0

    @property
    def is_time(self) -> bool:
        return self.kind.startswith(("timestamp", "date"))

    @property
    def has_zone(self) -> bool:
        return self.kind.startswith("timestamp('")


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name.lower() == name.lower()), None)


class Looking:
    """Errors are those of `domain.errors`, each one line with what to do. `address` and `token` as of `WarehouseLog`."""

    def __init__(self, connection: str, address: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._warehouse, self._timeout_s = Warehouse(connection, address, token), timeout_s

    def tables(self) -> Sequence[str]:
        """By the names that `predictions.table` takes; of PostgreSQL those of every schema that the role may use."""
        with self._warehouse.look(self._timeout_s) as look:
            return look.all_tables()[:MOST_TABLES]

    def table(self, name: str) -> Table:
        """NotFound where there is none, with what there is."""
        with self._warehouse.look(self._timeout_s) as look:
            found = look.table(name)
            rows = look.rows(found.limit(ROWS))
            return Table(name, tuple(_column(column, str(kind).removesuffix("!"), rows) for column, kind in _kinds(found).items()))

    def query(self, sql: str) -> Table:
        """The same of a query."""
        with self._warehouse.look(self._timeout_s) as look:
            found = look.query(sql)
            rows = look.rows(found.limit(ROWS))
            return Table("query", tuple(_column(column, str(kind), rows) for column, kind in _kinds(found).items()))

    def span(self, table: str, column: str) -> tuple[datetime | date, datetime | date] | None:
        """The oldest and the newest value of a column of time, as they are stored; None where it holds none."""
        with self._warehouse.look(self._timeout_s) as look:
            found = look.table(table)
            (row,) = look.rows(found.agg(oldest=found[column].min(), newest=found[column].max()))
            return (row["oldest"], row["newest"]) if row["oldest"] is not None else None

    def values_of(self, table: str, column: str, most: int = 20) -> Sequence[tuple[str | None, int]]:
        """The most frequent values of a column, each with how many rows hold it: what an outcome says, which models a log holds."""
        import ibis

        with self._warehouse.look(self._timeout_s) as look:
            found = look.table(table)
            counted = found.group_by(value=found[column].cast("string")).agg(n=found.count())
            rows = look.rows(counted.order_by([ibis.desc("n"), "value"]).limit(most))
            return [(row["value"], int(row["n"])) for row in rows]

    def values_by(self, table: str, group: str, column: str, most: int = 400) -> Mapping[str, Sequence[str]]:
        """The values of a column, by those of another: of a log of several models, which versions are whose."""
        import ibis

        with self._warehouse.look(self._timeout_s) as look:
            found = look.table(table)
            pairs = found.group_by(of=found[group].cast("string"), value=found[column].cast("string")).agg(n=found.count())
            result: dict[str, list[str]] = {}
            for row in look.rows(pairs.order_by([ibis.desc("n"), "value"]).limit(most)):
                if row["of"] is not None and row["value"] is not None:
                    result.setdefault(str(row["of"]), []).append(str(row["value"]))
            return result

    def matched(self, table: str, key: str, other: str, other_key: str) -> float | None:
        """The share of the newest rows' keys of `other` that are in `table`: whether these two columns join. None: `other` is empty."""
        with self._warehouse.look(self._timeout_s) as look:
            left, right = look.table(table), look.table(other)
            few = right.select(key_=values.key_of(right[other_key], left[key])).filter(lambda t: t.key_.notnull()).limit(ROWS)
            there = left.select(key_=values.key_of(left[key], right[other_key]))
            (all_,) = look.rows(few.agg(n=few.count()))
            (met,) = look.rows(few.semi_join(there, "key_").agg(n=lambda t: t.count()))
            return int(met["n"]) / int(all_["n"]) if all_["n"] else None


def _kinds(table: Any) -> Mapping[str, Any]:
    return dict(table.schema().items())


def _column(name: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    there = [row[name] for row in rows if row[name] is not None]
    seen = dict.fromkeys(str(value)[:80] for value in there)
    figures = [float(v) for v in there if isinstance(v, (int, float, Decimal)) and not isinstance(v, bool) and isfinite(v)]
    missing = 1 - len(there) / len(rows) if rows else 0.0
    low, high = (min(figures), max(figures)) if figures else (None, None)
    return Column(name, kind, tuple(seen)[:VALUES], bool(rows) and not seen, low, high, len(seen), missing)
