"""A model's figures day by day: what the audits draw, and judge whole quarters and years by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from mlrunbook.domain.evaluation.performance import Confusion


@dataclass(frozen=True)
class DayFigures:
    """What a model did on one day of UTC. The confusion covers the predictions whose outcome is known by now; rates and the latency as in
    `performance.WindowMetrics`, None where they are not measured."""

    day: date
    predictions: int
    confusion: Confusion
    flagged_share: float | None = None
    latency_p95_ms: float | None = None
    error_rate: float | None = None
    null_rate: float | None = None
    versions: tuple[str, ...] = ()


def total(days: Iterable[DayFigures]) -> Confusion:
    return sum((d.confusion for d in days), Confusion())


def between(days: Sequence[DayFigures], since: date, until: date) -> list[DayFigures]:
    """Those of [since, until)."""
    return [d for d in days if since <= d.day < until]
