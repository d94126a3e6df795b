"""Do outcomes still arrive? Without them nobody can say how the model does, neither badly nor well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlrunbook.domain.performance import percent

if TYPE_CHECKING:
    from mlrunbook.domain.performance import ModelMetrics

LEAST_DUE = 200
# Outcomes are due once they are this many times as old as the median outcome of the baseline was, and some seconds for good measure:
# what is younger is on its way.
TIMES_MEDIAN_DELAY, GRACE_S = 3.0, 15.0


@dataclass(frozen=True)
class OutcomeFeed:
    """`stalled` None: not enough outcomes are due to tell, or the platform does not say. `coverage` is the share of the due outcomes that
    is known, 0..1."""

    stalled: bool | None
    coverage: float | None
    sentence: str


def due_age_s(median_delay_s: float | None) -> float:
    """How old a prediction must be for its outcome to be expected."""
    return GRACE_S + TIMES_MEDIAN_DELAY * (median_delay_s or 0.0)


def judge_feed(metrics: ModelMetrics, fallen_to: float = 0.5) -> OutcomeFeed:
    """Stalled: of the outcomes that are due, less than `fallen_to` of the baseline's share is known."""
    now, before = metrics.current, metrics.baseline
    if now.outcomes_due is None or now.outcomes_missing is None:
        return OutcomeFeed(None, None, "the platform does not say which outcomes are due")
    if now.outcomes_due >= LEAST_DUE and (before.predictions < LEAST_DUE or not before.labelled):
        return OutcomeFeed(None, None, "the baseline holds too few outcomes to tell whether they still arrive as they used to")
    if now.outcomes_due < LEAST_DUE:
        return OutcomeFeed(None, None, f"only {now.outcomes_due} outcomes are due: too few to tell whether they still arrive")
    coverage, usual = 1 - now.outcomes_missing / now.outcomes_due, before.labelled / before.predictions
    counts = f"{now.outcomes_due - now.outcomes_missing} of {now.outcomes_due} outcomes that are due have come ({percent(coverage)}"
    if coverage < usual * fallen_to:
        return OutcomeFeed(True, coverage, f"{counts}, usually {percent(usual)}): performance is not known, neither bad nor good")
    return OutcomeFeed(False, coverage, f"{counts}, usually {percent(usual)})")
