"""Does the verdict on a performance drop keep its promise? Simulated streams of outcomes, graded by the product's own rule.

A stream is a window of `n` predictions of which `coverage` have a known outcome, looked at 40 times while it grows, against a baseline of
its own. Failures and alarms come in clusters: with probability `autocorrelation` one is of the same kind (caught, missed, false alarm) as
the one before. Counted per stratum: how many unchanged streams are ever called real, and how many outcomes a true 20 % fall of F1
(precision and recall alike) takes to be called real in 90 % of the streams. Beside it the best rule that looks once, at a moment fixed
beforehand: its critical value is taken from the unchanged streams themselves, so it knows all about them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from mlrunbook.domain.evaluation.performance import Confusion, grade_drop, wilson, z_value
from mlrunbook.domain.evaluation.sequential import clustering_of, dispersion, fall_score, falls, joined_slices, outcomes_to_detect
from mlrunbook.domain.policy.judging import DropPolicy

STREAMS = 2000
LOOKS, CELLS = 40, 480
SLICES = 120  # of a window, as the platform gives them
PRECISION, RECALL = 0.82, 0.78
DROP, POWER, MOST_RATIO = 0.20, 0.90, 1.5
BASELINE = 30_000
COMPARED = 4  # verdicts a stratum that are asked of `grade_drop` itself

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Stratum:
    """`n` predictions of which `coverage` have an outcome; of those `positive_rate` failed."""

    n: int
    positive_rate: float
    autocorrelation: float
    coverage: float
    baseline: int = BASELINE

    @property
    def labelled(self) -> int:
        return round(self.n * self.coverage)


STRATA = [
    *(Stratum(*values) for values in product((1000, 5000, 20_000), (0.03, 0.10), (0.0, 0.3, 0.5), (1.0, 0.3))),
    *(Stratum(n, 0.10, rho, 1.0, baseline=1000) for n, rho in product((1000, 20_000), (0.0, 0.3))),
]


class Cells(NamedTuple):
    """Counts up to the end of each cell of a window, (streams, cells + 1); a cell is a small equal part of its rows."""

    tp: Array
    fp: Array
    fn: Array
    rows: Array


def simulate(rng: np.random.Generator, rows: int, rate: float, rho: float, *, drop: float = 0.0, streams: int = STREAMS) -> Cells:
    """Streams of `rows` labelled predictions, cut into CELLS."""
    precision, recall = PRECISION * (1 - drop), RECALL * (1 - drop)
    kinds = np.array([recall, recall * (1 - precision) / precision, 1 - recall])  # caught, false alarm, missed: for each failure
    edges = np.arange(CELLS + 1) * rows // CELLS
    ends = np.cumsum(rng.binomial(np.diff(edges), min(rate * kinds.sum(), 1.0), size=(streams, CELLS)), axis=1)
    ends = np.concatenate([np.zeros((streams, 1), int), ends], axis=1)
    most = int(ends[:, -1].max())
    fresh = np.searchsorted(np.cumsum(kinds / kinds.sum())[:2], rng.random((streams, most), dtype=np.float32)).astype(np.int8)
    if rho:
        anew = rng.random((streams, most), dtype=np.float32) >= rho
        anew[:, :1] = True
        source = np.maximum.accumulate(np.where(anew, np.arange(most, dtype=np.int32), 0), axis=1)
        fresh = np.take_along_axis(fresh, source, axis=1)

    def up_to(kind: int) -> Array:
        total = np.concatenate([np.zeros((streams, 1), np.int32), np.cumsum(fresh == kind, axis=1, dtype=np.int32)], axis=1)
        return np.take_along_axis(total, ends, axis=1)

    return Cells(up_to(0), up_to(1), up_to(2), edges)


def blocks(cells: Cells, until: int) -> Cells:
    """Counts in equal slices of the window that ends with cell `until`; each slice holds at least one row."""
    slices = min(SLICES, until, int(cells.rows[until]))
    at = np.arange(slices + 1) * until // slices
    return Cells(*(np.diff(c[:, at], axis=1) for c in cells[:3]), np.diff(cells.rows[at]))


def measured(window: Cells) -> tuple[Array, Array]:
    """Each stream's dispersion, and on how many joined slices it rests, as `performance.clustering` measures them."""
    trials = window.tp + window.fp + window.fn
    total, slices = trials.sum(axis=1), trials.shape[1]
    joined = np.array([joined_slices(slices, t) for t in range(int(total.max()) + 1)])[total]
    value, known = np.ones(len(total)), np.zeros(len(total))
    for j in np.unique(joined[joined > 0]):
        of = joined == j
        value[of], known[of] = dispersion(window.tp[of], trials[of], int(j)), slices / j
    return value, known


