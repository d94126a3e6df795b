"""What is measured of one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from benchmarks.real import rules
from benchmarks.real.rules import POLICY, Pinned, first, first_over
from benchmarks.real.streams import Counts, Pool, Stream, fallen, rarer, replaced_share
from mlrunbook.domain.evaluation.block_score import Rates, score
from mlrunbook.domain.evaluation.long_run_variance import LEAST_BLOCKS

Array = np.ndarray[Any, Any]
WINDOWS = (200, 1000, 5000)
EFFECTIVE_FAILURES, BASELINE_TIMES = 150, 5
FALLS = (0.10, 0.15, 0.20, 0.30)
LEAST_OUTCOMES, LEAST_FAILURES = 200, 100  # of an evaluation window
HIGH = POLICY.planned_fall
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Size:
    """How much is run: unchanged windows a cell, models followed for two years, windows read row by row, reports of Evidently (seconds
    each) a cell, drift reports of ours."""

    windows: int = 1000
    models: int = 300
    by_row: int = 60
    evidently: int = 6
    drift: int = 40


QUICK = Size(windows=100, models=40, by_row=8, evidently=1, drift=5)


@dataclass
class Measured:
    """Shares, of all windows or models; None where not measured."""

    name: str
    rows: int
    positive_rate: float
    f1: float
    looks: int
    rows_per_look: float
    left_out: str = ""
    design_effect: float = 1.0
    refused: float = 0.0
    windows: dict[str, dict[int, float]] = field(default_factory=dict)
    found: dict[str, dict[int, float]] = field(default_factory=dict)
    ever: float = 0.0
    ever_rarer: float = 0.0
    delays: dict[str, dict[str, float | None]] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)
    missed_after_rows: float = 0.0
    missed_refused: float = 0.0
    severity: dict[str, float] = field(default_factory=dict)
    drift: dict[str, float] = field(default_factory=dict)


def measure(pool: Pool, size: Size, seed: int) -> Measured:
    log, rng = pool.log, np.random.default_rng([seed, 18])
    total = pool.all
    looks = ceil(POLICY.within_days * _DAY_S / log.look_s)
    result = Measured(log.name, int(total.n), float(total.positives / total.n), float(total.f1), looks, pool.per_look, log.left_out)
    result.design_effect = design_effect(pool, rng)
    _windows(result, pool, size, rng)
    _two_years(result, pool, size, rng)
    _missed(result, pool, size, rng)
    _drift(result, pool, size, rng)
    return result


def design_effect(pool: Pool, rng: np.random.Generator, streams: int = 300) -> float:
    """The variance of the score's sum over streams, by that of independent rows."""
    rates, total = Rates.of(pool.all), pool.all
    if rates is None:
        return 1.0
    looks = max(4 * pool.log.looks_in_block, 28)
    drawn = [score(pool.draw(rng, looks).counts.total(), rates) for _ in range(streams)]
    true = np.var([s.fall for s in drawn]) / np.mean([s.weight for s in drawn])
    r, phi, caught = rates.recall, rates.false_positive_rate, (2 - rates.f1) / rates.f1
    independent = r * (1 - r) * caught**2 * total.positives + phi * (1 - phi) * (total.n - total.positives)
    return float(true * score(total, rates).weight / independent)


@dataclass(frozen=True)
class Model:
    """A baseline, and what came after it in which nothing changed."""

    before: Stream
    after: Stream
    baseline_looks: int

    @classmethod
    def draw(cls, pool: Pool, rng: np.random.Generator, looks: int, baseline_looks: int | None = None) -> Model:
        length = baseline_looks or pool.log.described.baseline_looks
        return cls(pool.draw(rng, length), pool.draw(rng, looks), length)

    def pinned(self) -> Pinned | None:
        return Pinned.of(self.before.counts, self.before.pool.log.look_s)

    def since(self) -> Counts:
        return self.after.counts.total(axis=0)


def _called(pinned: Pinned | None, since: Counts) -> bool:
    """Whether the window of all of `since` is called real at its end."""
    return pinned is not None and bool(pinned.trace(since).proven[-1])


def _fall(pool: Pool, rng: np.random.Generator, since: Counts, size: float) -> Counts:
    total = pool.all
    return fallen(rng, since, replaced_share(total, size), float((total.tp + total.fp) / total.n))


def _windows(result: Measured, pool: Pool, size: Size, rng: np.random.Generator) -> None:
    """Real-calls on unchanged windows of n rows, and on windows that fell by a fifth."""
    for n in WINDOWS:
        looks = ceil(n / pool.per_look)
        said: dict[str, list[bool]] = {}
        fell: dict[str, list[bool]] = {}
        for k in range(size.windows):
            model = Model.draw(pool, rng, looks)
            pinned, since = model.pinned(), model.since()
            _say(said, "ours", _called(pinned, since))
            _say(said, "plain F1 rule", rules.plain(model.before.counts, since))
            worse = _fall(pool, rng, since, 0.2)
            _say(fell, "ours", _called(pinned, worse))
            _say(fell, "plain F1 rule", rules.plain(model.before.counts, worse))
            if k < size.by_row:
                _by_row(said, model, looks)
            if k < size.evidently:
                _say(said, "Evidently", _evidently(model, looks))
        for into, of in ((result.windows, said), (result.found, fell)):
            for rule, answers in of.items():
                into.setdefault(rule, {})[n] = float(np.mean(answers))


def _say(into: dict[str, list[bool]], rule: str, answer: bool) -> None:
    into.setdefault(rule, []).append(answer)


