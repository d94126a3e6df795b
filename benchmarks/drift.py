"""Drift: how fast and how large beside Evidently's preset, and how often right.

Speed: a million rows of 20 columns (15 numbers, 5 categories) against a million, ours and Evidently's each in a process of its own, one
after the other on the same data; the time is from frames in memory to verdicts, without imports. Decisions: simulated reports of 20
columns, independent and with memory (AR(1)), without drift and with one column moved by 0.3 standard deviations. Exits 1 when a figure
is missed.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import os
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlrunbook.domain.evaluation.drift import Reference

ROWS, NUMBERS, CATEGORIES = 1_000_000, 15, 5
SHARES = (0.5, 0.2, 0.15, 0.1, 0.05)
TIMES_FASTER, MOST_MB, MOST_FALSE_ALARMS = 20.0, 1024.0, 0.05
SHIFT = 0.3
# (rows of the reference, recent rows, phi): false alarms a report
WITHOUT_DRIFT = (
    (500, 500, 0.0), (2000, 300, 0.0), (5000, 1000, 0.0), (5000, 5000, 0.0), (50_000, 50_000, 0.0),
    (500, 500, 0.5), (5000, 5000, 0.5), (1000, 1000, 0.9), (5000, 5000, 0.9), (20_000, 20_000, 0.9),
)  # fmt: skip
WITH_DRIFT = ((500, 500, 0.8), (1000, 1000, 0.8), (5000, 5000, 0.99))  # and the least share that must be seen
VALUES_SIMULATED = 40_000_000  # per case, so that large ones take no longer than small ones
LEAST_REPORTS, MOST_REPORTS = 100, 2000


def main() -> None:
    speed = {name: _alone(measure) for name, measure in (("ours", _ours), ("evidently", _evidently))}
    with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count() or 1)) as pool:
        false_alarms = pool.starmap(_false_alarms, WITHOUT_DRIFT, chunksize=1)
        power = pool.starmap(_power, [case[:2] for case in WITH_DRIFT], chunksize=1)
    ratio = speed["evidently"]["seconds"] / speed["ours"]["seconds"]
    cpu_ratio = speed["evidently"]["cpu_s"] / speed["ours"]["cpu_s"]
    missed = [f"only {ratio:.0f} times faster"] * (ratio < TIMES_FASTER)
    missed += [f"peak memory {speed['ours']['peak_mb']:.0f} MB"] * (speed["ours"]["peak_mb"] > MOST_MB)
    for case, (rate, reports) in zip(WITHOUT_DRIFT, false_alarms, strict=True):
        if rate > MOST_FALSE_ALARMS:
            missed.append(f"false alarms {rate:.3f} of {reports} reports at {case}")
    for (old, new, least), (rate, reports) in zip(WITH_DRIFT, power, strict=True):
        if rate < least:
            missed.append(f"power {rate:.3f} of {reports} reports at {old}/{new}")
    _report(speed, ratio, false_alarms, power, missed)
    figures = {
        "benchmark": "drift",
        "rows": ROWS,
        "columns": NUMBERS + CATEGORIES,
        "times_faster": round(ratio, 1),
        "times_faster_cpu": round(cpu_ratio, 1),
        **{name: {k: round(v, 2) for k, v in result.items()} for name, result in speed.items()},
        "false_alarms": {f"{o}/{n} phi {phi:g}": r[0] for (o, n, phi), r in zip(WITHOUT_DRIFT, false_alarms, strict=True)},
        "power_at_0.3_sd": {f"{o}/{n}": r[0] for (o, n, _), r in zip(WITH_DRIFT, power, strict=True)},
        "missed": missed,
    }
    print(json.dumps(figures))
    if missed:
        sys.exit(1)


def _alone(measure: Any) -> dict[str, float]:
    """In a fresh process, so that its peak is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        result: dict[str, float] = fresh.apply(measure)
    return result


def _ours() -> dict[str, float]:
    import scipy.special
    import scipy.stats  # noqa: F401 - imports are not timed

    sides = [_columns(np.random.default_rng(seed), ROWS) for seed in (1, 2)]
    with _timed() as took:
        Reference.of(sides[0]).compare(sides[1])
    return took


