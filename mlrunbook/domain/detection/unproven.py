"""What happens to a claim that the outcomes have not proven yet: it is looked at again as they come, until they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.evaluation.performance import Verdict, percent

AT_ONCE, SOON, HOURLY, LATEST = timedelta(seconds=5), timedelta(minutes=1), timedelta(hours=1), timedelta(hours=6)


def next_look(found: Assessment, now: datetime) -> timedelta:
    """Sooner the nearer the decision is; once it is late, after as long again as it is late, and every hour in the end."""
    if found.undecided_until is None:
        return HOURLY
    left = found.undecided_until - now
    if left <= timedelta(0):
        return min(max(-left, AT_ONCE), HOURLY)
    return min(max(left / 4, min(left, SOON), AT_ONCE), LATEST)


def decided(found: Assessment, again: Assessment, verdict: Verdict, now: datetime, planned_fall: float) -> Assessment | None:
    """What it has turned out to be, by another look. None: that look does not say.

    What a planned fall would have shown by now, and has not, is a false alarm where the interval rules such a fall out: a smaller one is
    waited for no longer than that.
    """
    if not again.waits_for_outcomes:
        return None if again.real is None or (again.real and again.insufficient) else again
    late = found.undecided_until is not None and now >= found.undecided_until
    if not late or verdict.at_most is None or verdict.at_most >= planned_fall:
        return None
    why = f"false alarm: a fall of {percent(planned_fall)} would have shown by now, and is ruled out: {verdict.reason}"
    return replace(again, real=False, unproven=False, undecided_until=None, reasons=(why,))
