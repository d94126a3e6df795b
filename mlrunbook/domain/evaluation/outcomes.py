"""Outcomes come later than predictions: how much of a window is known, in words, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass

from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics, percent

LEAST_DUE = 200
# Outcomes are due once they are this many times as old as the median outcome of the baseline was, and some seconds for good measure:
# what is younger is on its way.
TIMES_MEDIAN_DELAY, GRACE_S = 3.0, 15.0

NEARLY_ALL = 0.95  # from this share of known outcomes on nothing is said of the rest
LEAST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0


def coverage(window: WindowMetrics) -> float | None:
    """The share of predictions whose outcome is known; None without predictions."""
    return window.labelled / window.predictions if window.predictions else None


def relative_coverage(window: WindowMetrics, baseline: WindowMetrics) -> float | None:
    """How well the window is covered next to the baseline: 1 where outcomes are as complete as usual. None where either is unknown."""
    now, usual = coverage(window), coverage(baseline)
    return now / usual if usual and now is not None else None


def lag_words(predictions: int | None, labelled: int | None, label_delay_s: float | None = None) -> str:
    """'' where nearly every outcome is known.

    >>> lag_words(4000, 1200, 7300.0)
    '1,200 of 4,000 predictions have a known outcome; outcomes take 2 h (median of those that have come)'
    """
    if not predictions or labelled is None or labelled >= NEARLY_ALL * predictions:
        return ""
    words = f"{labelled:,} of {predictions:,} predictions have a known outcome"
    return words if label_delay_s is None else f"{words}; outcomes take {span(label_delay_s)} (median of those that have come)"


def lag_of(window: WindowMetrics) -> str:
    """What of the window is not known yet, or which other predictions' outcomes stand for it; '' where nearly all is known."""
    if window.outcomes_since and window.outcomes_until:
        made = f"predictions of {window.outcomes_since:%d %b %H:%M} to {window.outcomes_until:%d %b %H:%M} UTC"
        return f"judged on {window.labelled:,} outcomes of {made}: {window.outcomes_of}"
    return lag_words(window.predictions, window.labelled, window.label_delay_s)


def next_look_s(elapsed_s: float, label_delay_s: float | None) -> float:
    """When to measure again, `elapsed_s` after the change: once its first outcomes may have come, then at growing distance, so that a
    day of waiting is a few dozen looks and not a thousand. Between one minute and one hour."""
    wait_s = elapsed_s / 4
    if label_delay_s is not None and label_delay_s > elapsed_s:
        wait_s = label_delay_s - elapsed_s
    return min(max(wait_s, LEAST_WAIT_S), LONGEST_WAIT_S)


def span(seconds: float) -> str:
    """'40 s', '25 min', '6 h', '3 days'."""
    for size, unit, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        if seconds / size < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


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
