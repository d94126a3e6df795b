"""Where a score from 0 to 1 at a moment stands on a chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from mlrunbook.adapters.reports.charts import WIDTH

LEFT, RIGHT, TOP, HEIGHT = 44, 14, 34, 190


@dataclass(frozen=True)
class TimeScale:
    """From `first` at the left to `last` at the right."""

    first: datetime
    last: datetime
    bottom: ClassVar[float] = TOP + HEIGHT

    def x(self, at: datetime) -> float:
        share = (at - self.first) / max(self.last - self.first, (self.last - self.first).resolution)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    @staticmethod
    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - min(max(value, 0.0), 1.0))