class Looks(NamedTuple):
    """By stream and look: whether the product calls it real, and the scores of F1, precision and recall where past their limits."""

    rows: Array
    real: Array
    scores: tuple[Array, ...]


def look(baseline: Cells, window: Cells, policy: DropPolicy, *, check: np.random.Generator | None = None) -> Looks:
    """Grade every stream at every look."""
    before = Cells(*(c[:, -1].astype(float) for c in baseline[:3]), baseline.rows[-1:])
    sound = before.tp + before.fn >= policy.min_positives
    base_blocks = blocks(baseline, CELLS)
    base = measured(base_blocks)
    ends = (np.arange(LOOKS) + 1) * CELLS // LOOKS
    real, scores = [], []
    for end in ends:
        now = Cells(*(c[:, end].astype(float) for c in window[:3]), window.rows[end : end + 1])
        slices = blocks(window, end)
        verdict = falls(before, now, policy, clustering=clustering_of(*base, *measured(slices)))
        real.append(sound & (verdict["f1"] | verdict["precision"] | verdict["recall"]))
        scores.append(_scores(before, now, policy))
        if check is not None:
            for i in check.integers(len(sound), size=1 if end % 120 else COMPARED):
                _compare(real[-1][i], i, before, base_blocks, now, slices, policy)
    return Looks(window.rows[ends], np.stack(real, axis=1), tuple(np.stack(s, axis=1) for s in zip(*scores, strict=True)))


def _scores(before: Cells, now: Cells, policy: DropPolicy) -> tuple[Array, ...]:
    def one(was: Array, of: Array, limit: float, *, f1: bool = False) -> Array:
        share = [np.divide(c.tp, n, out=np.ones_like(n), where=n > 0) for c, n in ((before, was), (now, of))]
        old, new = (2 * s / (1 + s) for s in share) if f1 else share
        return np.where(new < old * (1 - limit), fall_score(before.tp, was, now.tp, of), -np.inf)

    return (
        one(before.tp + before.fp + before.fn, now.tp + now.fp + now.fn, policy.most("f1"), f1=True),
        one(before.tp + before.fp, now.tp + now.fp, policy.most("precision")),
        one(before.tp + before.fn, now.tp + now.fn, policy.most("recall")),
    )


def _compare(real: bool, i: int, before: Cells, base: Cells, now: Cells, slices: Cells, policy: DropPolicy) -> None:
    """The vectorised verdict must be the one triage gets."""

    def counts(c: Cells, *at: int) -> Confusion:
        tp, fp, fn = (int(x[(i, *at)]) for x in c[:3])
        return Confusion(tp, fp, fn, int(c.rows[at[-1] if at else 0]) - tp - fp - fn)

    def all_of(c: Cells) -> list[Confusion]:
        return [counts(c, k) for k in range(c.tp.shape[1])]

    verdict = grade_drop(counts(before), counts(now), policy, blocks=all_of(slices), baseline_blocks=all_of(base))
    if verdict.is_real != bool(real):
        raise AssertionError(f"vectorised {bool(real)}, but grade_drop says: {verdict.reason}")


def first_reached(rows: Array, share: Array, level: float) -> float | None:
    """Rows at which `share` first reaches `level`, between looks by a straight line."""
    above = np.flatnonzero(share >= level)
    if not len(above):
        return None
    k = int(above[0])
    if k == 0:
        return float(rows[0])
    part = (level - share[k - 1]) / (share[k] - share[k - 1])
    return float(rows[k - 1] + part * (rows[k] - rows[k - 1]))


def single_look(unchanged: Looks, fallen: Looks, rate: float) -> float | None:
    """Outcomes for power 0.9 of the best rule that looks once: F1 alone, or the largest of the three scores.

    Its critical values are quantiles of few streams, so its power is averaged over five neighbouring moments.
    """
    reached = []
    for pick in (lambda s: s[0], lambda s: np.max(s, axis=0)):
        critical = np.quantile(pick(unchanged.scores), 1 - rate, axis=0, method="higher")
        power = (pick(fallen.scores) > critical).mean(axis=0)
        reached.append(first_reached(fallen.rows[2:-2], np.convolve(power, np.full(5, 0.2), mode="valid"), POWER))
    return min((r for r in reached if r is not None), default=None)


