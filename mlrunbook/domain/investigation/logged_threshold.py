"""The decision threshold as each logged row carries it: it shows a change that nobody reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.evaluation.prediction_rows import in_time_order
from mlrunbook.domain.observed import Prediction

SAME = 1e-6  # thresholds that differ by less are one, written twice
USUAL_SHARE = 0.8  # of the rows before: below it the threshold is one a row, or a type, and there is none to go back to
LEAST_ROWS = 10
LEAST_SHARE = 0.2  # of the rows since: fewer carry it by accident, or to try it out


@dataclass(frozen=True)
class LoggedThreshold:
    """`before` is what (nearly) all rows carried before `at`, and what those since carry instead (`after`)."""

    before: float
    after: float
    at: datetime
    rows: int
    of: int

    @property
    def sentence(self) -> str:
        share = "" if self.rows == self.of else f" in {percent(self.rows / self.of)} of them"
        when = f"{self.at:%Y-%m-%d %H:%M} UTC"
        return f"the logged rows carry the threshold {self.before:g} before {when}, and {self.after:g} since{share}"


def logged_threshold(
    reference: Sequence[Prediction], rows: Sequence[Prediction], *, version: str | None, until: datetime
) -> LoggedThreshold | None:
    """The last change of the threshold of `version` that is still in force; None where there is none, or the rows before had no one
    threshold. Only rows up to `until` count: later ones carry what the response itself has set. A version's first threshold is its own:
    rows of other versions are no measure of it.
    """
    before = [p for p in in_time_order(reference) if version in (None, p.version)]
    now = [p for p in in_time_order(list({p.id: p for p in rows}.values())) if version in (None, p.version) and p.at <= until]
    if not now:
        return None
    usual = _usual(before) if len(before) >= LEAST_ROWS else _first(now)
    if usual is None:
        return None
    other = [i for i, p in enumerate(now) if abs(p.threshold - usual) > SAME]
    if len(other) < LEAST_ROWS:
        return None
    newest = now[other[-1]].threshold
    same = [i for i in other if abs(now[i].threshold - newest) <= SAME]
    since = now[same[0] :]
    still_on = any(abs(p.threshold - newest) <= SAME for p in now[-LEAST_ROWS:])
    if len(same) < max(LEAST_ROWS, LEAST_SHARE * len(since)) or not still_on:
        return None
    return LoggedThreshold(usual, newest, now[same[0]].at, len(same), len(since))


def _usual(rows: Sequence[Prediction]) -> float | None:
    """What most rows carry; the newest of them, where two are the same but for rounding."""
    counts = Counter(round(p.threshold / SAME) for p in rows)
    most, n = counts.most_common(1)[0]
    if n < USUAL_SHARE * len(rows):
        return None
    return next(p.threshold for p in reversed(rows) if round(p.threshold / SAME) == most)


def _first(rows: Sequence[Prediction]) -> float | None:
    """Without a baseline of this version: what its first rows carried."""
    return _usual(rows[: max(LEAST_ROWS, len(rows) // 20)])
