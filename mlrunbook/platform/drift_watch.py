"""Whether a model's features moved, looked at from the prediction log at most every minute: the rows are many, and drift is slow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from mlrunbook.db import transaction
from mlrunbook.domain.findings import Finding, feature_distributions
from mlrunbook.domain.monitoring import DRIFT_PARTS, DRIFT_ROWS, spread
from mlrunbook.domain.performance import ModelMetrics
from mlrunbook.platform import predictions
from mlrunbook.ports import Prediction

EVERY = timedelta(minutes=1)


class DriftWatch:
    """Called by the alert loop and by scrapes; whoever comes first in a minute does the work."""

    def __init__(self, on: Engine, *, clock: Callable[[], datetime]) -> None:
        self._on, self._clock = on, clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[datetime, Finding]] = {}

    def __call__(self, model: str, figures: ModelMetrics) -> Finding:
        """The checklist's finding on the feature distributions of the current window against the baseline's."""
        with self._lock:
            now = self._clock()
            if model not in self._last or now - self._last[model][0] >= EVERY:
                self._last[model] = (now, self._look(figures))
            return self._last[model][1]

    def _look(self, figures: ModelMetrics) -> Finding:
        with transaction(self._on) as conn:

            def sample(since: datetime, until: datetime) -> list[Prediction]:
                parts = spread(since, until, DRIFT_PARTS)
                return [p for a, b in parts for p in predictions.recent(conn, model=figures.model, limit=DRIFT_ROWS, since=a, until=b)]

            now, before = figures.current, figures.baseline
            return feature_distributions(sample(now.since, now.until), sample(before.since, before.until))
