"""How long something took, by a clock that nobody can set. The reading itself is `mlrunbook.base.clocks`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Elapsed:
    """Seconds since an origin that is the same for every process of one boot of one machine: readings of different boots do not compare.

    `total_s` goes on while the machine sleeps, `awake_s` does not: a run that slept with its machine has not died.
    """

    boot: str
    total_s: float
    awake_s: float

    def since(self, then: Elapsed | None, *, by_clock: timedelta) -> timedelta:
        """What has passed. Counted where both readings are of one boot; else what the clock says, which may have been set."""
        counted = then is not None and then.boot == self.boot
        return timedelta(seconds=max(0.0, self.total_s - then.total_s)) if then and counted else max(timedelta(0), by_clock)
