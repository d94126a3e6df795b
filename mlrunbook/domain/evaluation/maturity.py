"""Which predictions are old enough for their outcomes to be a fair sample, and how long a window must then be.

Outcomes that come first are no sample: a failure is known when it happens, that none happened only when the horizon is over, and early
failures are the easy ones. Everything known of the last 14 days of an unchanged model with a horizon of 7 looked 15 % better than it was;
a new version's first days 91 % (delayed feedback: Chapelle 2014; the age beyond which nothing more comes: Kaplan and Meier 1958).
So a prediction counts from an age on, whichever outcome it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

_ALL_BUT = 0.99  # of each class' outcomes have come
LEAST_DELAYS = 30  # outcomes of a class, for its delay to be known
_DAY_S, _HOUR_S, _MINUTE_S = 86_400.0, 3600.0, 60.0


@dataclass(frozen=True)
class Maturity:
    """From `age_s` on a prediction counts. None: not known, so nothing does; `reason` says why, or where the age comes from."""

    age_s: float | None
    reason: str

    def matured_before(self, now: datetime) -> datetime | None:
        """Predictions made up to here are mature."""
        return None if self.age_s is None else now - timedelta(seconds=self.age_s)


def maturity(positive_delays_s: Sequence[float], negative_delays_s: Sequence[float], horizon_s: float | None = None) -> Maturity:
    """The horizon where it is known; else the age at which 99 % of each class' outcomes had come.

    The delays are of the baseline's outcomes, of predictions that were left alone for long: among young ones only the fast outcomes show.

    >>> maturity([3600.0 * h for h in range(100)], [7 * 86400.0] * 200).reason
    '99 % of the outcomes of each kind come within 7 days'
    """
    if horizon_s is not None:
        return Maturity(horizon_s, f"the model predicts {duration(horizon_s)} ahead")
    few = {"failures": len(positive_delays_s), "healthy assets": len(negative_delays_s)}
    missing = [f"{n} {name}" for name, n in few.items() if n < LEAST_DELAYS]
    if missing:
        return Maturity(None, f"only {' and '.join(missing)} with a known delay, {LEAST_DELAYS} needed: name the model's horizon")
    age = max(_quantile(positive_delays_s), _quantile(negative_delays_s))
    return Maturity(age, f"99 % of the outcomes of each kind come within {duration(age)}")


def _quantile(delays: Sequence[float]) -> float:
    """The smallest delay that at least 99 % of them do not exceed."""
    ranked = sorted(delays)
    return float(ranked[min(-int(-_ALL_BUT * len(ranked) // 1), len(ranked)) - 1])


@dataclass(frozen=True)
class Pace:
    """How fast outcomes come, from the baseline."""

    outcomes_per_day: float
    positives_per_day: float


@dataclass(frozen=True)
class EvaluationWindow:
    """The predictions made from `since` to `until`: all mature. `enough`: at this pace they hold the outcomes that the policy asks for."""

    since: datetime
    until: datetime
    enough: bool
    sentence: str


def evaluation_window(
    pace: Pace, ripe: Maturity, now: datetime, *, min_outcomes: int, min_positives: int, most_s: float
) -> EvaluationWindow | None:
    """As long as `min_outcomes` and `min_positives` take at this pace, `most_s` at most; it ends where predictions are mature. None: no
    age is known at which they are."""
    until = ripe.matured_before(now)
    if until is None:
        return None
    asked_s = max(_days(min_outcomes, pace.outcomes_per_day), _days(min_positives, pace.positives_per_day)) * _DAY_S
    length_s = min(asked_s, most_s)
    needs = f"{min_outcomes:,} outcomes and {min_positives:,} failures"
    comes = f"{pace.outcomes_per_day:,.0f} outcomes and {pace.positives_per_day:.3g} failures come a day"
    if asked_s <= most_s:
        held = f"{needs} take {duration(length_s)}: {comes}"
    else:
        held = f"{needs} would take {duration(asked_s) if asked_s < inf else 'for ever'}, over the {duration(most_s)} allowed: {comes}"
    ends = f"predictions count after {duration(ripe.age_s or 0)}, as {ripe.reason}"
    return EvaluationWindow(until - timedelta(seconds=length_s), until, asked_s <= most_s, f"{held}; {ends}")


def _days(count: int, per_day: float) -> float:
    return count / per_day if per_day > 0 else inf if count else 0.0


def duration(seconds: float) -> str:
    """Two digits are enough: '7 days', '36 hours', '5 minutes'."""
    for unit, of in (("day", 3 * _DAY_S), ("hour", 3 * _HOUR_S), ("minute", 0.0)):
        if seconds >= of:
            count = round(seconds / {"day": _DAY_S, "hour": _HOUR_S, "minute": _MINUTE_S}[unit])
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    raise ValueError(f"{seconds} s is no duration")
