"""`ports.PredictionLog` over a warehouse: windows, slices, segments and days are counted there, and their groups alone travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import floor
from typing import TypeVar

from mlrunbook.adapters.warehouse import budget, counting, reading, values
from mlrunbook.adapters.warehouse.connection import Look, Warehouse
from mlrunbook.adapters.warehouse.counting import Window
from mlrunbook.adapters.warehouse.mapping import Log
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import MOST_BLOCKS, OutcomeBlocks
from mlrunbook.domain.evaluation.outcomes import due_age_s
from mlrunbook.domain.evaluation.performance import ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.connections import PredictionsPart

CURRENT, BASELINE, LATELY = timedelta(minutes=60), timedelta(days=7), timedelta(hours=24)
MOST_ASSETS = 5000  # of `outcome_blocks`; of more, some are counted together
DAYS_A_STATEMENT = timedelta(days=31)
JSON_SAMPLE = 100
# How far back the newest predictions are looked for, one after the other, where nobody says since when.
BACK = tuple(timedelta(days=days) for days in (1, 7, 31, 366, 3660))
T = TypeVar("T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _of(look: Look, log: Log, since: datetime, until: datetime, version: str | None = None, *, once: bool) -> Window:
    """Refused where it would read more than policy allows."""
    period = log.period(since, until)
    return Window(log, period, version, once, budget.check(look, log, period))


class WarehouseLog:
    """Of every model whose predictions this connection holds. `part_of` gives a model's part of the policy; NotFound in it is passed on.
    Thread-safe: a look at a time, each on a connection of its own."""

    def __init__(
        self,
        connection: str,
        address: str,
        part_of: Callable[[str], PredictionsPart],
        *,
        token: str | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._warehouse = Warehouse(connection, address, token)
        self._part_of, self._now = part_of, now

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        """The baseline is the 7 days before the window, over all versions; one that is pinned is asked for by its blocks."""
        until = until or self._now()
        since = since or until - CURRENT
        if since >= until:
            raise Invalid(f"since ({since.isoformat()}) must be before until ({until.isoformat()})", field="since")

        def of(look: Look, log: Log, once: bool) -> ModelMetrics:
            keys = self._json_keys(look, log, until)
            baseline = self._window(look, _of(look, log, since - BASELINE, since, once=once), keys)
            due = until - timedelta(seconds=due_age_s(baseline.label_delay_s))
            current = self._window(look, _of(look, log, since, until, version, once=once), keys, due)
            lately = self._rewritten_lately(look, log, once=once) if log.tells_corrections else None
            return ModelMetrics(model=model, current=current, baseline=baseline, rewritten_lately=lately)

        return self._looked(model, of)

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        until = until or self._now()
        last = (until.astimezone(UTC) - timedelta(microseconds=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        since, found = last - timedelta(days=days - 1), list[DayFigures]()
        while since < until:
            found += self._looked(model, partial(self._days, since=since, until=min(since + DAYS_A_STATEMENT, until)))
            since += DAYS_A_STATEMENT
        return found

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        count = floor((until - since).total_seconds() / block_s + 1e-9)
        if count < 0:
            raise Invalid(f"since ({since.isoformat()}) must not be after until ({until.isoformat()})", field="since")
        if count > MOST_BLOCKS:
            raise Invalid(
                f"{count} blocks of {block_s:g} s; {MOST_BLOCKS} at most: ask for longer blocks or a shorter time", field="blockS"
            )
        ends = since + timedelta(seconds=count * block_s)

        def of(look: Look, log: Log, once: bool) -> OutcomeBlocks:
            if not count:
                return OutcomeBlocks(since, block_s, ())
            window = _of(look, log, since, ends, version, once=once)
            rows = look.rows(window.blocks(round(block_s * 1e6), MOST_ASSETS), window.steps)
            blocks, by_asset = reading.blocks(log, rows, count, once=once)
            return OutcomeBlocks(since, block_s, blocks, by_asset)

        return self._looked(model, of)

    def prediction_log(
        self,
        model: str,
        *,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled_only: bool = False,
    ) -> Sequence[Prediction]:
        """The newest first. Where `since` is left out, ever longer times before `until` are searched for `limit` of them."""
        ends = until or self._now()
        begins = [since] if since is not None else [ends - back for back in BACK]

        def of(look: Look, log: Log, once: bool) -> Sequence[Prediction]:
            found: Sequence[Prediction] = ()
            for begin in begins:
                if begin < ends:
                    found = self._newest(look, log, begin, ends, limit, labelled_only=labelled_only, once=once)
                if len(found) >= limit:
                    break
            return found

        return self._looked(model, of)

    # --- one look

    def _looked(self, model: str, ask: Callable[[Look, Log, bool], T]) -> T:
        """What was delivered twice is counted once: seen by its keys, and asked for again."""
        part = self._part_of(model)
        with self._warehouse.look(part.timeout_s) as look:
            log = Log.of(look, part)
            try:
                return ask(look, log, False)
            except reading.Repeated:
                return ask(look, log, True)

    def _window(self, look: Look, window: Window, json_keys: Sequence[str], due: datetime | None = None) -> WindowMetrics:
        gaps = window.log.gaps(json_keys)
        rows = look.rows(window.asked(values.us_of(due or window.period.until)), window.steps)
        (made,) = look.rows(counting.logged(window, gaps))
        return reading.window(window, rows, made, len(gaps))

    def _days(self, look: Look, log: Log, once: bool, *, since: datetime, until: datetime) -> list[DayFigures]:
        gaps, window = log.gaps(self._json_keys(look, log, until)), _of(look, log, since, until, once=once)
        made = look.rows(counting.logged(window, gaps, by_day=True))
        return reading.days(log, look.rows(window.by_day(), window.steps), made, len(gaps), once=once)

    def _rewritten_lately(self, look: Look, log: Log, *, once: bool) -> Rewritten:
        """Of the last day, of predictions as old as outcomes may come late."""
        now = self._now()
        since = now - timedelta(days=log.part.late_outcomes_days) - LATELY
        rows = look.rows(counting.rewritten_lately(log, log.period(since, now), values.us_of(now - LATELY)))
        if not rows:
            return Rewritten()
        oldest, newest = min(row["oldest"] for row in rows), max(row["newest"] for row in rows)
        window = _of(look, log, values.time_of(oldest), values.time_of(newest + 1), once=once)
        known = reading.confusion_of(look.rows(window.counts(), window.steps))
        return reading.rewritten_lately(rows, known, values.time_of(oldest), values.time_of(newest))

    def _newest(
        self, look: Look, log: Log, since: datetime, until: datetime, limit: int, *, labelled_only: bool, once: bool
    ) -> list[Prediction]:
        period = log.period(since, until)
        budget.check(look, log, period)
        asked, features = counting.newest(log, period, limit, labelled_only=labelled_only, once=once)
        try:
            return reading.predictions(log, look.rows(asked), features, once=once)
        except ValueError as error:
            raise Invalid(f"the log of predictions holds a row that cannot be read: {error}") from error

    def _json_keys(self, look: Look, log: Log, until: datetime) -> Sequence[str]:
        """What stands in the column of features: the names of policy, else those in the newest rows."""
        columns = log.part.columns
        if columns.features_json is None or columns.features:
            return columns.features
        for back in BACK[:3]:
            rows = log.made_in(log.period(until - back, until))
            newest = rows.order_by(rows.us_.desc()).limit(JSON_SAMPLE).select(given=rows[columns.features_json].cast("string"))
            if found := look.rows(newest):
                return reading.sample_keys([row["given"] for row in found])
        return ()