def _evidently() -> dict[str, float]:
    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    sides = [pd.DataFrame(_columns(np.random.default_rng(seed), ROWS)) for seed in (1, 2)]
    names = list(sides[0].columns)
    definition = DataDefinition(numerical_columns=names[:NUMBERS], categorical_columns=names[NUMBERS:])
    with _timed() as took, contextlib.redirect_stdout(io.StringIO()):
        reference, recent = (Dataset.from_pandas(side, data_definition=definition) for side in sides)
        Report([DataDriftPreset()], include_tests=True).run(recent, reference).dict()
    return took


@contextlib.contextmanager
def _timed() -> Any:
    took: dict[str, float] = {}
    begun, cpu = time.perf_counter(), time.process_time()
    yield took
    took |= {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    took["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _columns(rng: np.random.Generator, n: int, phi: float = 0.0, shift: float = 0.0) -> dict[str, Any]:
    """The first number is moved by `shift` standard deviations. With `phi` every column remembers, the categories too."""
    columns: dict[str, Any] = {f"number_{i}": _series(rng, n, phi) + (shift if i == 0 else 0.0) for i in range(NUMBERS)}
    kinds, edges = np.array(list("abcde"), dtype=object), np.cumsum(SHARES)[:-1]
    for i in range(CATEGORIES):
        if phi:
            from scipy.special import ndtr

            codes = np.searchsorted(edges, ndtr(_series(rng, n, phi)))
        else:
            codes = rng.choice(len(SHARES), n, p=SHARES)
        columns[f"category_{i}"] = kinds[codes]
    return columns


def _series(rng: np.random.Generator, n: int, phi: float) -> Any:
    if not phi:
        return rng.normal(size=n)
    from scipy.signal import lfilter

    return lfilter([1], [1, -phi], rng.normal(size=n + 200))[200:] * math.sqrt(1 - phi**2)


def _reports(old: int, new: int) -> int:
    return min(max(VALUES_SIMULATED // ((old + new) * (NUMBERS + CATEGORIES)), LEAST_REPORTS), MOST_REPORTS)


def _false_alarms(old: int, new: int, phi: float) -> tuple[float, int]:
    rng, reports = np.random.default_rng([old, new, int(phi * 10)]), _reports(old, new)
    alarms = sum(Reference.of(_columns(rng, old, phi)).compare(_columns(rng, new, phi)).drifted is True for _ in range(reports))
    return alarms / reports, reports


def _power(old: int, new: int) -> tuple[float, int]:
    rng, reports = np.random.default_rng([old, new]), _reports(old, new)
    seen = 0
    for _ in range(reports):
        verdict = Reference.of(_columns(rng, old)).compare(_columns(rng, new, shift=SHIFT))
        seen += bool(verdict.columns["number_0"].found)
    return seen / reports, reports


def _report(speed: dict[str, dict[str, float]], ratio: float, false_alarms: Any, power: Any, missed: list[str]) -> None:
    console = Console()
    fast = Table(title=f"Drift of {ROWS:,} rows x {NUMBERS + CATEGORIES} columns: {ratio:.0f} times faster")
    for name in ("", "seconds", "CPU s", "peak MB"):
        fast.add_column(name)
    for name, result in speed.items():
        fast.add_row(name, f"{result['seconds']:.2f}", f"{result['cpu_s']:.2f}", f"{result['peak_mb']:.0f}")
    console.print(fast)
    right = Table(title="Reports of 20 columns")
    for name in ("reference / recent rows", "memory (phi)", "reports", "false alarms", f"seen at {SHIFT} sd"):
        right.add_column(name)
    for (old, new, phi), (rate, reports) in zip(WITHOUT_DRIFT, false_alarms, strict=True):
        right.add_row(f"{old:,} / {new:,}", f"{phi:g}", str(reports), f"{rate:.3f}", "")
    for (old, new, _), (rate, reports) in zip(WITH_DRIFT, power, strict=True):
        right.add_row(f"{old:,} / {new:,}", "0", str(reports), "", f"{rate:.3f}")
    console.print(right)
    console.print(f"missed: {', '.join(missed)}" if missed else "every figure is met")
