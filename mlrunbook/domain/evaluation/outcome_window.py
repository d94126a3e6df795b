"""Which outcomes speak for a model now. Those of the last hour, where that holds enough; else of as many mature predictions as its label
delay and its rate of failures need, so that outcomes which come a week later, or twice a day, are measured too.

What is read of the platform are windows of predictions; here is decided which, and what of them counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlrunbook.domain.evaluation.maturity import EvaluationWindow, Maturity, Pace, duration, evaluation_window
from mlrunbook.domain.evaluation.outcomes import due_age_s
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.policy.judging import WindowPolicy

TIMES_ENOUGH = 3  # a wider window is to hold this many times what an hour must: at its edge, half of all windows would hold too few
BASELINE_TIMES = 5  # a baseline this many times as long as the window adds little to the window's own error


@dataclass(frozen=True)
class Span:
    """Predictions made from `since` to `until`."""

    since: datetime
    until: datetime


def holds_enough(window: WindowMetrics, policy: WindowPolicy) -> bool:
    return window.labelled >= policy.min_outcomes and window.tally.cases >= policy.min_positives


def pace_of(window: WindowMetrics, now: datetime) -> tuple[Pace, Maturity] | None:
    """How fast outcomes come and how old they then are, from a window of the past; None where it holds too few to say."""
    known_until = min(window.until, now - timedelta(seconds=window.label_delay_s or 0.0))
    days = (known_until - window.since) / timedelta(days=1)
    if days <= 0 or not window.labelled:
        return None
    if window.mature_age_s:  # a log that was loaded has no delays
        ripe = Maturity(window.mature_age_s, f"99 % of the outcomes of each kind come within {duration(window.mature_age_s)}")
    else:
        ripe = Maturity(due_age_s(window.label_delay_s), f"outcomes take {duration(window.label_delay_s or 0.0)} (median)")
    return Pace(window.labelled / days, window.tally.cases / days), ripe


def wider_window(usual: WindowMetrics, now: datetime, policy: WindowPolicy) -> EvaluationWindow | None:
    """The mature predictions whose outcomes are enough at the usual pace. None: nobody knows how fast they come."""
    known = pace_of(usual, now)
    if known is None:
        return None
    outcomes, positives = TIMES_ENOUGH * policy.min_outcomes, TIMES_ENOUGH * policy.min_positives
    return evaluation_window(*known, now, min_outcomes=outcomes, min_positives=positives, most_s=policy.most_days * 86_400.0)


def since_change(window: EvaluationWindow, changed_at: datetime | None) -> EvaluationWindow | None:
    """The part of it that speaks for the model as it is. None: nothing is mature yet since the change."""
    if changed_at is None:
        return window
    return None if changed_at >= window.until else replace(window, since=max(window.since, changed_at))


def baseline_of(window: EvaluationWindow, judged: ModelMetrics) -> Span | None:
    """The time before the window that it is to be compared with, where the platform's own baseline is too short for it; None where that
    is pinned, or long enough."""
    given = judged.baseline
    pinned = given.until < window.since - timedelta(minutes=1)
    length = (window.until - window.since) * BASELINE_TIMES
    if pinned or given.until - given.since >= length:
        return None
    return Span(window.since - length, window.since)


def judged_on(hour: ModelMetrics, wide: ModelMetrics, baseline: WindowMetrics | None, window: EvaluationWindow) -> ModelMetrics:
    """The requests of the last hour, and the outcomes of the wider window."""
    return replace(
        hour,
        current=replace(_with_outcomes(hour.current, wide.current), outcomes_of=window.sentence),
        baseline=_with_outcomes(hour.baseline, baseline or wide.baseline),
    )


def _with_outcomes(requests: WindowMetrics, outcomes: WindowMetrics) -> WindowMetrics:
    return replace(
        requests,
        labelled=outcomes.labelled,
        tally=outcomes.tally,
        by_risk_level=outcomes.by_risk_level,
        by_asset_type=outcomes.by_asset_type,
        blocks_by_asset_type=outcomes.blocks_by_asset_type,
        assets_by_asset_type=outcomes.assets_by_asset_type,
        label_delay_s=outcomes.label_delay_s,
        outcomes_due=outcomes.outcomes_due,
        outcomes_missing=outcomes.outcomes_missing,
        blocks=outcomes.blocks,
        rewritten=outcomes.rewritten,
        outcomes_since=outcomes.since,
        outcomes_until=outcomes.until,
    )
