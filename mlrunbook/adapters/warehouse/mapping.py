"""A team's tables as ours: which column is what, by the policy, and the rows of one model and period in one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlrunbook.adapters.warehouse import troubles, values
from mlrunbook.adapters.warehouse.connection import Look
from mlrunbook.adapters.warehouse.values import Period
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.connections import PredictionsPart

if TYPE_CHECKING:
    import ibis.expr.types as ir

UNKNOWN = "unknown"  # the segment of a row that names none
_NEVER = timedelta(days=1)  # how much earlier than its prediction an outcome may seem to come: two clocks
MOST_FEATURES = 200


@dataclass(frozen=True)
class Log:
    """One model's log as one look sees it. `outcomes` None: the outcome stands in the predictions' own table."""

    part: PredictionsPart
    dialect: str
    predictions: ir.Table
    outcomes: ir.Table | None

    @classmethod
    def of(cls, look: Look, part: PredictionsPart) -> Log:
        """Columns that a first look at the files does not show may stand in some of them alone."""
        found = cls._read(look, part, by_name=False)
        if found.lacking():
            found = cls._read(look, part, by_name=True)
        if lacking := found.lacking():
            raise lacking
        return found

    @classmethod
    def _read(cls, look: Look, part: PredictionsPart, *, by_name: bool) -> Log:
        def of(table: str | None, query: str | None) -> ir.Table | None:
            return look.table(table, by_name=by_name) if table else look.query(query) if query else None

        predictions = of(part.table, part.query)
        assert predictions is not None
        return cls(part, look.dialect, predictions, of(part.outcomes_table, part.outcomes_query))

    # --- columns

    @property
    def reports(self) -> ir.Table:
        """The table that the outcomes stand in."""
        return self.predictions if self.outcomes is None else self.outcomes

    @property
    def reported_at(self) -> str | None:
        """None too where the predictions' own table holds the outcome and has no such column: nobody wrote that it should."""
        name = self.part.outcomes.reported_at
        return None if name and self.outcomes is None and _named(self.predictions, name) is None else name

    def lacking(self) -> Refused | None:
        """The first column that policy names and the table has not."""
        columns, outcomes = self.part.columns, self.part.outcomes
        for field in ("key", "at", "score", "label", "version", "threshold", "day", "asset_id", "segment", "latency_ms", "features_json"):
            if error := self._lacks(self.predictions, getattr(columns, field), f"columns.{field}"):
                return error
        if not columns.features_json:
            for name in columns.features:
                if error := self._lacks(self.predictions, name, "columns.features"):
                    return error
        if error := self._lacks(self.predictions, self.part.model_column, "model_column"):
            return error
        wanted = {"outcome": outcomes.outcome, "reported_at": self.reported_at, "reported_by": outcomes.reported_by}
        if self.outcomes is not None:
            wanted |= {"key": outcomes.key, "day": outcomes.day}
        return next((e for field, name in wanted.items() if (e := self._lacks(self.reports, name, f"outcomes.{field}"))), None)

    def _lacks(self, table: ir.Table, name: str | None, key: str) -> Refused | None:
        if name is None or _named(table, name) is not None:
            return None
        what = self._called(table is self.outcomes)
        return troubles.no_column(what, name, table.columns, key)

    def _called(self, is_outcomes: bool) -> str:
        table = self.part.outcomes_table if is_outcomes else self.part.table
        return f"table {table!r}" if table else f"the query of the {'outcomes' if is_outcomes else 'predictions'}"

    def column(self, name: str) -> Any:
        return self.predictions[_named(self.predictions, name)]

    def reported(self, name: str) -> Any:
        return self.reports[_named(self.reports, name)]

    def features(self) -> Sequence[str]:
        """The columns that are inputs: those named, else every one that is nothing else."""
        columns, part = self.part.columns, self.part
        if columns.features_json:
            return ()
        if columns.features:
            return [str(_named(self.predictions, name)) for name in columns.features]
        other = {columns.key, columns.at, columns.score, columns.label, columns.version, columns.threshold, columns.day, columns.asset_id}
        other |= {columns.segment, columns.latency_ms, part.model_column}
        if self.outcomes is None:
            other |= {part.outcomes.outcome, part.outcomes.reported_at, part.outcomes.reported_by}
        taken = {name.lower() for name in other if name}
        return [name for name in self.predictions.columns if name.lower() not in taken][:MOST_FEATURES]

    @property
    def tells_corrections(self) -> bool:
        """Every report is kept, with its time."""
        return self.outcomes is not None and self.reported_at is not None

    # --- rows

    def period(self, since: datetime, until: datetime) -> Period:
        return Period(since, until, self.part.time_zone)

    def touched(self, period: Period) -> list[ir.Table]:
        """What a look at `period` reads, by the days alone where the tables are partitioned by them."""
        columns, of, later = self.part.columns, self.part.outcomes, self._reports_of(period)
        read = [
            self._narrowed(self.predictions, columns.day, columns.at, period, "columns.day").select(_named(self.predictions, columns.at))
        ]
        if self.outcomes is not None:
            narrowed = self._narrowed(self.outcomes, of.day, of.reported_at, later, "outcomes.day")
            read.append(narrowed.select(_named(self.outcomes, of.key)))
        return read

    def _narrowed(self, table: ir.Table, day: str | None, at: str | None, period: Period, key: str) -> ir.Table:
        if day:
            return table.filter(values.of_days(table[_named(table, day)], period.since, period.until, key))
        column = table[_named(table, at)] if at else None
        return table if column is None or not values.is_time(column) else table.filter(values.about(column, period))

    def made_in(self, period: Period) -> ir.Table:
        """The predictions of this model in `period`, with all their columns and `us_`, when each was made."""
        columns = self.part.columns
        rows = self._of_model(self.predictions)
        if columns.day:
            rows = rows.filter(values.of_days(self.column(columns.day), period.since, period.until, "columns.day"))
        at = self.column(columns.at)
        us = values.instant_us(at, period, self.dialect, "columns.at")
        rows = rows.filter(values.about(at, period)).mutate(us_=us)
        return rows.filter((rows.us_ >= values.us_of(period.since)) & (rows.us_ < values.us_of(period.until)))

    def judged(self, rows: ir.Table) -> dict[str, Any]:
        """What was predicted: `yes` (null: nothing was), whether it can be read, and as what it was written."""
        import ibis

        columns, part = self.part.columns, self.part
        nothing = ibis.literal(False)
        if columns.label:
            label = values.truth(rows[_named(rows, columns.label)], part.positive, part.negative, "columns.label")
            return {"yes": label.yes, "unread": label.unread, "said": label.said}
        score = values.number(rows[_named(rows, columns.score or "")], "columns.score")
        threshold: Any = ibis.literal(part.threshold)
        if columns.threshold:
            threshold = ibis.coalesce(values.number(rows[_named(rows, columns.threshold)], "columns.threshold"), threshold)
        outside = ((score < 0) | (score > 1)).fill_null(nothing)
        return {"yes": score >= threshold, "unread": outside, "said": score.cast("string")}

    def latency_of(self, rows: ir.Table) -> Any:
        import ibis

        name = self.part.columns.latency_ms
        return values.number(rows[_named(rows, name)], "columns.latency_ms") if name else ibis.literal(None, type="float64")

    def gaps(self, json_keys: Sequence[str] = ()) -> dict[str, Any]:
        """By feature: of rows, whether it is empty in each. `json_keys`: where they stand in one column together."""
        name = self.part.columns.features_json
        if name is None:
            return {one: lambda rows, one=one: values.is_gap(rows[one]) for one in self.features()}
        return {key: lambda rows, key=key: values.is_json_gap(rows[_named(rows, name)], key) for key in json_keys}

    def slim(self, period: Period, version: str | None = None) -> ir.Table:
        """One row a prediction that was made, with `yes` and what `named_of` says."""
        rows = self.made_in(period)
        if version is not None:
            rows = rows.filter(self.version_of(rows) == version)
        chosen = rows.select(**self.named_of(rows, period), yes=self.judged(rows)["yes"])
        return chosen.filter(chosen.yes.notnull())

    def named_of(self, rows: ir.Table, period: Period) -> dict[str, Any]:
        """`key`, `us`, `version`, `segment`, `asset`; and, where the outcome stands beside it, `truth`, `reported_us` and `said`."""
        import ibis

        columns = self.part.columns
        text = ibis.literal(None, type="string")

        def of(name: str | None) -> Any:
            return rows[_named(rows, name)].cast("string") if name else text

        found = {
            "key": values.key_of(rows[_named(rows, columns.key)], self._other_key()),
            "us": rows.us_,
            "version": of(columns.version),
            "segment": ibis.coalesce(of(columns.segment), UNKNOWN) if columns.segment else text,
            "asset": of(columns.asset_id),
        }
        return found | (self._beside(rows, period) if self.outcomes is None else {})

    def name_of(self, name: str) -> str:
        return str(_named(self.predictions, name))

    def _other_key(self) -> Any:
        return self.reported(self.part.outcomes.key) if self.outcomes is not None else None

    def version_of(self, rows: ir.Table) -> Any:
        name = self.part.columns.version
        if name is None:
            raise Refused("the log of predictions does not say which version made which: name the column in predictions.columns.version")
        return rows[_named(rows, name)].cast("string")

    def _beside(self, rows: ir.Table, period: Period) -> dict[str, Any]:
        import ibis

        of = self.part.outcomes
        said = values.truth(rows[_named(rows, of.outcome)], self.part.positive, self.part.negative, "outcomes.outcome")
        us: Any = ibis.literal(None, type="int64")
        if self.reported_at:
            later = self._reports_of(period)
            us = values.instant_us(rows[_named(rows, self.reported_at)], later, self.dialect, "outcomes.reported_at")
        return {"truth": said.yes, "reported_us": us} | _unread(said)

    def _reports_of(self, period: Period) -> Period:
        return Period(period.since - _NEVER, period.until + timedelta(days=self.part.late_outcomes_days), period.zone)

    def reports_for(self, period: Period) -> ir.Table:
        """Every report that may be about a prediction of `period`."""
        return self.reports_in(self._reports_of(period))

    def reports_in(self, period: Period) -> ir.Table:
        """What was reported in `period`: `key`, `yes` (0 or 1), `us` (null without a time), `by` where
        that is known, and `said` where it is neither yes nor no."""
        import ibis

        of = self.part.outcomes
        assert self.outcomes is not None
        rows = self._of_model(self.outcomes)
        if of.day:
            rows = rows.filter(values.of_days(self.reported(of.day), period.since, period.until, "outcomes.day"))
        us: Any = ibis.literal(None, type="int64")
        if of.reported_at:
            at = self.reported(of.reported_at)
            us = values.instant_us(at, period, self.dialect, "outcomes.reported_at")
            near = values.about(at, period)
            rows = rows.filter(near | at.isnull() if at.type().nullable else near)
        said = values.truth(self.reported(of.outcome), self.part.positive, self.part.negative, "outcomes.outcome")
        key = values.key_of(self.reported(of.key), self.column(self.part.columns.key))
        more = {"by": self.reported(of.reported_by).cast("string")} if of.reported_by else {}
        chosen = rows.select(key=key, yes=said.yes.cast("int32"), us=us, **more, **_unread(said))
        is_said = chosen.yes.notnull() | chosen.said.notnull() if "said" in chosen.columns else chosen.yes.notnull()
        return chosen.filter(is_said & chosen.key.notnull())

    def _of_model(self, rows: ir.Table) -> ir.Table:
        """Keys may be those of one model alone: outcomes are narrowed to it too, where their table names it."""
        name = self.part.model_column
        column = _named(rows, name) if name else None
        return rows.filter(rows[column].cast("string") == self.part.model_value) if column else rows


def _unread(truth: values.Truth) -> dict[str, Any]:
    """What is neither yes nor no, as it is written; nothing where the type leaves no such thing."""
    import ibis

    if not truth.may_be_unread:
        return {}
    return {"said": truth.unread.ifelse(truth.said, ibis.literal(None, type="string"))}


def _named(table: ir.Table, name: str) -> str | None:
    """The column of this name, in whatever case the database keeps it; None where there is none, or several."""
    if name in table.columns:
        return name
    same = [one for one in table.columns if one.lower() == name.lower()]
    return same[0] if len(same) == 1 else None
