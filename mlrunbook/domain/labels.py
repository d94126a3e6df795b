"""Outcomes come later than predictions: how much of a window is known, in words, and when to look again."""

from __future__ import annotations

from mlrunbook.domain.performance import WindowMetrics

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
