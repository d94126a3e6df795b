"""What the replay needs of the staged log: counts by block, and bounded numbers of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, isnan
from typing import Any

from mlrunbook.adapters.history.staging import Staged
from mlrunbook.domain.backtest.blocks import BlockLog, VersionBlocks, block_length
from mlrunbook.domain.backtest.suggestions import BINS, PARTS, Scores
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.block_score import Stacked
from mlrunbook.domain.evaluation.maturity import Maturity, maturity
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.tally import Confusion

ASSET_GROUPS = 200  # assets beyond that share one by hash, which is as independent as they are
MOST_SEGMENTS, MOST_VERSIONS = 40, 12
DELAYS = 20_000  # of each kind of outcome, to know when nearly all have come
EVERY_VERSION, UNKNOWN, OTHER = "all", "unknown", "(other)"


@dataclass(frozen=True)
class Span:
    """The log's time, in seconds since 1970: first and last prediction, and `end`, when the last thing in it was known."""

    first: float
    last: float
    end: float
    rows: int
    outcomes: int
    failures: int


def span_of(staged: Staged) -> Span:
    found = staged.db.execute(
        "SELECT min(at_s), max(at_s), max(greatest(at_s, coalesce(known_s, at_s))), "
        "count(*), count(outcome), count(*) FILTER (outcome) FROM log"
    ).fetchone()
    span = Span(*found) if found and found[3] else Span(0.0, 0.0, 0.0, 0, 0, 0)
    if not span.failures or span.failures == span.outcomes:
        raise Invalid(f"{_one_sided(span)}: F1 needs outcomes of both kinds", field="column")
    if span.first == span.last:
        raise Invalid(
            "every prediction has the same time: name the column that says when each was made with --column time=NAME", field="column"
        )
    return span


def _one_sided(span: Span) -> str:
    if not span.outcomes:
        return (
            f"none of {span.rows:,} rows has an outcome; name its column with --column outcome=NAME, or come back once outcomes are known"
        )
    if not span.failures:
        return f"there is no failure among {span.outcomes:,} known outcomes; write 1 where one happened, or export a longer time"
    return f"all {span.outcomes:,} known outcomes are failures; write 0 where none happened: an empty outcome counts as not known yet"


def maturity_of(staged: Staged, span: Span) -> tuple[Maturity, float | None]:
    """The age from which a prediction counts, and the median delay. Of the log's first half, whose outcomes have had time to come."""
    if not staged.is_delayed:
        delay = staged.columns.outcome_delay_s
        if delay is None:
            return Maturity(0.0, "no outcome time is logged: each outcome counts as known at once"), None
        return maturity([], [], horizon_s=delay), delay
    half = span.first + (span.last - span.first) / 2

    def delays(outcome: str) -> list[float]:
        found = staged.db.execute(
            f"SELECT known_s - at_s FROM log WHERE outcome = {outcome} AND at_s <= ? ORDER BY hash(rowid) LIMIT {DELAYS}", [half]
        )
        return [float(row[0]) for row in found.fetchall()]

    (median,) = staged.db.execute("SELECT approx_quantile(known_s - at_s, 0.5) FROM log WHERE outcome IS NOT NULL").fetchone() or (None,)
    ripe = maturity(delays("true"), delays("false"))
    if ripe.age_s is None:
        raise Invalid(
            f"when outcomes are mature cannot be told ({ripe.reason}): say it with --outcome-delay, such as 7d", field="outcome-delay"
        )
    return ripe, median


def _version(staged: Staged) -> str:
    return f"coalesce(version, '{UNKNOWN}')" if "version" in staged.columns.of else f"'{EVERY_VERSION}'"


