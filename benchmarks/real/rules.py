"""The rules that are compared: ours, the plain threshold, a CUSUM that knows the unchanged streams, Evidently's and river's defaults."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.real.streams import Counts, Stream
from mlrunbook.domain.evaluation.accumulated import PinnedBaseline, Trace, pin, trace
from mlrunbook.domain.evaluation.block_score import Rates, score
from mlrunbook.domain.evaluation.drift import Reference
from mlrunbook.domain.policy.judging import F1, DropPolicy, RunLengthPolicy

Array = np.ndarray[Any, Any]
PLAIN_LIMIT = DropPolicy().most(F1)
POLICY = RunLengthPolicy()


@dataclass(frozen=True)
class Pinned:
    """A baseline and the rates that it is scored against."""

    rates: Rates
    baseline: PinnedBaseline

    @classmethod
    def of(cls, counts: Counts, look_s: float) -> Pinned | None:
        """`counts` by asset and look."""
        by_look, total = counts.total(axis=0), counts.total()
        rates = Rates.of(total)
        if rates is None:
            return None
        assets = score(counts.total(axis=1), rates) if len(counts.tp) > 1 else None
        baseline = pin(score(by_look, rates), assets, outcomes=int(total.n), block_s=look_s)
        return cls(rates, baseline) if baseline else None

    @property
    def proves(self) -> bool:
        """Long enough to prove the planned fall."""
        return self.baseline.provable(POLICY) < POLICY.planned_fall

    def trace(self, since: Counts, window: int | None = None) -> Trace:
        """`since`: by look; `window` as in `accumulated.trace`."""
        return trace(self.baseline, score(since, self.rates), POLICY, window=window, least=PLAIN_LIMIT)


def first_over(path: Array, limit: float) -> int | None:
    """The first look, from 1, at which a path reaches the limit."""
    return first(path >= limit)


def first(said: Array) -> int | None:
    """The first look, from 1."""
    at = np.flatnonzero(said)
    return int(at[0]) + 1 if len(at) else None


def plain(baseline: Counts, window: Counts) -> bool:
    """The point estimate of F1 past its limit, no more."""
    return bool(window.total().f1 < baseline.total().f1 * (1 - PLAIN_LIMIT))


def adwin(baseline: Array, window: Array) -> bool:
    """river's ADWIN on errors: a change of the mean that is a rise."""
    from river.drift import ADWIN

    detector, before = ADWIN(), float(baseline.mean())
    return _detects(detector, baseline, window, lambda: detector.estimation > before)


def ddm(baseline: Array, window: Array) -> bool:
    """river's DDM on errors."""
    from river.drift.binary import DDM

    return _detects(DDM(), baseline, window, lambda: True)


def _detects(detector: Any, baseline: Array, window: Array, rose: Any) -> bool:
    for error in baseline.tolist():
        detector.update(error)
    for error in window.tolist():
        detector.update(error)
        if detector.drift_detected and rose():
            return True
    return False


def evidently(baseline: pd.DataFrame, window: pd.DataFrame) -> bool:
    """Evidently's preset as it comes: data drift where half of the columns drifted."""
    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(baseline.columns))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        sides = [Dataset.from_pandas(side.astype(float), data_definition=definition) for side in (window, baseline)]
        found = Report([DataDriftPreset()]).run(*sides).dict()
    return bool(found["metrics"][0]["value"]["share"] >= 0.5)


def our_drift(baseline: Stream, looks: int, recent: Stream, recent_looks: int) -> bool:
    """A drift report of ours, as scheduled reports make it."""

    def side(stream: Stream, until: int) -> tuple[dict[str, Array], Array, Array | None]:
        rows, log = stream.rows(until), stream.pool.log
        columns = {name: log.features[name].to_numpy()[rows] for name in log.features.columns}
        at = (stream.seconds(until) * 1e6).astype("datetime64[us]")
        return columns, at, None if log.asset is None else log.asset[rows]

    old, new = side(baseline, looks), side(recent, recent_looks)
    reference = Reference.of(old[0], at=old[1], entity=None if old[2] is None else old[2].tolist())
    return reference.compare(new[0], at=new[1], entity=None if new[2] is None else new[2].tolist()).drifted is True


def missing() -> list[str]:
    """Libraries that only this benchmark needs, and that are not here."""
    import importlib.util

    return [name for name in ("river", "evidently") if importlib.util.find_spec(name) is None]
