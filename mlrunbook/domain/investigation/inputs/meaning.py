"""What each column says about the outcomes: where one alone says nothing any more, or what another said, it is no longer that column.

Readings that are alike one by one and independent of each other (three dials from 0 to 10) hide a swap from every look at the readings
alone; the outcomes tell. Where the world changes, what all columns say fades or turns together; where a column holds something else, what
it says is gone, turned round, or that of another column, and the others say what they said. A linear model of the outcome on normal scores
is enough to see that, and in it independent columns do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlrunbook.domain.investigation.inputs.relations import scores_of, usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BLOCKS = 8  # the standard error of what a column says: by how much blocks of time differ
LEAST_OUTCOMES = 400
CLEAR = 4.0  # standard errors
LEAST_LOST = 0.25  # of what all columns say together: one that says little explains no fall
NEAR = 0.3  # as a share of what it said: gone, or turned, to this
HOLD = 0.75  # of what the other columns said is still said
AS_ANOTHER = 0.25  # of the way from what was said: what is left once columns are put back


@dataclass(frozen=True)
class Meaning:
    """`holds[a] == b`: column a says of the outcomes what b said. Else `column` says nothing any more, or (`turned`) the opposite."""

    column: str
    turned: bool
    holds: Mapping[str, str]
    rows: int  # the newest ones


def meaning_lost(before: Mapping[str, Floats], outcome_before: Floats, now: Mapping[str, Floats], outcome_now: Floats) -> Meaning | None:
    """Outcomes are 0, 1 or NaN where none is known; all in time order."""
    import numpy as np

    names = usable(before, now)
    if not names:
        return None
    old, new = scores_of(names, before, before), scores_of(names, before, now)
    known, there = np.isfinite(outcome_before), np.isfinite(outcome_now)
    if min(known.sum(), there.sum()) < LEAST_OUTCOMES:
        return None
    was, error = _said(old[known], outcome_before[known])
    rows = np.flatnonzero(there)
    for share in (1.0, 0.5, 0.25, 0.12):
        newest = rows[-int(len(rows) * share) :]
        if len(newest) < LEAST_OUTCOMES:
            return None
        is_, error_now = _said(new[newest], outcome_now[newest])
        older = rows[: -len(newest)]
        if share < 1 and not (len(older) >= LEAST_OUTCOMES // 2 and _is_as_before(was, _said(new[older], outcome_now[older])[0])):
            continue  # it did not set in there
        if found := _judged(names, was, is_, np.hypot(error, error_now)):
            column, turned, holds = found
            return Meaning(column, turned, holds, len(now[names[0]]) - int(newest[0]))
    return None


def _is_as_before(was: Floats, is_: Floats) -> bool:
    return float(((was - is_) ** 2).sum()) <= NEAR**2 * float((was**2).sum())


def _judged(names: list[str], was: Floats, is_: Floats, error: Floats) -> tuple[str, bool, Mapping[str, str]] | None:
    import numpy as np

    size = float(np.sqrt((was**2).sum()))
    clear = (np.abs(was) > CLEAR * error) & (np.abs(was - is_) > CLEAR * error)
    if not clear.any() or not size:
        return None
    if holds := _as_another(names, was, is_, error):
        return next(iter(holds)), False, holds
    lost = [j for j in np.flatnonzero(clear) if abs(was[j]) >= LEAST_LOST * size]
    if len(lost) != 1:
        return None
    j = int(lost[0])
    ratio = is_[j] / was[j]
    turned = bool(abs(ratio + 1) <= NEAR)
    if not turned and abs(ratio) > NEAR:
        return None
    others, theirs = np.delete(was, j), np.delete(is_, j)
    if (np.abs(others) > CLEAR * np.delete(error, j)).any():
        hold = float((others @ theirs) / (others**2).sum()) >= HOLD
    else:
        hold = turned and len(names) == 1  # nothing else says anything: a turned sign is sure even so, a faded one is not
    return (names[j], turned, {}) if hold else None


def _as_another(names: Sequence[str], was: Floats, is_: Floats, error: Floats) -> dict[str, str]:
    """Which columns say what others said, where putting them back leaves hardly anything of the change."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    distance = (is_[:, None] - was[None, :]) ** 2
    columns, others = linear_sum_assignment(distance)
    if float(distance[columns, others].sum()) > AS_ANOTHER * float(np.trace(distance)):
        return {}
    moved = {int(i): int(j) for i, j in zip(columns, others, strict=True) if abs(was[j] - was[i]) > CLEAR * np.hypot(error[i], error[j])}
    return {names[i]: names[j] for i, j in moved.items()} if len(moved) > 1 else {}


def _said(scores: Floats, outcome: Floats) -> tuple[Floats, Floats]:
    """The weight of each column in a linear model of the outcome, and its standard error."""
    import numpy as np

    x = np.hstack([scores, np.ones((len(scores), 1))])
    ridge = np.eye(x.shape[1]) * 1.0

    def weights(part: Floats, told: Floats) -> Floats:
        return np.asarray(np.linalg.solve(part.T @ part + ridge, part.T @ told)[:-1], np.float64)

    whole: Floats = weights(x, outcome)
    parts = [weights(a, b) for a, b in zip(np.array_split(x, BLOCKS), np.array_split(outcome, BLOCKS), strict=True)]
    residual = outcome - x @ np.append(whole, 0.0)
    classical = np.sqrt(np.diag(np.linalg.inv(x.T @ x + ridge))[:-1] * residual.var())
    error: Floats = np.asarray(np.maximum(np.std(parts, axis=0, ddof=1) / np.sqrt(BLOCKS), classical), np.float64)
    return whole, error
