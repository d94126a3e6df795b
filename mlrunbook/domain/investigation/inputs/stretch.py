"""When something set in: the stretch of rows that speaks most for it.

Each row says by how much likelier it is with the fault than without (a log likelihood ratio); the stretch with the largest sum is where the
fault was (Page 1954: the CUSUM of log likelihood ratios; its maximum over all beginnings and ends is Kadane's maximum sum of a part). Were
the likelihoods known and rows independent, that sum would pass `a` by chance with a probability below n exp(-a) (Ville 1939, over n
beginnings); both are estimated here and rows resemble each other, so far more is asked for (`ENOUGH`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

ENOUGH = 40.0  # nats
TIMES_USUAL = 3.0
LEAST_ROWS = 20
FORGIVEN = 1.5  # nats that one row may speak against it: some rows of a stretch may be of another writer
MOST_OF_ONE = 4.0


@dataclass(frozen=True)
class Stretch:
    """Rows [start, end) and what they say together."""

    start: int
    end: int
    evidence: float

    @property
    def rows(self) -> int:
        return self.end - self.start

    @property
    def is_enough(self) -> bool:
        return self.rows >= LEAST_ROWS and self.evidence >= ENOUGH

    def is_beyond(self, usual: Stretch) -> bool:
        """Far more than any stretch of the reference says of itself: a spike of prices or a cold week is nothing new."""
        return self.is_enough and self.evidence >= TIMES_USUAL * usual.evidence


def best_stretch(evidence: Floats) -> Stretch:
    """
    >>> import numpy as np
    >>> best_stretch(np.array([-1.0, 2.0, -0.5, 3.0, -4.0]))
    Stretch(start=1, end=4, evidence=4.5)
    """
    import numpy as np

    if not len(evidence):
        return Stretch(0, 0, 0.0)
    total = np.concatenate([[0.0], np.cumsum(np.clip(evidence, -FORGIVEN, MOST_OF_ONE))])
    gain = total - np.minimum.accumulate(total)
    end = int(gain.argmax())
    if not gain[end] > 0:
        return Stretch(0, 0, 0.0)
    return Stretch(int(total[:end].argmin()), end, float(gain[end]))


def stretch_of(seen: Bools, usual: float, *, share: float = 0.95) -> Stretch:
    """Where a mark that `usual` rows carry is on `share` of them instead."""
    import numpy as np

    usual = min(max(usual, 1e-4), 0.99)
    if share <= usual:
        return Stretch(0, 0, 0.0)
    return best_stretch(np.where(seen, log(share / usual), log((1 - share) / (1 - usual))))
