"""How often somebody may come: a token bucket for each, kept in this process.

Counted by the monotonic clock: the usual library (limits) counts by the wall clock, and one that jumps back an hour would keep alerts out
for an hour.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MINUTE_S = 60.0
MAX_KEYS = 10_000  # more are forgotten, the longest silent first: a flood of addresses must not fill the memory


class Rate:
    """At most `per_min` a minute of each key, all at once or spread."""

    def __init__(self, per_min: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_min, self._clock = per_min, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (how many more, as of when)
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float | None:
        """None: go on, and it is counted. Else how long to wait; that is not counted."""
        with self._lock:
            now, left = self._clock(), self._now_left(key)
            wait_s = None if left >= 1 else (1 - left) * MINUTE_S / self._per_min
            self._left[key] = (left - 1 if wait_s is None else left, now)
            self._left.move_to_end(key)
            if len(self._left) > MAX_KEYS:
                self._left.popitem(last=False)
            return wait_s

    def is_spent(self, key: str) -> bool:
        """Whether the next one would have to wait. Counts nothing."""
        with self._lock:
            return self._now_left(key) < 1

    def _now_left(self, key: str) -> float:
        left, at = self._left.get(key, (float(self._per_min), self._clock()))
        return min(float(self._per_min), left + (self._clock() - at) * self._per_min / MINUTE_S)