def _by_row(said: dict[str, list[bool]], model: Model, looks: int) -> None:
    log = model.before.pool.log
    before, after = (stream.rows(k) for stream, k in ((model.before, model.baseline_looks), (model.after, looks)))
    errors = [(log.flag[rows] != log.outcome[rows]).astype(int) for rows in (before[-MOST_BY_ROW:], after)]
    _say(said, "river ADWIN", rules.adwin(*errors))
    _say(said, "river DDM", rules.ddm(*errors))


MOST_BY_ROW = 10_000  # of the baseline, read row by row


def _evidently(model: Model, looks: int) -> bool:
    features = model.before.pool.log.features
    if features.empty:
        return False
    before, after = model.before.rows(model.baseline_looks), model.after.rows(looks)
    return rules.evidently(features.iloc[before], features.iloc[after])


def _two_years(result: Measured, pool: Pool, size: Size, rng: np.random.Generator) -> None:
    """How many unchanged models are ever called in two years of looks; how long falls take, beside a CUSUM tuned to the same run length."""
    kept, heights, called, rarely = [], [], [], []
    window = evaluation_looks(pool)
    for _ in range(size.models):
        model = Model.draw(pool, rng, result.looks)
        pinned, since = model.pinned(), model.since()
        if pinned is None or not pinned.proves:
            result.refused += 1 / size.models
        if pinned is None:
            continue
        seen = pinned.trace(since, window)
        called.append(first(seen.proven) is not None)
        rarely.append(first(pinned.trace(rarer(rng, since, 1 / 3), window).proven) is not None)
        heights.append(float(seen.height.max()))
        kept.append((pinned, since))
    if not kept:
        return
    result.ever, result.ever_rarer = float(np.mean(called)), float(np.mean(rarely))
    same = float(np.quantile(heights, 1 - max(result.ever, 1 / len(heights))))
    for fall in FALLS:
        traces = [pinned.trace(_fall(pool, rng, since, fall), window) for pinned, since in kept]
        ours = [first(t.proven) for t in traces]
        tuned = [first_over(t.height, same) for t in traces]
        result.delays[f"{fall:.0%}"] = _delays(ours, tuned, pool.per_look)


def evaluation_looks(pool: Pool) -> int:
    """Looks that hold the outcomes and failures of an evaluation window."""
    total = pool.all
    rows = max(LEAST_OUTCOMES, LEAST_FAILURES * float(total.n / total.positives))
    return ceil(rows / pool.per_look)


def _delays(ours: list[int | None], tuned: list[int | None], per_look: float) -> dict[str, float | None]:
    mid, tuned_mid = _delay(ours, 0.5), _delay(tuned, 0.5)
    looks = {"ours": mid, "ours_90": _delay(ours, 0.9), "tuned": tuned_mid, "tuned_90": _delay(tuned, 0.9)}
    rows = {k: None if v is None else v * per_look for k, v in looks.items()}
    return {**rows, "ratio": mid / tuned_mid if mid and tuned_mid else None}


def _delay(found: list[int | None], share: float) -> float | None:
    reached = np.quantile([np.inf if k is None else k for k in found], share, method="higher")
    return float(reached) if np.isfinite(reached) else None


def _missed(result: Measured, pool: Pool, size: Size, rng: np.random.Generator) -> None:
    """Falls not called when 150 effective failures have come, against a baseline of five times that which can prove a fifth; of how many
    it says that it cannot; and how severe the falls called are."""
    total = pool.all
    failures_per_look = pool.per_look * float(total.positives / total.n)
    looks = ceil(EFFECTIVE_FAILURES * result.design_effect / failures_per_look)
    result.missed_after_rows = looks * pool.per_look
    found: dict[str, list[bool]] = {}
    severity: dict[str, list[bool]] = {}
    for _ in range(size.models):
        model = Model.draw(pool, rng, looks, max(BASELINE_TIMES * looks, LEAST_BLOCKS))
        pinned, since = model.pinned(), model.since()
        if pinned is None or not pinned.proves:
            result.missed_refused += 1 / size.models
            continue
        falls = {"unchanged": 0.0, "12%": 0.12, "20%": 0.2, "25%": 0.25, "30%": 0.3, "20-50%": float(rng.uniform(0.2, 0.5))}
        for name, fall in falls.items():
            seen = pinned.trace(_fall(pool, rng, since, fall) if fall else since)
            called = bool(seen.proven[-1])
            _say(found, name, called)
            if called and name in ("12%", "30%"):
                _say(severity, name, (seen.fall[-1] > HIGH) == (fall > HIGH))
    result.missed = {name: float(np.mean(seen)) if name == "unchanged" else 1 - float(np.mean(seen)) for name, seen in found.items()}
    result.severity = {name: float(np.mean(right)) for name, right in severity.items()}


def _drift(result: Measured, pool: Pool, size: Size, rng: np.random.Generator) -> None:
    """False drift reports: one block against the baseline, resampled."""
    features = pool.log.features
    if features.empty:
        return
    looks = pool.log.looks_in_block
    ours, theirs = [], []
    for k in range(size.drift):
        model = Model.draw(pool, rng, looks)
        ours.append(rules.our_drift(model.before, model.baseline_looks, model.after, looks))
        if k < size.evidently:
            theirs.append(_evidently(model, looks))
    result.drift = {rule: float(np.mean(said)) for rule, said in (("ours", ours), ("Evidently", theirs)) if said}