class Reader:
    """`log` by block; `now` for rows is given with each question, and outcomes that came later are not in them."""

    def __init__(self, staged: Staged, span: Span, ripe: Maturity) -> None:
        self.staged, self.span, self.age_s = staged, span, ripe.age_s or 0.0
        self.small_versions = self.unjudged = 0
        self.block_s = float(block_length(span.last - span.first, span.failures))
        self.since_s = span.first // self.block_s * self.block_s
        closed = int((span.end + 1e-6 - self.age_s - self.since_s) // self.block_s)
        if self.age_s == 0 and (span.last - self.since_s) % self.block_s > 0.8 * self.block_s:
            closed += 1  # a last block that is all but over
        self.blocks = closed
        if closed < 1:
            raise Invalid("the log ends before its first outcomes are mature: a longer one is needed, or a shorter --outcome-delay")
        if "segment" in staged.columns.of:
            staged.db.execute(
                "CREATE OR REPLACE TEMP TABLE big_segments AS SELECT segment FROM log WHERE segment IS NOT NULL "
                f"GROUP BY segment ORDER BY count(*) DESC, segment LIMIT {MOST_SEGMENTS}"
            )
        self.is_judged = f"outcome IS NOT NULL AND known_s <= at_s + {self.age_s + 1e-3!r} AND {self._block} < {closed}"

    @property
    def _block(self) -> str:
        return f"CAST(floor((at_s - {self.since_s!r}) / {self.block_s!r}) AS INTEGER)"

    def at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    def versions(self) -> list[tuple[str, int, float]]:
        """Each with its judged outcomes and its first prediction, by that; the biggest of many: outcomes of the others are `unjudged`."""
        found = self._all(
            f"SELECT {_version(self.staged)} AS v, count(*), min(at_s) FROM log WHERE {self.is_judged} GROUP BY v ORDER BY 2 DESC"
        )
        self.small_versions = len(found[MOST_VERSIONS:])
        self.unjudged = sum(n for _, n, _ in found[MOST_VERSIONS:])
        return sorted(((str(v), n, first) for v, n, first in found[:MOST_VERSIONS]), key=lambda v: v[2])

    def block_log(self, versions: Sequence[str]) -> BlockLog:
        import numpy as np

        cells = _cells()
        by_segment = self._all(f"SELECT {self._segment()} AS s, {self._block} AS b, {cells} FROM log WHERE {self.is_judged} GROUP BY s, b")
        segments: dict[str, Any] = {}
        for name, block, *counts in by_segment:
            segments.setdefault(str(name), np.zeros((4, self.blocks)))[:, block] += counts
        held = []
        for version in versions:
            one = self._version_blocks(version)
            if one is not None:
                held.append(one)
        own = {} if set(segments) <= {UNKNOWN} else segments
        return BlockLog(self.at(self.since_s), self.block_s, self.age_s, tuple(held), {name: Stacked(*c) for name, c in own.items()})

    def _version_blocks(self, version: str) -> VersionBlocks | None:
        import numpy as np

        assets = f"hash(asset) % {ASSET_GROUPS}" if "asset" in self.staged.columns.of else "0"
        found = self.staged.db.execute(
            f"SELECT {self._block} AS b, {assets} AS a, {_cells()} FROM log "
            f"WHERE {self.is_judged} AND {_version(self.staged)} = ? GROUP BY b, a",
            [version],
        ).fetchnumpy()
        blocks, groups = np.asarray(found["b"], int), np.asarray(found["a"], int)
        if not len(blocks):
            return None
        first, end = int(blocks.min()), int(blocks.max()) + 1
        names, index = np.unique(groups, return_inverse=True)
        by_asset = []
        for cell in ("tp", "fp", "fn", "tn"):
            whole = np.zeros((end - first, len(names)), np.float32)
            np.add.at(whole, (blocks - first, index), np.asarray(found[cell], float))
            by_asset.append(whole)
        whole_assets = Stacked(*by_asset) if "asset" in self.staged.columns.of and len(names) > 1 else None
        return VersionBlocks(version, first, Stacked(*(c.sum(axis=1, dtype=float) for c in by_asset)), whole_assets)

    def _segment(self) -> str:
        if "segment" not in self.staged.columns.of:
            return f"'{UNKNOWN}'"
        return f"CASE WHEN segment IS NULL THEN '{UNKNOWN}' WHEN segment IN (FROM big_segments) THEN segment ELSE '{OTHER}' END"

    def segment_blocks(self, version: str, since: int, until: int) -> Mapping[str, list[Confusion]]:
        """Of one version between two blocks, a tally a block."""
        if "segment" not in self.staged.columns.of:
            return {}
        found = self.staged.db.execute(
            f"SELECT {self._segment()} AS s, {self._block} AS b, {_cells()} FROM log "
            f"WHERE {self.is_judged} AND {_version(self.staged)} = ? AND at_s >= ? AND at_s < ? GROUP BY s, b",
            [version, self.since_s + since * self.block_s, self.since_s + until * self.block_s],
        ).fetchall()
        held: dict[str, list[Confusion]] = {}
        for name, block, *counts in found:
            blocks = held.setdefault(str(name), [Confusion()] * (until - since))
            if 0 <= block - since < len(blocks):
                blocks[block - since] = Confusion(*map(int, counts))
        return held

    def rows(self, version: str, since: float, until: float, now: float, limit: int, *, labelled: bool = False) -> list[Prediction]:
        """The newest predictions of a version, oldest first; an outcome that was not known at `now` is not in them."""
        names = list(self.staged.features)
        columns = "".join(f", {alias}" for alias in self.staged.features.values())
        only = "AND outcome IS NOT NULL AND known_s <= ?" if labelled else ""
        newest = f"SELECT rowid FROM log WHERE {_version(self.staged)} = ? AND at_s >= ? AND at_s < ? {only} ORDER BY at_s DESC, rowid DESC"
        found = self.staged.db.execute(
            "SELECT rowid, at_s, asset, segment, score, flag, threshold, CASE WHEN known_s <= ? THEN outcome END"
            f"{columns} FROM log WHERE rowid IN ({newest} LIMIT {limit}) ORDER BY at_s, rowid",
            [now, version, since, until, *([now] if labelled else [])],
        ).fetchall()
        return [
            Prediction(
                row + 1, self.at(at), asset if asset is not None else UNKNOWN, segment if segment is not None else UNKNOWN,
                {n: self._value(n, v) for n, v in zip(names, values, strict=True)}, score, flag, version, threshold, None, outcome,
            )
            for row, at, asset, segment, score, flag, threshold, outcome, *values in found
        ]  # fmt: skip

    def spread(self, version: str, since: float, until: float, now: float, limit: int, parts: int) -> list[Prediction]:
        """From all over the time."""
        edges = [since + (until - since) * k / parts for k in range(parts + 1)]
        return [p for a, b in pairwise(edges) for p in self.rows(version, a, b, now, limit // parts)]

    def sample(self, periods: int, size: int) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
        """By period of equal time: (at, asset, features in order) of about `size` rows."""
        length = max((self.span.last - self.span.first) / periods, 1e-9)
        every = max(1, ceil(self.span.rows / (size * periods)))
        columns = "".join(f", {alias}" for alias in self.staged.features.values())
        found = self._all(
            f"SELECT least(CAST(floor((at_s - {self.span.first!r}) / {length!r}) AS INTEGER), {periods - 1}) AS p, at_s, asset{columns} "
            f"FROM log WHERE hash(rowid) % {every} = 0 ORDER BY p, at_s"
        )
        held: dict[int, list[tuple[Any, ...]]] = {}
        for period, at, asset, *values in found:
            held.setdefault(period, []).append((at, asset, *(self._value(n, v) for n, v in zip(self.staged.features, values, strict=True))))
        yield from sorted(held.items())

    def scores(self, without: Sequence[tuple[int, int]]) -> Scores | None:
        """None where the log holds no score. `without`: blocks of called falls, which say nothing of the model at its best."""
        if not self.staged.columns.has_score:
            return None
        import numpy as np

        length = max(self.blocks * self.block_s / PARTS, 1e-9)
        part = f"least(CAST(floor((at_s - {self.since_s!r}) / {length!r}) AS INTEGER), {PARTS - 1})"
        held, flagged = np.zeros((PARTS, BINS, 2)), np.zeros((PARTS, 4))
        by_score = f"SELECT {part} AS p, least(CAST(floor(score * {BINS}) AS INTEGER), {BINS - 1}) AS b, outcome, count(*) FROM log"
        for p, b, outcome, count in self._all(f"{by_score} WHERE {self.is_judged} GROUP BY p, b, outcome"):
            held[p, b, int(outcome)] = count
        for p, *counts in self._all(f"SELECT {part} AS p, {_cells()} FROM log WHERE {self.is_judged} GROUP BY p"):
            flagged[p] = counts
        kept = [
            p for p in range(PARTS) if not any(a < (p + 1) * length / self.block_s and p * length / self.block_s < b for a, b in without)
        ]
        return Scores(held[kept], flagged[kept])

    def count(self, condition: str) -> int:
        (found,) = self.staged.db.execute(f"SELECT count(*) FROM log WHERE {condition}").fetchone() or (0,)
        return int(found)

    def distinct(self, column: str) -> int:
        (found,) = self.staged.db.execute(f"SELECT approx_count_distinct({column}) FROM log").fetchone() or (0,)
        return int(found)

    def _value(self, name: str, value: Any) -> Any:
        """As the live log holds it: a number as one, whatever the file writes."""
        if value is None or value == "":
            return None
        if name in self.staged.numeric:
            try:
                number = float(value)
            except (TypeError, ValueError):
                return str(value)
            return None if isnan(number) else number
        if isinstance(value, bool):
            return value
        text = str(value)
        return text.casefold() == "true" if name in self.staged.truths and text.casefold() in ("true", "false") else text

    def _all(self, sql: str) -> list[Any]:
        return self.staged.db.execute(sql).fetchall()


def _cells() -> str:
    return (
        "count(*) FILTER (flag AND outcome) AS tp, count(*) FILTER (flag AND NOT outcome) AS fp, "
        "count(*) FILTER (NOT flag AND outcome) AS fn, count(*) FILTER (NOT flag AND NOT outcome) AS tn"
    )
