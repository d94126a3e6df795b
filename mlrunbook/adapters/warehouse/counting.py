"""What is asked of the warehouse: one statement a window, whose groups alone travel. Each branch of it is one row a group, in one shape.

A report is one integer, twice its microseconds and one more for yes. So the newest report of a key is their maximum and the first their
minimum, in any database, without a sort; two that say different things at the same instant are seen by counting no as the one more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlrunbook.adapters.warehouse import values
from mlrunbook.adapters.warehouse.mapping import Log
from mlrunbook.adapters.warehouse.values import Period

if TYPE_CHECKING:
    import ibis.expr.types as ir

TYPE_SLICES = 40
SLICES = 3 * TYPE_SLICES  # so that three of the window's slices are one of a type's
MOST_TYPES, MOST_ASSETS = 200, 2000
MOST_GROUPS = 250_000
SETTLES_US = 3_600_000_000
DAY_US = 86_400_000_000
MADE, REPORTS, KNOWN = "made", "reports", "known"
_SHAPE = {
    "part": "string",
    "name": "string",
    "of": "string",
    "place": "int64",
    "n": "int64",
    "flagged": "int64",
    "tp": "int64",
    "fp": "int64",
    "fn": "int64",
    "tn": "int64",
    "due": "int64",
    "missing": "int64",
    "keys": "int64",
    "keyed": "int64",
    "unread": "int64",
    "torn": "int64",
    "untimed": "int64",
    "oldest": "int64",
    "newest": "int64",
    "figure": "float64",
}


@dataclass(frozen=True)
class Window:
    """The predictions of one period, of one version where given, each with what is known of it. `once`: rows that are the same are one.
    `is_long`: whether keys repeat is told by some of them."""

    log: Log
    period: Period
    version: str | None = None
    once: bool = False
    is_long: bool = False

    @cached_property
    def steps(self) -> dict[str, ir.Table]:
        """What the branches are made of, each read once: the predictions, the reports about them, and both together."""
        made = self.log.slim(self.period, self.version)
        found = {MADE: made.distinct() if self.once else made}
        if self.log.outcomes is not None:
            found[REPORTS] = self.log.reports_for(self.period).semi_join(named(MADE, found[MADE]), "key")
        found[KNOWN] = self._known(named(MADE, found[MADE]), named(REPORTS, found[REPORTS]) if REPORTS in found else None)
        return found

    @cached_property
    def made(self) -> ir.Table:
        return named(MADE, self.steps[MADE])

    @cached_property
    def known(self) -> ir.Table:
        """One row a prediction: `outcome` (null: not known), `first_us` when it was first reported, and what is wrong with it."""
        return named(KNOWN, self.steps[KNOWN])

    def _known(self, made: ir.Table, reports: ir.Table | None) -> ir.Table:
        import ibis

        made = made.drop("version")  # what is not needed takes room in a join of millions
        if reports is None:
            none = ibis.literal(False)
            beside = {"outcome": made.truth, "first_us": made.reported_us, "first": made.truth}
            if "said" in made.columns:
                beside["unread"] = made.said.notnull()
            return made.mutate(**beside, torn=none, untimed=none).drop("truth", "reported_us")
        return joined(made.left_join(by_key(reports, has_time=self._has_times), "key"))

    # --- the branches

    def asked(self, due_us: int) -> ir.Table:
        """Everything about the window but what rests on no outcome."""
        branches = [
            self._whole(due_us),
            self._by_class(),
            self._by_version(),
            self._by_slice(due_us),
            *self._by_asset(),
            *self._rewritten(),
        ]
        whole, *others = branches
        return whole.union(*others)

    def blocks(self, block_us: int, most_assets: int) -> ir.Table:
        """The known outcomes by block of time, and by asset."""
        import ibis

        known = self.known.filter(self.known.outcome.notnull())
        place = (known.us - values.us_of(self.period.since)) // block_us
        of_blocks = _row(known.group_by(place=place).agg(**_cells(known)), "block")
        whole = self._checks("whole")
        if self.log.part.columns.asset_id is None:
            return whole.union(of_blocks)
        single = known.group_by("asset").agg(**_cells(known))
        numbered = single.mutate(number=ibis.row_number().over(order_by="asset") % most_assets)
        cells = {name: numbered[name].sum() for name in ("tp", "fp", "fn", "tn")}
        return whole.union(of_blocks, _row(numbered.group_by("number").agg(**cells), "asset"))

    def by_day(self) -> ir.Table:
        """The counts of each day of UTC, and the versions of each."""
        known, made = self.known, self.made.filter(self.made.version.notnull())
        days = _row(known.group_by(place=known.us // DAY_US).agg(**_counts(known, 0)), "day")
        versions = made.group_by(place=made.us // DAY_US, name=made.version).agg(n=made.count())
        return self._checks("whole").union(days, _row(versions, "version"))

    def counts(self) -> ir.Table:
        return self.known.agg(**_cells(self.known))

    def _checks(self, part: str) -> ir.Table:
        known = self.known
        return _row(known.agg(**_trouble(known), **self._repeated(), n=known.count()), part)

    def _repeated(self) -> dict[str, Any]:
        key = self.known.key
        some = None
        if self.is_long:
            some = key % 16 == 0 if key.type().is_integer() else key.right(1) == "0"
        return {"keys": key.nunique(where=some), "keyed": key.count(where=some)}

    def _whole(self, due_us: int) -> ir.Table:
        known = self.known
        delays = (known.first_us - known.us) / 1e6
        return _row(
            known.agg(
                **_counts(known, due_us),
                **_trouble(known),
                **self._repeated(),
                figure=quantile(delays, 0.5, self.log.dialect) if self._has_times else _null("float64"),
            ),
            "whole",
        )

    @property
    def _has_times(self) -> bool:
        return self.log.reported_at is not None

    def _by_class(self) -> ir.Table:
        """The age at which 99 % of the outcomes of each class had come."""
        import ibis

        known = self.known.filter(self.known.first_us.notnull() & self.known.outcome.notnull())
        delayed = known.select(outcome=known.outcome, delay=(known.first_us - known.us) / 1e6)
        disc = values.quantile_disc(delayed.delay, 0.99, self.log.dialect)
        if disc is not None:
            return _row(delayed.group_by("outcome").agg(figure=disc), "age")
        among = ibis.window(group_by="outcome", order_by="delay")
        ranked = delayed.mutate(rank=ibis.row_number().over(among) + 1, of=delayed.count().over(ibis.window(group_by="outcome")))
        reached = ranked.filter(ranked["rank"] >= (0.99 * ranked.of).ceil())
        return _row(reached.group_by("outcome").agg(figure=reached.delay.min()), "age")

    def _by_version(self) -> ir.Table:
        made = self.made.filter(self.made.version.notnull())
        return _row(made.group_by(name=made.version).agg(n=made.count()), "version")

    def _by_slice(self, due_us: int) -> ir.Table:
        """Three slices of the window are one of a segment."""
        known = self.known
        since, until = values.us_of(self.period.since), values.us_of(self.period.until)
        place = ((known.us - since) * SLICES) // (until - since)
        found = _row(known.group_by(name=known.segment, place=place).agg(**_counts(known, due_us)), "slice")
        return found.limit(MOST_GROUPS + 1)

    def _by_asset(self) -> list[ir.Table]:
        """Of the segments with most failures, and of those the ones with few enough assets to tell apart."""
        import ibis

        columns = self.log.part.columns
        if columns.asset_id is None or columns.segment is None:
            return []
        known = self.known.filter(self.known.outcome.notnull())
        single = known.group_by(["segment", "asset"]).agg(**_cells(known))
        among = ibis.window(group_by="segment")
        told = single.mutate(failures=(single.tp + single.fn).sum().over(among), assets=single.count().over(among))
        told = told.filter((told.failures > 0) & (told.assets <= MOST_ASSETS))
        told = told.mutate(place=ibis.dense_rank().over(order_by=[ibis.desc("failures"), "segment"]))
        told = told.filter(told.place < MOST_TYPES)
        return [_row(told.select("tp", "fp", "fn", "tn", name=told.segment, of=told.asset), "asset")]

    def _rewritten(self) -> list[ir.Table]:
        if self.log.outcomes is None or not self._has_times:
            return []
        return [rewritten(self.known, named(REPORTS, self.steps[REPORTS]))]


def newest(log: Log, period: Period, limit: int, *, labelled_only: bool, once: bool) -> tuple[ir.Table, Mapping[str, str]]:
    """The newest rows with their features and what is known of them; and the column of each feature, by its name."""
    import ibis

    columns = log.part.columns
    rows = log.made_in(period)
    judged = log.judged(rows)
    features = {name: f"f{i}" for i, name in enumerate(log.features())}
    more = {alias: rows[name] for name, alias in features.items()}
    if columns.features_json:
        more = {"features_json": rows[log.name_of(columns.features_json)].cast("string")}
    made = log.named_of(rows, period) | {"yes": judged["yes"], "unscored": judged["unread"], "written": judged["said"]}
    number, threshold = ibis.literal(None, type="float64"), ibis.literal(None, type="float64")
    if columns.score:
        number = values.number(rows[log.name_of(columns.score)], "columns.score")
    if columns.threshold:
        threshold = values.number(rows[log.name_of(columns.threshold)], "columns.threshold")
    chosen = rows.select(**made, score=number, threshold=threshold, latency=log.latency_of(rows), **more)
    chosen = chosen.filter(chosen.yes.notnull() | chosen.unscored)
    chosen = chosen.distinct() if once else chosen
    order = [ibis.desc("us"), ibis.desc("key")]
    if log.outcomes is None:
        told = chosen.mutate(outcome=chosen.truth, torn=ibis.literal(False), untimed=ibis.literal(False))
        if labelled_only:
            told = told.filter(told.outcome.notnull() | (told.said.notnull() if "said" in told.columns else ibis.literal(False)))
        return told.order_by(order).limit(limit), features
    if not labelled_only:
        chosen = chosen.order_by(order).limit(limit)
    reports = by_key(log.reports_for(period).semi_join(chosen, "key"), has_time=log.reported_at is not None).drop("first", "first_us")
    told = joined(chosen.inner_join(reports, "key") if labelled_only else chosen.left_join(reports, "key"))
    return told.order_by(order).limit(limit), features


def rewritten_lately(log: Log, period: Period, lately_us: int) -> ir.Table:
    """Of the outcomes that were changed since `lately_us`, of predictions of `period`."""
    reports = log.reports_in(period)
    again = reports.filter(reports.us >= lately_us).select("key")
    reports = reports.semi_join(again, "key")
    grouped = by_key(reports, has_time=True)
    changed = grouped.filter(grouped.outcome != grouped.first)
    return rewritten(joined(log.slim(period).inner_join(changed, "key")), reports, lately_us)


def by_key(reports: ir.Table, *, has_time: bool) -> ir.Table:
    """One row a key that has a report: what holds, what came first. Two that differ at one time are `torn`; without times all have one."""
    import ibis

    said = {"said": reports.said.max()} if "said" in reports.columns else {}
    if not has_time:
        grouped = reports.group_by("key").agg(last=reports.yes.max(), least=reports.yes.min(), **said)
        never, none = ibis.literal(None, type="int64"), ibis.literal(False)
        told = {"outcome": grouped.last == 1, "first": grouped["least"] == 1, "first_us": never, "torn": grouped.last != grouped["least"]}
        return grouped.select("key", *said, **told, untimed=none)
    us = ibis.coalesce(reports.us, -1)  # below every mark of a report with a time
    mark, inverse = 2 * us + reports.yes, 2 * us + 1 - reports.yes
    grouped = reports.group_by("key").agg(last=mark.max(), inverse=inverse.max(), least=mark.min(), **said)
    told = {"outcome": grouped.last % 2 == 1, "first": grouped["least"] % 2 == 1, "first_us": grouped["least"] // 2}
    return grouped.select(
        "key", *said, **told, untimed=grouped["least"] < 0, torn=(grouped.last == grouped.inverse) & (grouped.last % 2 == 1)
    )


def named(name: str, step: ir.Table) -> ir.Table:
    """A step, to be read by its name."""
    import ibis

    return ibis.table(step.schema(), name=name)


def joined(both: ir.Table) -> ir.Table:
    return both.drop("key_right") if "key_right" in both.columns else both


def rewritten(known: ir.Table, reports: ir.Table, since_us: int | None = None) -> ir.Table:
    """Of the predictions whose outcome is not the one first reported: those changed by somebody else, or after it had settled, by whom;
    `since_us`: with a change since then."""
    import ibis

    # Few of them: only what changed is put in order.
    suspected = known.filter(known.outcome != known.first).select("key", label="yes", outcome="outcome", made="us")
    mine = reports.semi_join(suspected, "key")
    mine = mine if "by" in mine.columns else mine.mutate(by=ibis.literal(""))
    order = ibis.window(group_by="key", order_by=["us", "yes"])
    told = mine.mutate(before=mine.yes.lag().over(order))
    told = told.filter(told.before.isnull() | (told.before != told.yes))
    told = told.mutate(before_us=told.us.lag().over(order), before_by=told.by.lag().over(order))
    later = told.filter(told.before_us.notnull())
    by_somebody_else = ~later.by.identical_to(later.before_by)
    backwards = ibis.window(group_by="key", order_by=[ibis.desc("us")])
    later = later.mutate(rewrites=by_somebody_else | (later.us - later.before_us > SETTLES_US), newest=ibis.row_number().over(backwards))
    per_key = later.group_by("key").agg(
        rewritten=later.rewrites.any(), by=later.by.max(where=later.newest == 0), lately=later.us.max()
    )  # fmt: skip
    if since_us is not None:
        per_key = per_key.filter(per_key.lately >= since_us)
    found = per_key.filter(per_key.rewritten).inner_join(suspected, "key")
    groups = found.group_by(name=found.by, place=2 * found.label.cast("int32") + found.outcome.cast("int32"))
    return _row(groups.agg(n=found.count(), oldest=found.made.min(), newest=found.made.max()), "rewritten")


def logged(window: Window, gaps: Mapping[str, Any], *, by_day: bool = False) -> ir.Table:
    """What rests on no outcome: `unscored` are the rows without a prediction, `f0` and so on the gaps of each feature."""
    log = window.log
    rows = log.made_in(window.period)
    if window.version is not None:
        rows = rows.filter(log.version_of(rows) == window.version)
    judged, key = log.judged(rows), log.named_of(rows, window.period)["key"]
    empty = {f"f{i}": gap(rows) for i, gap in enumerate(gaps.values())}
    told = rows.select(
        key=key, us=rows.us_, yes=judged["yes"], unread=judged["unread"], said=judged["said"], latency=log.latency_of(rows), **empty
    )
    told = told.distinct() if window.once else told
    scored = told.yes.notnull()
    found = {
        "n": told.count(where=scored),
        "unscored": told.count(where=told.yes.isnull() & ~told.unread),
        "unread": told.count(where=told.unread),
        "name": told.said.max(where=told.unread),
        "figure": quantile(told.latency, 0.95, log.dialect, where=scored) if log.part.columns.latency_ms else _null("float64"),
    }
    found |= {name: told.count(where=scored & told[name]) for name in empty}
    return told.group_by(place=told.us // DAY_US).agg(**found) if by_day else told.agg(**found)


_NEAR = frozenset({"bigquery", "trino", "athena"})  # they have no exact one, or none in an aggregate


def quantile(values_: Any, share: float, dialect: str, where: Any = None) -> Any:
    """Between the two values next to it, as percentile_cont; near enough where the database has no such thing."""
    return values_.approx_quantile(share, where=where) if dialect in _NEAR else values_.quantile(share, where=where)


def _cells(t: ir.Table) -> dict[str, Any]:
    return {
        "tp": t.count(where=t.yes & t.outcome),
        "fp": t.count(where=t.yes & ~t.outcome),
        "fn": t.count(where=~t.yes & t.outcome),
        "tn": t.count(where=~t.yes & ~t.outcome),
    }


def _counts(t: ir.Table, due_us: int) -> dict[str, Any]:
    due = t.us < due_us
    return {
        **_cells(t),
        "n": t.count(),
        "flagged": t.count(where=t.yes),
        "due": t.count(where=due),
        "missing": t.count(where=due & t.outcome.isnull()),
    }


def _trouble(t: ir.Table) -> dict[str, Any]:
    """`said`: an outcome that is neither yes nor no, as it is written."""
    import ibis

    return {
        "unread": t.said.count() if "said" in t.columns else ibis.literal(0),
        "torn": t.count(where=t.torn),
        "untimed": t.count(where=t.untimed),
        "name": t.said.max() if "said" in t.columns else _null("string"),
    }


def _null(kind: str) -> Any:
    import ibis

    return ibis.literal(None, type=kind)


def _row(t: ir.Table, part: str) -> ir.Table:
    """In the one shape: what it does not hold is null."""
    import ibis

    def of(name: str, kind: str) -> Any:
        return t[name].cast(kind) if name in t.columns else _null(kind)

    return t.select(**{name: ibis.literal(part) if name == "part" else of(name, kind) for name, kind in _SHAPE.items()})