def false_alarms(s: Stratum, policy: DropPolicy, seed: int, streams: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    base = simulate(rng, s.baseline, s.positive_rate, s.autocorrelation, streams=streams)
    unchanged = look(base, simulate(rng, s.labelled, s.positive_rate, s.autocorrelation, streams=streams), policy, check=rng)
    fallen = look(base, simulate(rng, s.labelled, s.positive_rate, s.autocorrelation, drop=DROP, streams=streams), policy, check=rng)
    alarms = int(unchanged.real.any(axis=1).sum())
    low, high = wilson(alarms, streams, z_value(0.95))
    power = float(fallen.real.any(axis=1).mean())
    return {"false_alarms": alarms / streams, "low": low, "high": high, "power": power}


def delay(rate: float, rho: float, policy: DropPolicy, seed: int, streams: int) -> dict[str, Any]:
    """Known outcomes until a fall is found, of the product and of the best single look. What is not labelled adds nothing to either."""
    rng = np.random.default_rng(seed)
    failures = BASELINE * rate
    counts = Confusion(round(failures * RECALL), round(failures * RECALL * (1 - PRECISION) / PRECISION), round(failures * (1 - RECALL)))
    stated = outcomes_to_detect(counts, BASELINE, policy, drop=DROP, clustering=(1 + rho) / (1 - rho))
    rows = round((stated or BASELINE) * 1.4)
    base = simulate(rng, BASELINE, rate, rho, streams=streams)
    unchanged, fallen = (look(base, simulate(rng, rows, rate, rho, drop=d, streams=streams), policy) for d in (0.0, DROP))
    found = first_reached(fallen.rows, np.maximum.accumulate(fallen.real, axis=1).mean(axis=0), POWER)
    once = single_look(unchanged, fallen, policy.false_alarm_rate)
    return {"delay": found, "stated": stated, "single_look": once, "ratio": found / once if found and once else None}


def run(strata: list[Stratum], *, streams: int = STREAMS, seed: int = 1) -> list[dict[str, Any]]:
    """One row a stratum. The delay is the same for every n, and in known outcomes for every coverage: it is simulated once for them."""
    policy = DropPolicy()
    pairs = sorted({(s.positive_rate, s.autocorrelation) for s in strata})
    delays = {pair: delay(*pair, policy, seed + 1000 + i, 2 * streams) for i, pair in enumerate(pairs)}
    rows = []
    for i, s in enumerate(strata):
        row: dict[str, Any] = asdict(s) | false_alarms(s, policy, seed + i, streams)
        if s.baseline == BASELINE:
            row |= delays[s.positive_rate, s.autocorrelation]
        row["missed"] = row["false_alarms"] > policy.false_alarm_rate or ("ratio" in row and (row["ratio"] or 99) > MOST_RATIO)
        rows.append(row)
    return rows


def main() -> None:
    began = time.perf_counter()
    rows = run(STRATA)
    table = Table(title=f"{STREAMS} streams a stratum, {LOOKS} looks each; a true fall of F1 by {DROP:.0%}")
    for column in (
        "n",
        "failed",
        "autocorr.",
        "labelled",
        "baseline",
        "false alarms (95 %)",
        "power in n",
        "delay",
        "stated",
        "one look",
        "ratio",
    ):
        table.add_column(column, justify="right")
    for r in rows:
        delays = [f"{r[k]:,.0f}" if r.get(k) else "" for k in ("delay", "stated", "single_look")]
        mark = " MISSED" if r["missed"] else ""
        table.add_row(
            f"{r['n']:,}", f"{r['positive_rate']:.0%}", f"{r['autocorrelation']:g}", f"{r['coverage']:.0%}", f"{r['baseline']:,}",
            f"{r['false_alarms']:.2%} ({r['low']:.2%}-{r['high']:.2%})", f"{r['power']:.2f}", *delays,
            (f"{r['ratio']:.2f}" if r.get("ratio") else "") + mark,
        )  # fmt: skip
    Console(width=160).print(table)
    print("delay: known outcomes until 90 % of twice the streams are called real; stated: what the product says beforehand")
    worst = max(rows, key=lambda r: r["false_alarms"])
    line = {
        "benchmark": "decisions",
        "streams": STREAMS,
        "strata": len(rows),
        "worst_false_alarms": worst["false_alarms"],
        "worst_ratio": round(max(r["ratio"] or 99 for r in rows if "ratio" in r), 3),
        "missed": sum(r["missed"] for r in rows),
        "seconds": round(time.perf_counter() - began, 1),
        "rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in rows],
    }
    print(json.dumps(line))
    if line["missed"]:
        sys.exit(1)
