"""What happens to a claim that the outcomes have not proven yet: it is looked at again as they come, until they say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.evaluation.performance import Verdict, percent

AT_ONCE, SOON, HOURLY, LATEST = timedelta(seconds=5), timedelta(minutes=1), timedelta(hours=1), timedelta(hours=6)
MOST_LATE = timedelta(days=7)


@dataclass(frozen=True)
class Measured:
    """What another look at `now` has measured: `verdict` None: nothing. `has_history`: by all outcomes since the baseline was pinned.
    `began`: when the incident did."""

    verdict: Verdict | None
    has_history: bool
    began: datetime
    now: datetime

    def is_late(self, found: Assessment) -> bool:
        return found.undecided_until is not None and self.now >= found.undecided_until

    def is_over(self, found: Assessment) -> bool:
        """Late by as long as was to be waited."""
        if found.undecided_until is None:
            return False
        return self.now >= found.undecided_until + min(max(found.undecided_until - self.began, LATEST), MOST_LATE)


def next_look(found: Assessment, now: datetime) -> timedelta:
    """Sooner the nearer the decision is; once it is late, after as long again as it is late, and every hour in the end."""
    if found.undecided_until is None:
        return HOURLY
    left = found.undecided_until - now
    if left <= timedelta(0):
        return min(max(-left, AT_ONCE), HOURLY)
    return min(max(left / 4, min(left, SOON), AT_ONCE), LATEST)


def decided(found: Assessment, again: Assessment, measured: Measured, planned_fall: float) -> Assessment | None:
    """What it has turned out to be, by another look. None: that look does not say.

    What a planned fall would have shown by now, and has not, is a false alarm where the interval rules such a fall out: a smaller one is
    waited for no longer than that. What all outcomes left open is not ended by a window of them. A wait that is over without a decision is
    people's: it pages by its severity from then on.
    """
    if not again.waits_for_outcomes and _says(again, measured):
        return again
    verdict = measured.verdict if again.waits_for_outcomes else None
    if verdict and measured.is_late(found) and verdict.at_most is not None and verdict.at_most < planned_fall:
        why = f"false alarm: a fall of {percent(planned_fall)} would have shown by now, and is ruled out: {verdict.reason}"
        return replace(again, real=False, unproven=False, undecided_until=None, reasons=(why,))
    return _given_up(found, again) if measured.is_over(found) else None


def _says(again: Assessment, measured: Measured) -> bool:
    if again.real and not again.insufficient:
        return True
    if measured.verdict is None:
        return False
    return measured.has_history if not again.real else not again.unproven  # real, and no outcome that comes decides about it


def _given_up(found: Assessment, again: Assessment) -> Assessment:
    until = f"{found.undecided_until:%d %b %Y %H:%M} UTC" if found.undecided_until else "now"
    why = f"still not proven, though outcomes were to decide by about {until}: treated as real, {found.severity}, without automatic changes"
    return replace(found, undecided_until=None, reasons=(why, *again.reasons))
